"""Deleting volumes, snapshots and cached templates (spec/cloudstack-plugin.md 4.7, 4.8, 4.16, 4.17)."""

from __future__ import annotations

from harness.driver import tags
from harness.driver.creation import Creation
from harness.driver.discard import Discards
from harness.driver.operations import Operation, Operations, undone_by_errors
from harness.driver.pools import Pool, Pools
from harness.driver.removal import release_volume, remover
from harness.driver.settings import seconds
from harness.spi.driver import DriverRecords
from harness.spi.errors import Error
from harness.spi.objects import DataObject, SnapshotObject, TemplateObject, VolumeObject, storpool_id
from harness.storpool import VolumeSnapshotDesc, exists

DELETE_AFTER = "storpool.delete.after.interval"


class Deletion:
    """Deletes one object. Steps: begin, backup (of a volume, when the pool asks for it), delete.

    A deletion that a dead process left open is never carried on: the volume may have been recovered since.
    """

    kind = "delete"

    def __init__(self, operations: Operations, pools: Pools, records: DriverRecords, discards: Discards) -> None:
        self._operations = operations
        self._pools = pools
        self._records = records
        self._discards = discards

    def delete(self, item: DataObject) -> None:
        """An object that is gone is success. Raises `Conflict` that names who holds it; then nothing was changed."""
        if item.path is None:
            return
        pool = self._pools.of(item)
        subject, key = _subject(item, pool)
        interval = 0
        if isinstance(item, VolumeObject) and not item.encrypted:
            # Of an encrypted one the passphrase goes too, so that a backup would be for nothing.
            interval = seconds(self._records, DELETE_AFTER, pool.id)
        data = {"pool": str(pool.id), "object": storpool_id(item.path), "key": key}
        with self._operations.exclusive(subject):
            operation = self._operations.begin(self.kind, subject, "begin", data)
            if operation.resumed and (operation.step == "delete" or data.items() - operation.data.items()):
                # Its backup may be older than the last write. It stays, because the lost delete may still arrive, and
                # expires by itself.
                operation.undone()
                operation = self._operations.begin(self.kind, subject, "begin", data)
            with undone_by_errors(operation, self._undo):
                self._run(operation, pool, interval)

    def recover(self, operation: Operation) -> str:
        pool = self._pools.get(int(operation.data["pool"]))
        if operation.step != "delete" and self._backup(operation, pool).doubt() is None:
            self._undo(operation)
        elif self._gone(operation, pool):
            operation.done()
            return f"{operation}: done"
        else:
            operation.undone()
        return f"{operation}: not carried out; CloudStack asks again if it still wants it"

    def _run(self, operation: Operation, pool: Pool, interval: int) -> None:
        name, key = operation.data["object"], operation.data["key"]
        if interval and not self._gone(operation, pool):
            # Before a delete that is refused, a backup would be for nothing, and again at each time it is tried.
            release_volume(pool.client, name)
            operation.advance("backup")
            self._back_up(operation, pool, name, interval)
        operation.advance("delete")
        remover(pool.client, key)(name)
        operation.done()

    def _back_up(self, operation: Operation, pool: Pool, name: str, interval: int) -> None:
        """A snapshot that StorPool deletes `interval` seconds from now, proved to be there."""

        def send(unique: str) -> str:
            desc = VolumeSnapshotDesc(name=unique, delete_after=interval, tags=dict(tags.DELAY_DELETE))
            return pool.client.snapshot_create(name, desc).snapshot_global_id

        global_id = self._backup(operation, pool).make(send, "backup")
        made = pool.client.snapshot(f"~{global_id}")
        if made.target_delete_date is None or made.tags.get("cs") != tags.DELAY_DELETE["cs"]:
            raise Error(
                f"StorPool made snapshot ~{global_id} of {name} without its deletion date or tag, "
                "so the volume was not deleted"
            )

    def _gone(self, operation: Operation, pool: Pool) -> bool:
        look = pool.client.snapshot if operation.data["key"] == "snapshot" else pool.client.volume
        return not exists(look, operation.data["object"])

    def _undo(self, operation: Operation) -> None:
        pool = self._pools.get(int(operation.data["pool"]))
        self._discards.take_from(operation, self._backup(operation, pool))
        operation.undone()

    def _backup(self, operation: Operation, pool: Pool) -> Creation:
        return Creation(self._operations, operation, "snapshot", pool.client)


def _subject(item: DataObject, pool: Pool) -> tuple[str, str]:
    if isinstance(item, VolumeObject):
        return f"volume:{item.uuid}", "volume"
    if isinstance(item, SnapshotObject):
        return f"snapshot:{item.uuid}", "snapshot"
    assert isinstance(item, TemplateObject)
    return f"template:{item.uuid}@pool:{pool.id}", "snapshot"
