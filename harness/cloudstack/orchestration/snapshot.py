"""Volume snapshots: taken on primary storage, deleted wherever they are (spec/cloudstack-plugin.md 4.9 and 4.16)."""

from __future__ import annotations

from harness.cloudstack.orchestration import objects
from harness.cloudstack.orchestration.backup import (
    SECONDARY,
    BackupManager,
    check_not_reverted_to,
    forget_primary,
    on_image_store,
    on_primary,
)
from harness.cloudstack.orchestration.context import LOCK_TIMEOUT, Context
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import Snapshot, SnapshotStore, Volume
from harness.spi.errors import Conflict, Error
from harness.spi.objects import SnapshotObject
from harness.spi.states import SnapshotEvent, SnapshotState, StoreRefEvent, VolumeEvent, VolumeState


class SnapshotManager:
    def __init__(self, context: Context, backups: BackupManager) -> None:
        self._context = context
        self._backups = backups

    def take(self, snapshot_id: int) -> Snapshot:
        """Allocated -> Creating -> CreatedOnPrimary, the volume Snapshotting meanwhile; else Error.

        BackedUp at once when it is to stay on primary storage only; else it waits there for its backup.
        """
        volume_id = self._volume_of(snapshot_id)
        with self._context.volume_locks.hold(str(volume_id), LOCK_TIMEOUT):
            try:
                with self._context.records.transaction("snapshot create") as tx:
                    row = tx.transition(tx.get(Snapshot, snapshot_id), SnapshotEvent.CREATE_REQUESTED)
                    volume = tx.transition(tx.get(Volume, volume_id), VolumeEvent.SNAPSHOT_REQUESTED)
                    ref = tx.transition(self._ref(tx, snapshot_id), StoreRefEvent.CREATE_ONLY_REQUESTED)
                    item = objects.snapshot_object(tx, row, ref)
            except Error as error:
                self.fail_unbegun(snapshot_id)
                raise reworded(error, f"Failed to create snapshot of volume {volume_id}; {error}") from error
            return self._take(row, ref, volume, item)

    def finish_take(self, snapshot_id: int) -> None:
        """After a restart: a snapshot that was being taken is taken, so that what the driver began has an owner."""
        volume_id = self._volume_of(snapshot_id)
        with self._context.volume_locks.hold(str(volume_id), LOCK_TIMEOUT):
            with self._context.records.read() as tx:
                row, volume = tx.get(Snapshot, snapshot_id), tx.get(Volume, volume_id)
                ref = self._ref(tx, snapshot_id)
                item = objects.snapshot_object(tx, row, ref)
            if row.state is SnapshotState.CREATING and volume.state is VolumeState.SNAPSHOTTING:
                row = self._take(row, ref, volume, item)
                if row.state is SnapshotState.CREATED_ON_PRIMARY:
                    self._backups.schedule(snapshot_id)

    def fail_unbegun(self, snapshot_id: int) -> None:
        """Allocated -> Error: nothing was asked of the driver yet, and nobody will."""
        with self._context.records.transaction("snapshot not begun") as tx:
            row = tx.get(Snapshot, snapshot_id)
            if row.state is SnapshotState.ALLOCATED:
                row = tx.transition(row, SnapshotEvent.CREATE_REQUESTED)
                tx.transition(row, SnapshotEvent.OPERATION_FAILED)
                tx.execute("DELETE FROM snapshot_store_ref WHERE snapshot_id = ?", (snapshot_id,))

    def delete(self, snapshot_id: int) -> None:
        """BackedUp -> Destroying -> Destroyed and removed; after an error BackedUp again, its store row Destroying.

        A snapshot in Error has nothing on the pool that the records know of; only its row goes. A backup whose store
        does not answer goes later.
        """
        volume_id = self._volume_of(snapshot_id)
        with self._context.volume_locks.hold(str(volume_id), LOCK_TIMEOUT):
            with self._context.records.transaction("snapshot destroy") as tx:
                row = tx.get(Snapshot, snapshot_id)
                ref = on_primary(tx, snapshot_id)
                if row.removed is not None:
                    return
                if row.state is SnapshotState.ERROR:
                    tx.update(row, removed=tx.now)
                    if ref is not None:
                        tx.delete(ref)
                    return
                check_not_reverted_to(tx, row)
                if row.state is not SnapshotState.DESTROYING:
                    row = tx.transition(row, SnapshotEvent.DESTROY_REQUESTED)
                if ref is not None:
                    ref = tx.transition(ref, StoreRefEvent.DESTROY_REQUESTED)
                    item = objects.snapshot_object(tx, row, ref)
            try:
                if ref is not None:
                    self._context.driver.delete(item)
            except Error as error:
                with self._context.records.transaction("snapshot not destroyed") as tx:
                    tx.transition(row, SnapshotEvent.OPERATION_FAILED)
                    if ref is not None:
                        tx.transition(ref, StoreRefEvent.OPERATION_FAILED)
                raise reworded(error, f"Failed to delete snapshot {row.name}; {error}") from error
            with self._context.records.transaction("snapshot destroyed") as tx:
                tx.transition(row, SnapshotEvent.OPERATION_SUCCEEDED, removed=tx.now)
                if ref is not None:
                    forget_primary(tx, row, ref)
                backup = on_image_store(tx, snapshot_id)
                if backup is not None:
                    backup = tx.transition(backup, StoreRefEvent.DESTROY_REQUESTED)
        if backup is not None:
            self._backups.delete_file(backup.id)

    def _take(self, row: Snapshot, ref: SnapshotStore, volume: Volume, item: SnapshotObject) -> Snapshot:
        try:
            made = self._context.driver.take_snapshot(item)
            if made.path is None:
                raise Error(f"the driver took snapshot {row.uuid} but did not say where it is")
        except Error as error:
            with self._context.records.transaction("snapshot not created") as tx:
                tx.transition(row, SnapshotEvent.OPERATION_FAILED)
                tx.transition(ref, StoreRefEvent.OPERATION_FAILED)
                tx.transition(volume, VolumeEvent.OPERATION_FAILED)
            raise reworded(error, f"Failed to create snapshot of volume {volume.name}; {error}") from error
        with self._context.records.transaction("snapshot created") as tx:
            tx.transition(
                ref, StoreRefEvent.OPERATION_SUCCEEDED, install_path=made.path, size=made.size, physical_size=made.size
            )
            tx.transition(volume, VolumeEvent.OPERATION_SUCCEEDED)
            tx.set_detail("snapshot_details", row.id, row.uuid, made.path)
            tx.set_detail("snapshot_details", row.id, "spStoragePoolId", str(ref.store_id))
            row = tx.transition(row, SnapshotEvent.OPERATION_SUCCEEDED)
            if row.location_type == SECONDARY:
                return row
            return tx.transition(row, SnapshotEvent.OPERATION_NOT_PERFORMED)

    def _volume_of(self, snapshot_id: int) -> int:
        with self._context.records.read() as tx:
            return tx.get(Snapshot, snapshot_id).volume_id

    @staticmethod
    def _ref(tx: Transaction, snapshot_id: int) -> SnapshotStore:
        ref = on_primary(tx, snapshot_id)
        if ref is None:
            raise Conflict(f"snapshot {snapshot_id} has no row on a store")
        return ref
