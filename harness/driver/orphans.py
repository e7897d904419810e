"""StorPool objects of ours that nobody knows: which they are, and their removal.

An object is removed only if it can be shown that this CloudStack made it and needs it no more: an operation of these
records is in its name, or they have a record of the uuid in its tags that is removed. StorPool's template does not show
it, because several clouds may use one. Neither does a record that is still there, or a template: records that were
restored from an older copy know of the volume or template, and not of the object that was made for it since.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.driver import tags
from harness.driver.operations import Operation, Operations
from harness.driver.pools import Pool, Pools, StorPoolCluster
from harness.driver.removal import remove_snapshot, remove_volume
from harness.driver.settings import seconds
from harness.spi.driver import DriverRecords
from harness.spi.errors import Error, Unknown
from harness.spi.inventory import (
    Client,
    Finding,
    FindingKind,
    Inventory,
    SnapshotRecord,
    VmSnapshotRecord,
    VolumeRecord,
)
from harness.spi.objects import NAME_PREFIX, device_path, storpool_id
from harness.spi.states import VolumeState
from harness.storpool import ObjectDoesNotExist, SnapshotSummary, VolumeSummary, exists

GRACE = "storpool.orphans.grace"
_KINDS = {
    "volume": ("volume", "template", "check-volume-is-on-host"),
    "snapshot": ("snapshot", "template", "delayDelete", "group", "temporary"),
}
"""Values of the tag `cs` that this driver gives volumes and snapshots."""
_NAME = re.compile(r"cs-(.+?)-(?:disk\d+-|given-)?(?:volume|snapshot)")


class Orphans:
    """Removes orphans. One step: remove. A removal that was cut off is not carried on: the next pass decides anew."""

    kind = "remove-orphan"

    def __init__(self, operations: Operations, pools: Pools, records: DriverRecords) -> None:
        self._operations = operations
        self._pools = pools
        self._records = records

    def find(
        self, cluster: StorPoolCluster, found: VolumeSummary, seen: Inventory, holders: frozenset[Client]
    ) -> Iterator[Finding]:
        """What is to be told of an object in StorPool's list, which is older than `seen`; orphans are removed.

        `holders` are the StorPool clients that have it attached.
        """
        if not self._is_unknown(cluster, found, seen) or not self._is_old(found):
            return
        doubt = self._doubt(cluster, found)
        if doubt is not None:
            yield _finding(found, FindingKind.UNATTRIBUTED, f"{doubt}; it is never removed, look at it yourself")
            return
        others = [client for client in holders if not any(host.up and host.is_client(client) for host in seen.hosts)]
        if not seconds(self._records, GRACE):
            yield _finding(found, FindingKind.ORPHAN, f"nothing knows it; not removed, because {GRACE} is 0")
        elif others:
            clients = ", ".join(sorted(map(str, others)))
            text = f"nothing knows it; not removed, because StorPool client {clients}, no host that is Up, has it"
            yield _finding(found, FindingKind.ORPHAN, text)
        else:
            yield from self._remove(cluster, found, detach_unused=bool(holders))

    def recover(self, operation: Operation) -> str:
        client = self._pools.get(int(operation.data["pool"])).client
        look = client.snapshot if operation.data["key"] == "snapshot" else client.volume
        if not exists(look, operation.data["object"]):
            operation.done()
            return f"{operation}: done"
        operation.undone()
        return f"{operation}: not carried out; the next pass decides anew"

    def _is_unknown(self, cluster: StorPoolCluster, found: VolumeSummary, seen: Inventory) -> bool:
        """Whether it looks like ours, and no record, detail or open operation names it."""
        if not found.tags.get("cs"):
            return False
        if isinstance(found, SnapshotSummary) and (found.deleted or found.transient or found.target_delete_date):
            # It goes by itself.
            return False
        operation_id = _operation_id(found)
        ours = found.template_name in cluster.templates or found.template_name in seen.offering_templates
        if not ours and not self._made_here(operation_id):
            return False
        if seen.paths & _paths(found):
            return False
        names = {found.global_id, f"~{found.global_id}", found.name, operation_id, *_paths(found)}
        return not seen.busy & (names | set(_subjects(cluster, found)))

    def _is_old(self, found: VolumeSummary) -> bool:
        created = found.creation_timestamp
        return created is not None and self._operations.now() - created >= seconds(self._records, GRACE)

    def _doubt(self, cluster: StorPoolCluster, found: VolumeSummary) -> str | None:
        """Why it is not known to be made by this driver for this CloudStack, or not known to be needless; or None."""
        kind = found.tags["cs"]
        if kind not in _KINDS[_key(found)]:
            return f"it has the tag cs={kind}, which this driver gives no {_key(found)}"
        operation_id = _operation_id(found)
        if operation_id is None and not found.name.startswith("~") and "@" not in found.name:
            return f"somebody named it {found.name}"
        if not self._made_here(operation_id) and not self._record_removed(kind, found.tags.get("uuid", "")):
            return (
                f"it has the tag cs={kind}, but these records neither know an operation that made it "
                "nor a removed record that it was of"
            )
        if self._may_be_needed(cluster, found):
            return "its record names no object that StorPool has, so this may be its data"
        return None

    def _may_be_needed(self, cluster: StorPoolCluster, found: VolumeSummary) -> bool:
        """Whether the record of its uuid is there and should have an object, and that object is not."""
        uuid = found.tags.get("uuid", "")
        if found.tags["cs"] == "volume":
            volume = self._records.volume(uuid)
            if volume is None or volume.removed:
                return False
            if volume.path is None:
                return volume.state is VolumeState.READY
            return not exists(cluster.client.volume, storpool_id(volume.path))
        if found.tags["cs"] == "group":
            of_vm = self._records.vm_snapshot(uuid)
            paths = () if of_vm is None or of_vm.removed else of_vm.paths
            return any(not exists(cluster.client.snapshot, storpool_id(path)) for path in paths)
        snapshot = self._records.snapshot(uuid) if found.tags["cs"] == "snapshot" else None
        if snapshot is None or snapshot.removed or snapshot.path is None:
            return False
        return not exists(cluster.client.snapshot, storpool_id(snapshot.path))

    def _made_here(self, operation_id: str | None) -> bool:
        return operation_id is not None and self._records.operation_known(operation_id)

    def _record_removed(self, kind: str, uuid: str) -> bool:
        """A removed record never comes back, whatever was done since the records were copied."""
        record: VolumeRecord | SnapshotRecord | VmSnapshotRecord | None = None
        if kind == "volume":
            record = self._records.volume(uuid)
        elif kind == "snapshot":
            record = self._records.snapshot(uuid)
        elif kind == "group":
            record = self._records.vm_snapshot(uuid)
        return record is not None and record.removed

    def _remove(self, cluster: StorPoolCluster, found: VolumeSummary, *, detach_unused: bool) -> Iterator[Finding]:
        name, pool = f"~{found.global_id}", _pool(cluster, found)
        subject = f"storpool:{name}"
        with self._operations.idle(*_subjects(cluster, found), subject) as free:
            if not free or not self._is_still(pool, found):
                return
            data = {"pool": str(pool.id), "object": name, "key": _key(found)}
            operation = self._operations.begin(self.kind, subject, "remove", data)
            remove = remove_snapshot if isinstance(found, SnapshotSummary) else remove_volume
            try:
                remove(pool.client, name, detach_unused=detach_unused)
            except Error as error:
                if not isinstance(error, Unknown):
                    operation.undone()
                yield _finding(found, FindingKind.ORPHAN, f"nothing knows it; not removed: {error}")
                return
            operation.done()
        yield _finding(found, FindingKind.ORPHAN, "nothing knew it; removed", mended=True)

    def _is_still(self, pool: Pool, found: VolumeSummary) -> bool:
        """Whether it is there as it was listed, and still nothing names it. The caller holds it."""
        look = pool.client.snapshot if isinstance(found, SnapshotSummary) else pool.client.volume
        try:
            now = look(f"~{found.global_id}")
        except ObjectDoesNotExist:
            return False
        if (now.global_id, now.name, now.tags) != (found.global_id, found.name, found.tags):
            return False
        record = self._records.volume(found.tags.get("uuid", "")) if found.tags["cs"] == "volume" else None
        if record is not None and not record.removed and not record.steady:
            return False
        return not self._records.names_object(_paths(found))


def _key(found: VolumeSummary) -> str:
    return "snapshot" if isinstance(found, SnapshotSummary) else "volume"


def _pool(cluster: StorPoolCluster, found: VolumeSummary) -> Pool:
    """The pool of its StorPool template; any, where an offering chose the template."""
    return next((pool for pool in cluster.pools if pool.template == found.template_name), cluster.pools[0])


def _operation_id(found: VolumeSummary) -> str | None:
    """Id of the operation that its name tells."""
    match = _NAME.fullmatch(found.name)
    return None if match is None else match[1]


def _paths(found: VolumeSummary) -> frozenset[str]:
    """CloudStack paths that lead to it; after a revert it goes by its old id, which is its name."""
    by_name = device_path(found.name[1:]) if found.name.startswith("~") else NAME_PREFIX + found.name
    return frozenset((device_path(found.global_id), by_name))


def _subjects(cluster: StorPoolCluster, found: VolumeSummary) -> list[str]:
    """Subjects under which operations of this driver work on such an object."""
    uuid = found.tags.get("uuid", "")
    if found.tags.get("cs") == "template":
        return [f"template:{uuid}", *(f"template:{uuid}@pool:{pool.id}" for pool in cluster.pools)]
    if uuid and found.tags.get("cs") == "group":
        return [f"vmsnapshot:{uuid}"]
    if uuid and found.tags.get("cs") == tags.TEMPORARY:
        # Of a volume that is exported, or of the disks of a VM that is reverted.
        return [f"{tags.TEMPORARY}:{uuid}", f"vmsnapshot:{uuid}"]
    return [f"{found.tags.get('cs')}:{uuid}"] if uuid else []


def _finding(found: VolumeSummary, kind: FindingKind, text: str, *, mended: bool = False) -> Finding:
    where = f"StorPool {_key(found)} ~{found.global_id} (name {found.name}, tags {found.tags})"
    return Finding(kind=kind, where=where, text=text, mended=mended)
