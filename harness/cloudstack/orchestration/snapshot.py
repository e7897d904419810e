"""Volume snapshots: taken on primary storage, deleted wherever they are (spec/cloudstack-plugin.md 4.9 and 4.16)."""

from __future__ import annotations

from harness.cloudstack.orchestration import objects
from harness.cloudstack.orchestration.backup import (
    SECONDARY,
    BackupManager,
    all_on_primary,
    check_not_reverted_to,
    forget_primary,
    on_image_store,
    on_primary,
    zone_id_of,
)
from harness.cloudstack.orchestration.context import LOCK_TIMEOUT, Context
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.inventory import POOL_DETAIL
from harness.cloudstack.records.passphrases import drop_unused
from harness.cloudstack.records.rows import Snapshot, SnapshotStore, Volume
from harness.spi.errors import Conflict, Error
from harness.spi.objects import SnapshotObject
from harness.spi.states import SnapshotEvent, SnapshotState, StoreRefEvent, StoreRefState, VolumeEvent, VolumeState


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

    def delete(self, snapshot_id: int, zone_id: int | None = None) -> None:
        """BackedUp -> Destroying -> Destroyed and removed; after an error BackedUp again, its store row Destroying.

        A snapshot in Error has nothing on the pool that the records know of; only its row goes. A backup whose store
        does not answer goes later. Copies in other zones go first. With `zone_id` only what is in that zone goes, and
        the snapshot stays BackedUp while it is anywhere.
        """
        volume_id = self._volume_of(snapshot_id)
        with self._context.volume_locks.hold(str(volume_id), LOCK_TIMEOUT):
            backup = None if self._delete_copies(snapshot_id, zone_id) else self._delete(snapshot_id)
        if backup is not None:
            self._backups.delete_file(backup.id)

    def _delete(self, snapshot_id: int) -> SnapshotStore | None:
        """What is left of it; its backup, whose file is to go then."""
        with self._context.records.transaction("snapshot destroy") as tx:
            row = tx.get(Snapshot, snapshot_id)
            ref = on_primary(tx, snapshot_id)
            if row.removed is not None:
                return None
            if row.state is SnapshotState.ERROR:
                tx.update(row, removed=tx.now)
                drop_unused(tx, tx.get(Volume, row.volume_id).passphrase_id)
                if ref is not None:
                    tx.delete(ref)
                return None
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
            drop_unused(tx, tx.get(Volume, row.volume_id).passphrase_id)
            backup = on_image_store(tx, snapshot_id)
            if backup is not None:
                backup = tx.transition(backup, StoreRefEvent.DESTROY_REQUESTED)
        return backup

    def _delete_copies(self, snapshot_id: int, zone_id: int | None) -> bool:
        """Those in other zones than its own, or all that is on pools of `zone_id`; whether that is all to be done."""
        with self._context.records.read() as tx:
            row = tx.get(Snapshot, snapshot_id)
            if row.removed is not None:
                return True
            refs = {ref: zone_id_of(tx, ref) for ref in all_on_primary(tx, snapshot_id)}
            backup = on_image_store(tx, snapshot_id)
            places = {*refs.values(), *(() if backup is None else (zone_id_of(tx, backup),))}
            stays = zone_id is not None and bool(places - {zone_id})
            leaving = {zone_id} if stays else places - {row.data_center_id}
            gone = [ref for ref, place in refs.items() if place in leaving]
            busy = [ref for ref in gone if ref.state in (StoreRefState.ALLOCATED, StoreRefState.CREATING)]
        if busy:
            raise Conflict(f"Snapshot {row.name} is being copied to another zone; delete it when that is over")
        for ref in gone:
            self._delete_copy(row, ref)
        if stays:
            self._delete_backup_in(row, zone_id)
        return stays

    def _delete_backup_in(self, row: Snapshot, zone_id: int | None) -> None:
        with self._context.records.transaction("backup destroy") as tx:
            backup = on_image_store(tx, row.id, zone_id)
            if backup is not None:
                backup = tx.transition(backup, StoreRefEvent.DESTROY_REQUESTED)
        if backup is not None:
            self._backups.delete_file(backup.id)

    def _delete_copy(self, row: Snapshot, ref: SnapshotStore) -> None:
        """Its row stays Destroying after an error, and whoever asks again goes on."""
        with self._context.records.transaction("snapshot copy destroy") as tx:
            ref = tx.transition(ref, StoreRefEvent.DESTROY_REQUESTED)
            item = objects.snapshot_object(tx, row, ref)
        try:
            self._context.driver.delete(item)
        except Error as error:
            raise reworded(error, f"Failed to delete snapshot {row.name}; {error}") from error
        with self._context.records.transaction("snapshot copy destroyed") as tx:
            forget_primary(tx, row, ref)

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
            tx.set_detail("snapshot_details", row.id, POOL_DETAIL, str(ref.store_id))
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
