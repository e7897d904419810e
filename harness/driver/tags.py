"""Tags of StorPool objects (spec/cloudstack-plugin.md 1.3), and how those of a volume follow its VM.

An empty value removes a tag. `uuid` and `cs` are set once, when the object is made.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from contextlib import ExitStack

from msgspec import UNSET

from harness.driver.operations import Operation, Operations, log
from harness.driver.pools import Pool, Pools
from harness.driver.tiers import placement
from harness.spi.driver import DriverRecords
from harness.spi.errors import Conflict, Error, InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.inventory import VolumeRecord
from harness.spi.objects import SnapshotObject, TemplateObject, VolumeObject, storpool_id
from harness.storpool import ObjectDoesNotExist, StorPoolClient, VolumeUpdateDesc

VC_POLICY = "vc-policy"
CHECK_VOLUME = {"cs": "check-volume-is-on-host"}
DELAY_DELETE = {"cs": "delayDelete"}
TEMPORARY = "temporary"
"""Value of `cs` of a snapshot that a volume is copied from."""
DETACHED = {"cvm": "", "disk": "", VC_POLICY: ""}
SENDINGS = 3
REMEMBERED = 4096
"""Volumes whose last update is remembered."""
_VALUE = re.compile(r"[A-Za-z0-9_\-.:]{0,199}")
"""What StorPool takes as the value of a tag."""


def new_volume(records: DriverRecords, volume: VolumeObject) -> dict[str, str]:
    """Tags that a volume is created with."""
    tags = {"uuid": volume.uuid, "cs": "volume"}
    tier = placement(records, volume.disk_offering_id).tier
    if tier is not None:
        tags |= of_tier(tier)
    if volume.vm_uuid is not None:
        tags["cvm"] = volume.vm_uuid
        policy = _policy(records, volume.vm_uuid)
        if policy:
            tags[VC_POLICY] = policy
    if volume.device_id is not None:
        tags["disk"] = str(volume.device_id)
    return tags


def template_volume(template: TemplateObject) -> dict[str, str]:
    """Tags of the volume a template is copied onto; VolumeCare must leave it alone."""
    return {"uuid": template.uuid, "cs": "template", VC_POLICY: "no"}


def template_snapshot(template: TemplateObject) -> dict[str, str]:
    return {"uuid": template.uuid, "cs": "template"}


def template_mirror(template: TemplateObject) -> dict[str, str]:
    """Tags of the snapshot that a template was made as; the one that volumes start from has no policy."""
    return {"uuid": template.uuid, "cs": "template", VC_POLICY: "no"}


def temporary_snapshot(volume: VolumeObject) -> dict[str, str]:
    tags = {"uuid": volume.uuid, "cs": TEMPORARY, VC_POLICY: "no"}
    if volume.vm_uuid is not None:
        tags["cvm"] = volume.vm_uuid
    return tags


def new_snapshot(snapshot: SnapshotObject) -> dict[str, str]:
    tags = {"uuid": snapshot.uuid, "cs": "snapshot"}
    if snapshot.volume.vm_uuid is not None:
        tags["cvm"] = snapshot.volume.vm_uuid
    return tags


def new_group(vm_snapshot_uuid: str, vm_uuid: str) -> dict[str, str]:
    """Tags of each snapshot of a VM snapshot."""
    return {"uuid": vm_snapshot_uuid, "cvm": vm_uuid, "cs": "group"}


def kept_disks(vm_snapshot_uuid: str) -> dict[str, str]:
    """Tags of what a VM's disks are put back to, if not all of them can be reverted to this VM snapshot."""
    return {"uuid": vm_snapshot_uuid, "cs": TEMPORARY}


def attached(records: DriverRecords, vm_uuid: str, volume: VolumeObject) -> dict[str, str]:
    """Tags that an attach changes."""
    tags = {"cvm": vm_uuid, VC_POLICY: _policy(records, vm_uuid)}
    if volume.device_id is not None:
        tags["disk"] = str(volume.device_id)
    if volume.disk_offering_id is not None:
        tags["qc"] = _tier(records, volume.disk_offering_id)
    return tags


