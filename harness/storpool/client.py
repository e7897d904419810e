"""Typed calls of the StorPool management API, as driver and agent need them.

Objects are addressed by name or `~globalId`. Object calls carry the MultiCluster prefix, as the Java plugin's do
(spec/cloudstack-plugin.md 1.4). Every method raises the errors of `harness.storpool.errors`; a change whose outcome is
unknown raises `Unknown` after one sending, and the caller reads back before it does anything else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec
from msgspec import UNSET

from harness.spi.errors import InvalidParameter
from harness.spi.runtime import Runtime
from harness.storpool import types
from harness.storpool.errors import ApiError, AuthenticationFailed, MalformedAnswer, ObjectDoesNotExist, from_answer
from harness.storpool.retry import RetryPolicy
from harness.storpool.transport import Reply, Request, Transport

T = TypeVar("T")

CALL_TIMEOUT = 60.0
"""Seconds one sending may take, unless the call waits for hosts."""
_OBJECT = re.compile(r"~[a-z0-9]+\.[a-z0-9]+\.[a-z0-9]+|[#*]?[A-Za-z0-9_\-.:@]{1,199}")
_CLUSTER_ID = re.compile(r"[a-z0-9]+\.[a-z0-9]+")
_ABSENT = msgspec.Raw()


class _Envelope(msgspec.Struct, frozen=True):
    """Around every answer."""

    data: msgspec.Raw = _ABSENT
    error: ApiError | None = None


class _Shape(Generic[T]):
    """Decodes the `data` of an answer into one type."""

    def __init__(self, kind: type[T]) -> None:
        self._decoder = msgspec.json.Decoder(kind)

    def decode(self, data: msgspec.Raw) -> T:
        return self._decoder.decode(data)


_envelope = msgspec.json.Decoder(_Envelope)
_DONE = _Shape(types.Done)
_VOLUME_CREATED = _Shape(types.VolumeCreated)
_SNAPSHOT_CREATED = _Shape(types.SnapshotCreated)
_VOLUMES = _Shape(list[types.VolumeSummary])
_SNAPSHOTS = _Shape(list[types.SnapshotSummary])
_ATTACHMENTS = _Shape(list[types.Attachment])
_ELEMENTS = _Shape(list[msgspec.Raw])
_VOLUME = _Shape(types.VolumeSummary)
_SNAPSHOT = _Shape(types.SnapshotSummary)
_ATTACHMENT = _Shape(types.Attachment)
_GROUP_SNAPSHOTS = _Shape(types.GroupSnapshots)
_SPACES = _Shape(list[types.VolumeSpace])
_TEMPLATE = _Shape(types.Template)
_TEMPLATES_STATUS = _Shape(list[types.TemplateStatus])
_CLUSTER = _Shape(types.ClusterStatus)
_LOCATIONS = _Shape(types.Locations)
_CLIENT_CONFIGS = _Shape(list[types.ClientConfigStatus])


def exists(look: Callable[[str], object], name: str) -> bool:
    """Whether StorPool has the object; `look` is the client's `volume` or `snapshot`."""
    try:
        look(name)
    except ObjectDoesNotExist:
        return False
    return True


