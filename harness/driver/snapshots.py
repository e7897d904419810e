"""Snapshots of volumes, on the pool only (spec/cloudstack-plugin.md 4.9)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from harness.driver import tags
from harness.driver.creation import Creation
from harness.driver.operations import ANSWERED, Operation, Operations, undone_by_errors
from harness.driver.pools import Pools
from harness.driver.removal import remover
from harness.driver.settling import Fate, Settler, fate
from harness.spi.driver import DriverRecords
from harness.spi.errors import InvalidParameter, NotFound
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
            creation = self.creation(operation)
            if operation.step == ANSWERED and not creation.exists():
                operation.advance("create", {"snapshot.id": ""})
            try:
                with undone_by_errors(operation, self.undo):
                    global_id = creation.make(send, "made")
                    size = pool.client.snapshot(f"~{global_id}").size
            except ObjectDoesNotExist as error:
                raise NotFound(f"StorPool has no volume {source}, of volume {volume.uuid}") from error
            self._operations.answer(operation)
        self._settler.wake()
        return msgspec.structs.replace(snapshot, path=device_path(global_id), size=size)

    def recover(self, operation: Operation) -> str:
        return self._settler.recover(self, operation)

    def settle(self, operation: Operation) -> bool:
        return self._settler.settle(self, operation)

    def fate(self, operation: Operation) -> Fate:
        return fate(self._records.snapshot(operation.subject.removeprefix("snapshot:")), operation.data["snapshot.id"])

    def finish(self, operation: Operation) -> None:
        creation = self.creation(operation)
        if not creation.exists():
            creation.unmake_late(self._remover(operation))

    def undo(self, operation: Operation) -> bool:
        if not self.creation(operation).unmake(self._remover(operation)):
            return False
        operation.undone()
        return True

    def _remover(self, operation: Operation) -> Callable[[str], None]:
        return remover(self._pools.get(int(operation.data["pool"])).client, "snapshot")

    def creation(self, operation: Operation) -> Creation:
        return Creation(self._operations, operation, "snapshot", self._pools.get(int(operation.data["pool"])).client)