def of_tier(tier: str | None) -> dict[str, str]:
    """The tier of storpool_qos; raises `InvalidParameter` for one that StorPool cannot hold."""
    if tier is not None and not _VALUE.fullmatch(tier):
        raise InvalidParameter(
            f"tier {tier[:200]!r} of the offering cannot be a StorPool tag; "
            "it may have up to 199 letters, digits and _ - . :"
        )
    return {"qc": tier or ""}


def _tier(records: DriverRecords, disk_offering_id: int) -> str:
    """Whoever has an offering with a tier that cannot be keeps the use of the volume."""
    try:
        return of_tier(placement(records, disk_offering_id).tier)["qc"]
    except InvalidParameter as error:
        log.warning("left out: %s", error)
        return ""


def policy(records: DriverRecords, vm_uuid: str) -> dict[str, str]:
    """The VM's VolumeCare policy; raises `InvalidParameter` for one that StorPool cannot hold."""
    value = records.vm_tag(vm_uuid, VC_POLICY) or ""
    if not _VALUE.fullmatch(value):
        raise InvalidParameter(
            f"VM {vm_uuid}: tag {VC_POLICY} {value[:200]!r} cannot be a StorPool tag; "
            "it may have up to 199 letters, digits and _ - . :"
        )
    return {VC_POLICY: value}


def _policy(records: DriverRecords, vm_uuid: str) -> str:
    """Its user may have tagged the VM with anything; that keeps no volume from being made or from naming its VM."""
    try:
        return policy(records, vm_uuid)[VC_POLICY]
    except InvalidParameter as error:
        log.warning("left out: %s", error)
        return ""


def recorded(records: DriverRecords, volume: VolumeRecord) -> dict[str, str]:
    """Every tag of a volume as the records want it; an empty value where there should be none."""
    tags = {"uuid": volume.uuid, "cs": "volume", **DETACHED}
    if volume.disk_offering_id is not None:
        tags["qc"] = _tier(records, volume.disk_offering_id)
    if volume.vm_uuid is not None:
        tags["cvm"] = volume.vm_uuid
        tags[VC_POLICY] = _policy(records, volume.vm_uuid)
        if volume.device_id is not None:
            tags["disk"] = str(volume.device_id)
    return tags