class StorPoolClient:
    """One StorPool API, with retries."""

    def __init__(
        self,
        transport: Transport,
        runtime: Runtime,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - a frozen value
        timeout: float = CALL_TIMEOUT,
    ) -> None:
        self._transport = transport
        self._runtime = runtime
        self._retry = retry
        self._timeout = timeout
        self._prefix = ""

    def at(self, cluster_id: str) -> StorPoolClient:
        """The same API, which hands every call on to the cluster that it knows by the id `<location>.<sub-cluster>`."""
        if not _CLUSTER_ID.fullmatch(cluster_id):
            raise InvalidParameter(f"StorPool: {cluster_id!r} is not a cluster id, such as d.n")
        other = StorPoolClient(self._transport, self._runtime, self._retry, self._timeout)
        other._prefix = f"RemoteCommand/~{cluster_id}/"
        return other

    def volume_create(self, desc: types.VolumeCreateDesc) -> types.VolumeCreated:
        return self._post("MultiCluster/VolumeCreate", desc, _VOLUME_CREATED)

    def volume(self, name: str) -> types.VolumeSummary:
        """Raises `ObjectDoesNotExist` when there is none, also when a snapshot has the name."""
        return self._one(f"MultiCluster/Volume/{_object(name)}", _VOLUMES)

    def volume_update(self, name: str, desc: types.VolumeUpdateDesc) -> None:
        self._post(f"MultiCluster/VolumeUpdate/{_object(name)}", desc, _DONE)

    def volume_delete(self, name: str) -> None:
        """Raises `Busy` while the volume is attached: nothing is ever detached by force."""
        self._post(f"MultiCluster/VolumeDelete/{_object(name)}", types.Nothing(), _DONE)

    def volume_revert(self, name: str, desc: types.VolumeRevertDesc) -> None:
        """What was written since the snapshot is lost. The volume goes by the id it had, `global_id` is a new one."""
        self._post(f"MultiCluster/VolumeRevert/{_object(name)}", desc, _DONE)

    def snapshot(self, name: str) -> types.SnapshotSummary:
        return self._one(f"MultiCluster/Snapshot/{_object(name)}", _SNAPSHOTS)

    def snapshot_create(self, volume: str, desc: types.VolumeSnapshotDesc) -> types.SnapshotCreated:
        return self._post(f"MultiCluster/VolumeSnapshot/{_object(volume)}", desc, _SNAPSHOT_CREATED)

    def snapshot_create_group(self, desc: types.GroupSnapshotsDesc) -> types.GroupSnapshots:
        """Snapshots of all these volumes at one point in time; after an error none was made."""
        return self._post("MultiCluster/VolumesGroupSnapshot", desc, _GROUP_SNAPSHOTS)

    def snapshot_update(self, name: str, desc: types.SnapshotUpdateDesc) -> None:
        self._post(f"MultiCluster/SnapshotUpdate/{_object(name)}", desc, _DONE)

    def snapshot_delete(self, name: str) -> None:
        """Volumes made from it keep their data. Raises `Busy` while it is attached."""
        self._post(f"MultiCluster/SnapshotDelete/{_object(name)}", types.Nothing(), _DONE)

    def snapshot_export(self, name: str, location: str) -> None:
        """Let the location read the snapshot, of this cluster only; once more changes nothing."""
        desc = types.SnapshotExportDesc(snapshot=_object(name), location=location)
        self._post("SnapshotExport", desc, _DONE)

    def snapshot_unexport(self, name: str, location: str | None = None, *, force: bool = False) -> None:
        """Take that back, from all locations unless one is named.

        Raises `Busy` while a copy there is still recovering, unless `force`, and `ObjectDoesNotExist` when there is no
        such snapshot or export.
        """
        desc = types.SnapshotUnexportDesc(
            snapshot=_object(name),
            location=UNSET if location is None else location,
            all=True if location is None else UNSET,
            force=True if force else UNSET,
        )
        self._post("SnapshotUnexport", desc, _DONE)

    def snapshot_from_remote(self, desc: types.SnapshotFromRemoteDesc) -> None:
        """A copy, under its global id, of what a location exports. Raises `ObjectExists` when the cluster has one."""
        self._post("SnapshotFromRemote", desc, _DONE)

    def snapshot_reconcile(self, name: str) -> None:
        """Make a copy one of the location's own snapshots. Raises `Busy` while it is still recovering."""
        self._post(f"SnapshotReconcile/{_object(name)}", types.Nothing(), _DONE)

    def snapshot_here(self, name: str) -> types.SnapshotSummary:
        """As `snapshot`, of this cluster only."""
        return self._one(f"Snapshot/{_object(name)}", _SNAPSHOTS)

    def locations_list(self) -> list[types.Location]:
        """The locations that the cluster knows: a few, however much they hold."""
        return self._get("LocationsList", _LOCATIONS).locations

    def attachments(self, name: str) -> list[types.Attachment]:
        """Attachments of one volume or snapshot, on whatever client."""
        _object(name)
        return [attachment for attachment in self.attachments_list() if attachment.is_of(name)]

    def volumes_reassign_wait(
        self,
        items: Sequence[types.VolumeReassignDesc | types.SnapshotReassignDesc],
        attach_timeout: int = 30,
        timeout: float | None = None,
    ) -> None:
        """Attach and detach, all or nothing; returns when the clients have followed.

        `attach_timeout` (seconds) bounds the wait for clients that are down; `timeout` bounds one sending further.
        """
        desc = types.VolumesReassignWaitDesc(reassign=tuple(items), attach_timeout=attach_timeout)
        longest = self._timeout + attach_timeout
        self._post(
            "MultiCluster/VolumesReassignWait", desc, _DONE, longest if timeout is None else min(timeout, longest)
        )

    def volume_template_describe(self, name: str) -> types.Template:
        return self._get(f"VolumeTemplateDescribe/{_object(name)}", _TEMPLATE)

    def volume_templates_status(self) -> list[types.TemplateStatus]:
        return self._get("VolumeTemplatesStatus", _TEMPLATES_STATUS)

    def volumes_space(self) -> list[types.VolumeSpace]:
        """Of every volume; for statistics only, because it grows with the cluster."""
        return self._get("VolumesSpace", _SPACES)

    def services_list(self) -> types.ClusterStatus:
        return self._get("ServicesList", _CLUSTER)

    def client_config_wait(self, client_id: int, timeout: float = CALL_TIMEOUT) -> None:
        """Returns when the client has the cluster's present configuration; `AnswerLost` after `timeout` seconds."""
        self._get(f"ClientConfigWait/{int(client_id)}", _CLIENT_CONFIGS, timeout)

    def attachments_list(self, unread: list[str] | None = None) -> list[types.Attachment]:
        """Every attachment; for the reconciler only. `unread` as in `volumes_list`."""
        return self._list("MultiCluster/AttachmentsList", _ATTACHMENTS, _ATTACHMENT, unread)

    def volumes_list(self, unread: list[str] | None = None) -> list[types.VolumeSummary]:
        """Every volume; for the reconciler only, because it grows with the cluster.

        Of an element that is not what the API declares a text is added to `unread`; without it the call raises.
        """
        return self._list("MultiCluster/VolumesList", _VOLUMES, _VOLUME, unread)

    def snapshots_list(self, unread: list[str] | None = None) -> list[types.SnapshotSummary]:
        """Every snapshot, those being deleted too; for the reconciler only. `unread` as in `volumes_list`."""
        return self._list("MultiCluster/SnapshotsList", _SNAPSHOTS, _SNAPSHOT, unread)

    def _list(self, path: str, whole: _Shape[list[T]], element: _Shape[T], unread: list[str] | None) -> list[T]:
        if unread is None:
            return self._get(path, whole)
        found = []
        elements: list[msgspec.Raw] = self._get(path, _ELEMENTS)
        for index, data in enumerate(elements):
            try:
                found.append(element.decode(data))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                unread.append(f"StorPool {path}: element {index}{_identity(data)} cannot be read: {error}")
        return found

    def _one(self, path: str, shape: _Shape[list[T]]) -> T:
        found = self._get(path, shape)
        if len(found) != 1:
            raise MalformedAnswer(f"StorPool {path}: expected a list of one object, got {len(found)}")
        return found[0]

    def _get(self, path: str, shape: _Shape[T], timeout: float | None = None) -> T:
        request = Request("GET", self._prefix + path, None, timeout or self._timeout)
        return self._call(request, shape, repeatable=True)

    def _post(self, path: str, body: types.Sent, shape: _Shape[T], timeout: float | None = None) -> T:
        request = Request("POST", self._prefix + path, msgspec.json.encode(body), timeout or self._timeout)
        return self._call(request, shape, repeatable=False)

    def _call(self, request: Request, shape: _Shape[T], *, repeatable: bool) -> T:
        def once() -> T:
            return _decode(request, self._transport.call(request), shape)

        return self._retry.run(self._runtime, once, repeatable=repeatable)


