"""Snapshots of volumes, on the pool only (spec/cloudstack-plugin.md 4.9)."""

from __future__ import annotations

import msgspec

from harness.driver import tags
from harness.driver.creation import Creation
from harness.driver.operations import ANSWERED, Operation, Operations, report_also
from harness.driver.pools import Pools
from harness.driver.removal import remover
from harness.driver.settling import Fate, Settler
from harness.spi.driver import DriverRecords
from harness.spi.errors import Error, InvalidParameter, NotFound, Unknown
from harness.spi.objects import SnapshotObject, device_path, storpool_id
from harness.storpool import ObjectDoesNotExist, VolumeSnapshotDesc


class SnapshotTaking:
    """Takes a snapshot. Steps: create, made, answered.

    The snapshot keeps its name, which turns a lost request away that arrives later.
    """

    kind = "take-snapshot"

    def __init__(self, operations: Operations, pools: Pools, records: DriverRecords, settler: Settler) -> None:
        self._settler = settler
        self._operations = operations
        self._pools = pools
        self._records = records

    def take(self, snapshot: SnapshotObject) -> SnapshotObject:
        volume = snapshot.volume
        pool = self._pools.of(volume)
        if volume.path is None:
            raise InvalidParameter(f"volume {volume.name} ({volume.uuid}) has no path: there is nothing to snapshot")
        source = storpool_id(volume.path)

        def send(name: str) -> str:
            desc = VolumeSnapshotDesc(name=name, tags=tags.new_snapshot(snapshot))
            return pool.client.snapshot_create(source, desc).snapshot_global_id

        subject = f"snapshot:{snapshot.uuid}"
        with self._operations.exclusive(subject):
            operation = self._operations.begin(self.kind, subject, "create", {"pool": str(pool.id)})
            creation = self._creation(operation)
            if operation.step == ANSWERED and not creation.exists():
                operation.advance("create", {"snapshot.id": ""})
            try:
                global_id = creation.make(send, "made")
                size = pool.client.snapshot(f"~{global_id}").size
            except Unknown:
                raise
            except Error as error:
                if operation.step == ANSWERED:
                    raise
                try:
                    self._undo(operation)
                except Error as cleanup:
                    report_also(error, cleanup, operation)
                if isinstance(error, ObjectDoesNotExist):
                    raise NotFound(f"StorPool has no volume {source}, of volume {volume.uuid}") from error
                raise
            self._operations.answer(operation)
        self._settler.wake()
        return msgspec.structs.replace(snapshot, path=device_path(global_id), size=size)

    def recover(self, operation: Operation) -> str:
        fate = self._fate(operation) if operation.step == ANSWERED else Fate.ABANDONED
        doubt = self._creation(operation).doubt() if fate is Fate.ABANDONED else None
        if doubt is not None:
            return f"{operation}: {doubt}"
        if operation.step == ANSWERED:
            if fate in (Fate.AWAITED, Fate.UNTOLD) and not self._operations.answered_here(operation):
                self._operations.answer(operation)
                self._settler.wake()
                return f"{operation}: taken; open until CloudStack asks for it again or has it"
            if self.settle(operation):
                return f"{operation}: {'undone, for nobody has it' if fate is Fate.ABANDONED else 'done'}"
            return f"{operation}: taken; open until it is surely recorded"
        if self._undo(operation):
            return f"{operation}: undone"
        return f"{operation}: nothing there; open until a lost request can no longer arrive"

    def settle(self, operation: Operation) -> bool:
        client = self._pools.get(int(operation.data["pool"])).client
        creation = self._creation(operation)
        fate = self._fate(operation)
        if fate is Fate.ABANDONED:
            free = self._operations.in_nobodys_hands(operation) and creation.doubt() is None
            return free and self._undo(operation)
        told = fate is Fate.RECORDED or (fate is Fate.UNTOLD and self._operations.surely_recorded(operation))
        if not (told and creation.settled):
            return False
        if not creation.exists():
            # Deleted since, so its name did not turn a late request away.
            late = creation.find()
            if late is not None:
                remover(client, "snapshot")(f"~{late}")
        operation.done()
        return True

    def _fate(self, operation: Operation) -> Fate:
        record = self._records.snapshot(operation.subject.removeprefix("snapshot:"))
        if record is None:
            return Fate.UNTOLD
        if record.path == device_path(operation.data["snapshot.id"]):
            return Fate.RECORDED
        return Fate.ABANDONED if record.removed or record.steady else Fate.AWAITED

    def _undo(self, operation: Operation) -> bool:
        client = self._pools.get(int(operation.data["pool"])).client
        if not self._creation(operation).unmake(remover(client, "snapshot")):
            return False
        operation.undone()
        return True

    def _creation(self, operation: Operation) -> Creation:
        return Creation(self._operations, operation, "snapshot", self._pools.get(int(operation.data["pool"])).client)