class TagUpdates:
    """Changes tags, and limits, of a volume. Steps: update, then settle while an earlier update may still arrive.

    An update that was answered may arrive a second time. Where another one follows soon, its values are sent once more
    when no copy of the first can be under way any longer.
    """

    kind = "tags"

    def __init__(self, operations: Operations, pools: Pools, records: DriverRecords) -> None:
        self._operations = operations
        self._pools = pools
        self._records = records
        self._recent: OrderedDict[str, float] = OrderedDict()
        """When a volume was last updated by this process, by its subject; the oldest first."""
        self._guard = operations.lock("storpool-tags")

    def update(self, volume: VolumeObject, tags: dict[str, str]) -> None:
        """Merge `tags` into the volume's. Raises `NotFound` when the volume is gone.

        While StorPool cannot be reached the operation stays open, and `recover` sends the tags: by then its caller may
        have gone on without them.
        """
        if volume.path is None:
            return
        pool = self._pools.of(volume)
        subject = f"volume:{volume.uuid}"
        data = {"pool": str(pool.id), "path": volume.path, "tags": json.dumps(tags, sort_keys=True)}
        with ExitStack() as stack:
            try:
                stack.enter_context(self._operations.exclusive(subject))
            except Conflict:
                # Who holds the volume hangs. `recover` sets the tags once it is free, as the records want them then.
                self._operations.begin(self.kind, subject, "update", data)
                raise
            operation = self._operations.begin(self.kind, subject, "update", data)
            if operation.resumed:
                # What an earlier call wanted and this one says nothing about still holds for the same object.
                same = operation.data["path"] == volume.path
                earlier = _tags(operation) if same else {}
                iops = operation.data.get("iops", "") if same else ""
                merged = json.dumps({**earlier, **tags}, sort_keys=True)
                operation.advance("update", {**data, "tags": merged, "iops": iops})
                self._note_lost(operation)
            elif self._operations.now() < self._last_update(subject) + self._operations.settle_time:
                self._note_lost(operation)
            self._carry_out(operation, pool)

    def mend(self, volume: VolumeRecord, pool: Pool, tags: dict[str, str], iops: int | None) -> None:
        """As `update`, of a volume that the caller holds and on which no operation is open; `iops` None stays."""
        data = {"pool": str(pool.id), "path": volume.path or "", "tags": json.dumps(tags, sort_keys=True)}
        data["iops"] = "" if iops is None else str(iops)
        self._carry_out(self._operations.begin(self.kind, f"volume:{volume.uuid}", "update", data), pool)

    def recover(self, operation: Operation) -> str:
        """Bring the tags to what the records say now; a lost update that arrives later is undone by this.

        Who asked for other ones since may have died before it could tell. Without a record they are what was asked for.
        """
        client = self._pools.get(int(operation.data["pool"])).client
        if operation.step == "settle" and not self._operations.settled(operation):
            return f"{operation}: tags set; open until an earlier update can no longer arrive"
        record = self._records.volume(operation.subject.removeprefix("volume:"))
        if record is not None and record.path == operation.data["path"] and not record.removed:
            if not record.steady:
                return f"{operation}: open until what CloudStack does with the volume is over"
            operation.note(
                {"tags": json.dumps({**_tags(operation), **recorded(self._records, record)}, sort_keys=True)}
            )
        if operation.step == "update":
            # Its process died with the update on its way, for all that is known.
            operation.advance("settle", self._operations.settling())
        try:
            if self._send(operation, client):
                self._note_lost(operation)
        except NotFound:
            operation.done()
            return f"{operation}: the volume is gone"
        if self._end_or_settle(operation, done=True):
            return f"{operation}: tags set"
        return f"{operation}: tags set; open until an earlier update can no longer arrive"

    def _carry_out(self, operation: Operation, pool: Pool) -> None:
        try:
            lost = self._send(operation, pool.client)
            if self._overtaken(operation):
                lost |= self._send(operation, pool.client)
        except (Unknown, Unavailable):
            raise
        except Error:
            self._end_or_settle(operation, done=False)
            raise
        if lost:
            self._note_lost(operation)
        self._end_or_settle(operation, done=True)

    def _overtaken(self, operation: Operation) -> bool:
        """Whether the records want other tags by now; then those are the operation's.

        Whoever recorded them may have given up waiting for this call, which held the volume all the time.
        """
        record = self._records.volume(operation.subject.removeprefix("volume:"))
        if record is None or record.removed or not record.steady or record.path != operation.data["path"]:
            return False
        sent, wanted = _tags(operation), recorded(self._records, record)
        newer = {key: wanted[key] for key in sent if wanted.get(key, sent[key]) != sent[key]}
        if newer:
            operation.note({"tags": json.dumps({**sent, **newer}, sort_keys=True)})
        return bool(newer)

    def _send(self, operation: Operation, client: StorPoolClient) -> bool:
        """Send tags and limit until StorPool says yes; whether an earlier sending may still arrive."""
        name, iops = storpool_id(operation.data["path"]), operation.data.get("iops")
        desc = VolumeUpdateDesc(tags=_tags(operation) or UNSET, iops=int(iops) if iops else UNSET)
        lost = False
        for left in reversed(range(SENDINGS)):
            try:
                client.volume_update(name, desc)
                self.remember(operation.subject)
                return lost
            except ObjectDoesNotExist:
                raise NotFound(f"{operation.subject}: StorPool has no volume {name}") from None
            except Unknown:
                # Sending the same values again does no harm. Reading them back would prove nothing: they may have been
                # there before, and the update still be on its way.
                lost = True
                if not left:
                    self._note_lost(operation)
                    raise
        return lost

    def _last_update(self, subject: str) -> float:
        with self._guard:
            return self._recent.get(subject, 0.0)

    def remember(self, subject: str) -> None:
        """An update of the volume was answered; a copy of it may still arrive."""
        now = self._operations.now()
        with self._guard:
            self._recent[subject] = now
            self._recent.move_to_end(subject)
            if len(self._recent) > REMEMBERED:
                self._recent.popitem(last=False)

    def _note_lost(self, operation: Operation) -> None:
        operation.note(self._operations.settling())

    def _end_or_settle(self, operation: Operation, *, done: bool) -> bool:
        if not self._operations.settled(operation):
            operation.advance("settle")
            return False
        if done:
            operation.done()
        else:
            operation.undone()
        return True


def _tags(operation: Operation) -> dict[str, str]:
    found: dict[str, str] = json.loads(operation.data["tags"])
    return found
