"""Snapshots of all disks of a VM: taking and deleting them (spec/cloudstack-plugin.md 4.19 and 4.21)."""

from __future__ import annotations

import json

import msgspec

from harness.driver import tags
from harness.driver.creation import Creation
from harness.driver.discard import Discards
from harness.driver.groups import Group
from harness.driver.operations import ANSWERED, Operation, Operations, undone_by_errors
from harness.driver.pools import Pools
from harness.driver.removal import remove_snapshot
from harness.driver.settling import Fate, Settler
from harness.spi.driver import DriverRecords
from harness.spi.errors import Error, InvalidParameter, NotFound, Unknown
from harness.spi.objects import device_path, storpool_id
from harness.spi.states import VmSnapshotState
from harness.spi.vm_snapshots import VmSnapshotObject
from harness.storpool import ObjectDoesNotExist, StorPoolClient, exists


def subject_of(snapshot: VmSnapshotObject) -> str:
    return f"vmsnapshot:{snapshot.uuid}"


class VmSnapshotTaking:
    """Takes one, with a single request for all disks. Steps: create, made, answered.

    The snapshots keep their names, which turn a lost request away that arrives later.
    """

    kind = "take-vm-snapshot"

    def __init__(
        self, operations: Operations, pools: Pools, records: DriverRecords, discards: Discards, settler: Settler
    ) -> None:
        self._operations = operations
        self._pools = pools
        self._records = records
        self._discards = discards
        self._settler = settler

    def take(self, snapshot: VmSnapshotObject) -> VmSnapshotObject:
        sources = _sources(snapshot)
        pool = self._pools.of(snapshot.volumes[0])
        data = {"pool": str(pool.id), "volumes": json.dumps(list(sources.values()))}
        with self._operations.exclusive(subject_of(snapshot)):
            operation = self._begin(subject_of(snapshot), data)
            try:
                with undone_by_errors(operation, self.undo):
                    made = self._group(operation).make(tags.new_group(snapshot.uuid, snapshot.vm_uuid), "made")
            except ObjectDoesNotExist as error:
                raise _lost(pool.client, snapshot) from error
            paths = {uuid: device_path(found.global_id) for uuid, found in zip(sources, made, strict=True)}
            operation.note({"paths": json.dumps(sorted(paths.values()))})
            self._operations.answer(operation)
        self._settler.wake()
        return msgspec.structs.replace(snapshot, pool_id=pool.id, paths=paths)

    def forget(self, subject: str) -> None:
        """Undo one that nobody has. The caller holds the subject."""
        operation = self._operations.find(self.kind, subject)
        if operation is not None and self.fate(operation) is not Fate.RECORDED:
            self.undo(operation)

    def recover(self, operation: Operation) -> str:
        return self._settler.recover(self, operation)

    def settle(self, operation: Operation) -> bool:
        return self._settler.settle(self, operation)

    def finish(self, operation: Operation) -> None:
        """Nothing: names that were given away by a deletion are looked at because nobody has the snapshots then."""

    def fate(self, operation: Operation) -> Fate:
        record = self._records.vm_snapshot(operation.subject.removeprefix("vmsnapshot:"))
        if record is None:
            return Fate.UNTOLD
        paths = json.loads(operation.data.get("paths", "[]"))
        if paths and set(paths) <= set(record.paths):
            return Fate.RECORDED
        return Fate.AWAITED if record.state is VmSnapshotState.CREATING and not record.removed else Fate.ABANDONED

    def _begin(self, subject: str, data: dict[str, str]) -> Operation:
        """A new operation, or the open one where this call can go on."""
        operation = self._operations.begin(self.kind, subject, "create", data)
        same = operation.data["volumes"] == data["volumes"]
        if operation.resumed and (not same or (operation.step == ANSWERED and not self._group(operation).whole())):
            self.undo(operation)
            operation = self._operations.begin(self.kind, subject, "create", data)
        return operation

    def undo(self, operation: Operation) -> bool:
        self._group(operation).discard(self._discards, int(operation.data["pool"]))
        operation.undone()
        return True

    def creation(self, operation: Operation) -> Creation:
        return self._group(operation).creation

    def _group(self, operation: Operation) -> Group:
        client = self._pools.get(int(operation.data["pool"])).client
        return Group(self._operations, operation, client, json.loads(operation.data["volumes"]))


class VmSnapshotDeletion:
    """Deletes the snapshots that the records name, whoever has the disks now. One step: delete.

    A deletion that a dead process left open is not carried on: CloudStack asks again.
    """

    kind = "delete-vm-snapshot"

    def __init__(self, operations: Operations, pools: Pools, taking: VmSnapshotTaking) -> None:
        self._operations = operations
        self._pools = pools
        self._taking = taking

    def delete(self, snapshot: VmSnapshotObject) -> None:
        subject = subject_of(snapshot)
        with self._operations.exclusive(subject):
            self._taking.forget(subject)
            if not snapshot.paths or snapshot.pool_id is None:
                return
            names = [storpool_id(path) for path in snapshot.paths.values()]
            data = {"pool": str(snapshot.pool_id), "objects": json.dumps(names)}
            operation = self._operations.begin(self.kind, subject, "delete", data)
            client = self._pools.get(snapshot.pool_id).client
            try:
                for name in names:
                    remove_snapshot(client, name)
            except Unknown:
                raise
            except Error:
                operation.undone()
                raise
            operation.done()

    def recover(self, operation: Operation) -> str:
        client = self._pools.get(int(operation.data["pool"])).client
        left = [name for name in json.loads(operation.data["objects"]) if exists(client.snapshot, name)]
        if not left:
            operation.done()
            return f"{operation}: done"
        operation.undone()
        return f"{operation}: {len(left)} are left; CloudStack asks again if it still wants it"


def _sources(snapshot: VmSnapshotObject) -> dict[str, str]:
    """How StorPool knows the volumes, by their uuid."""
    sources = {}
    for volume in snapshot.volumes:
        if volume.path is None:
            raise InvalidParameter(f"volume {volume.name} ({volume.uuid}) is on no pool yet: nothing to snapshot")
        sources[volume.uuid] = storpool_id(volume.path)
    if not sources:
        raise InvalidParameter(f"VM {snapshot.vm_uuid} has no volumes: there is nothing to snapshot")
    return sources


def _lost(client: StorPoolClient, snapshot: VmSnapshotObject) -> NotFound:
    """Which volume StorPool does not have."""
    for volume in snapshot.volumes:
        try:
            client.volume(storpool_id(volume.path or ""))
        except ObjectDoesNotExist as error:
            return NotFound(
                f"StorPool has lost volume {volume.name} ({volume.uuid}), so no snapshot was taken ({error})"
            )
        except Error:
            break
    return NotFound(f"StorPool has lost a volume of VM {snapshot.vm_uuid}, so no snapshot was taken")