def _identity(data: msgspec.Raw) -> str:
    """What an element that cannot be read says of who it is."""
    try:
        members = msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    told = [f"{key} {str(members[key])[:200]}" for key in ("name", "volume", "globalId") if key in members]
    return f" ({', '.join(told)})" if told else ""


def _object(name: str) -> str:
    """The name, if it is one that can stand in a call path."""
    if not _OBJECT.fullmatch(name) or name in (".", "..", "list", "status"):
        raise InvalidParameter(f"StorPool: {name!r} is neither an object name nor a ~globalId")
    return name


def _decode(request: Request, reply: Reply, shape: _Shape[T]) -> T:
    what = f"StorPool {request.path}"
    try:
        envelope = _envelope.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if reply.status in (401, 403):
            raise AuthenticationFailed(f"{what}: HTTP {reply.status}; check the pool's SP_AUTH_TOKEN") from None
        raise MalformedAnswer(
            f"{what}: HTTP {reply.status} with {len(reply.body)} bytes that are not an answer of the API ({error})"
        ) from None
    if envelope.error is not None:
        raise from_answer(request.path, reply.status, envelope.error)
    if reply.status != 200 or envelope.data in (_ABSENT, b"null"):
        raise MalformedAnswer(f"{what}: HTTP {reply.status} with neither data nor an error")
    try:
        return shape.decode(envelope.data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedAnswer(f"{what}: the answer's data is not what the API declares: {error}") from None
