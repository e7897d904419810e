"""Backups of snapshots on secondary storage (spec/cloudstack-plugin.md 4.9, 4.16).

Each try has a file and a row of its own, and the row comes first. A try that failed leaves its row, until the file is
gone and nothing can write to it any more. The snapshot on primary storage stays, and serves, whatever becomes of it.
"""

from __future__ import annotations

import logging

from harness.cloudstack import settings
from harness.cloudstack.orchestration import objects, secondary_files
from harness.cloudstack.orchestration.context import LOCK_TIMEOUT, Context
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.inventory import POOL_DETAIL
from harness.cloudstack.records.rows import REVERTING, ImageStore, Snapshot, SnapshotStore, StoragePool
from harness.spi.errors import Conflict, Error, InvalidParameter, NotFound
from harness.spi.locks import KeyedLocks
from harness.spi.objects import SnapshotObject, StoreRole
from harness.spi.states import SnapshotEvent, SnapshotState, StoreRefEvent, StoreRefState

_log = logging.getLogger("harness.cloudstack.backup")

NEXT = "backup.next"
"""Snapshot detail: when the background task tries again, in Unix seconds."""
TRIES = "backup.tries"
"""Snapshot detail: how many of its tries have failed."""
PRIMARY, SECONDARY = "PRIMARY", "SECONDARY"
"""Location types of snapshots: on primary storage only, or backed up."""
_WAITING = (SnapshotState.CREATED_ON_PRIMARY, SnapshotState.BACKING_UP)


class BackupManager:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._at_work = KeyedLocks(context.runtime, "backup")

    def back_up(self, snapshot_id: int) -> Snapshot:
        """CreatedOnPrimary or BackedUp -> BackingUp -> BackedUp.

        After an error it is BackedUp too, but on primary storage only, and may be backed up again.
        """
        with self._at_work.hold(f"snapshot {snapshot_id}", 0):
            try:
                return self._attempt(snapshot_id)
            except Error as error:
                row = self._give_up(snapshot_id)
                raise reworded(
                    error,
                    f"Snapshot {row.name} is on primary storage, but it was not backed up to secondary storage:"
                    f" {error}; archiveSnapshot tries again",
                ) from error

    def archive(self, snapshot_id: int) -> Snapshot:
        """Back it up, unless it is, then delete it from primary storage."""
        with self._context.records.read() as tx:
            row = tx.get(Snapshot, snapshot_id)
            backed_up = on_image_store(tx, snapshot_id) is not None
        if not backed_up:
            row = self.back_up(snapshot_id)
        with self._context.volume_locks.hold(str(row.volume_id), LOCK_TIMEOUT):
            with self._context.records.transaction("snapshot archive") as tx:
                ref = on_primary(tx, snapshot_id)
                if ref is None:
                    return row
                check_not_reverted_to(tx, row)
                ref = tx.transition(ref, StoreRefEvent.DESTROY_REQUESTED)
                item = objects.snapshot_object(tx, row, ref)
            try:
                self._context.driver.delete(item)
            except Error as error:
                raise reworded(
                    error,
                    "Snapshot archived to Secondary Storage but there was an error deleting the snapshot on Primary"
                    f" Storage: {error}",
                ) from error
            with self._context.records.transaction("snapshot archived") as tx:
                forget_primary(tx, row, ref)
        return row

    def schedule(self, snapshot_id: int) -> None:
        """Have the background task back it up, and try again `backup.retry` times."""
        with self._context.records.transaction("backup scheduled") as tx:
            schedule(tx, snapshot_id)

    def resume(self) -> None:
        """At the start: what the server before was backing up is begun anew, with another file."""
        with self._context.records.transaction("backups interrupted") as tx:
            for row in tx.select(Snapshot, "removed IS NULL AND state IN ('CreatedOnPrimary', 'BackingUp')"):
                if NEXT not in tx.details("snapshot_details", row.id):
                    schedule(tx, row.id)
            for ref in tx.select(SnapshotStore, "store_role = 'Image' AND state IN ('Allocated', 'Creating')"):
                _abandon(tx, ref)

    def tend(self) -> None:
        """The background task: backups that are due, then files that are to go."""
        with self._context.records.read() as tx:
            due = tx.select(
                Snapshot,
                "removed IS NULL AND id IN (SELECT resource_id FROM snapshot_details"
                " WHERE name = ? AND CAST(value AS REAL) <= ?) ORDER BY id",
                (NEXT, tx.now),
            )
        for row in due:
            self._try(row)
        with self._context.records.read() as tx:
            files = [
                ref
                for ref in tx.select(SnapshotStore, "store_role = 'Image' AND state IN ('Destroying', 'Destroyed')")
                if ref.state is StoreRefState.DESTROYING or _is_still(tx, ref)
            ]
        for ref in files:
            self.delete_file(ref.id)

    def delete_file(self, ref_id: int) -> None:
        """Destroying -> Destroyed once the file is gone; the row goes when no host can write to it any more.

        An error is logged, and the background task tries again.
        """
        try:
            with self._at_work.hold(f"file {ref_id}", 0):
                self._delete_file(ref_id)
        except Error as error:
            _log.warning("a backup that is to go is still on secondary storage: %s", error)

    def _delete_file(self, ref_id: int) -> None:
        with self._context.records.read() as tx:
            ref = tx.find(SnapshotStore, id=ref_id)
            if ref is None or ref.install_path is None:
                return
            store = objects.image_store(tx, ref.store_id)
        secondary_files.delete(self._context.secondary, store, ref.install_path)
        with self._context.records.transaction("backup deleted") as tx:
            if ref.state is StoreRefState.DESTROYING:
                ref = tx.transition(ref, StoreRefEvent.OPERATION_SUCCEEDED)
            if _is_still(tx, ref):
                tx.delete(ref)

    def _try(self, row: Snapshot) -> None:
        try:
            with self._at_work.hold(f"snapshot {row.id}", 0):
                self._try_again(row)
        except Conflict as busy:
            _log.info("backup of snapshot %s: %s", row.uuid, busy)

    def _try_again(self, row: Snapshot) -> None:
        try:
            self._attempt(row.id)
            return
        except Error as error:
            reason = str(error)
        with self._context.records.transaction("backup failed") as tx:
            tries = int(tx.details("snapshot_details", row.id).get(TRIES) or 0) + 1
            over = tries >= settings.seconds(tx, "backup.retry")
            if not over:
                next_try = tx.now + settings.seconds(tx, "backup.retry.interval")
                tx.set_detail("snapshot_details", row.id, TRIES, str(tries))
                tx.set_detail("snapshot_details", row.id, NEXT, str(next_try))
        if over:
            self._give_up(row.id)
        after = "it stays on primary storage only" if over else "tried again later"
        _log.warning("snapshot %s was not backed up, %s: %s", row.uuid, after, reason)

    def _attempt(self, snapshot_id: int) -> Snapshot:
        row, ref, source, destination = self._begin(snapshot_id)
        try:
            made = self._context.driver.copy(source, destination)
            if not isinstance(made, SnapshotObject):
                raise Error(f"the driver answered a backup of snapshot {row.uuid} with something else")
        except Error:
            with self._context.records.transaction("snapshot not backed up") as tx:
                _abandon(tx, ref)
            self.delete_file(ref.id)
            raise
        with self._context.records.transaction("snapshot backed up") as tx:
            physical = made.physical_size or made.size
            tx.transition(ref, StoreRefEvent.OPERATION_SUCCEEDED, size=made.size, physical_size=physical)
            _unschedule(tx, snapshot_id)
            return tx.transition(row, SnapshotEvent.OPERATION_SUCCEEDED, location_type=SECONDARY)

    def _begin(self, snapshot_id: int) -> tuple[Snapshot, SnapshotStore, SnapshotObject, SnapshotObject]:
        own = self._context.runtime.uuid()
        with self._context.records.transaction("snapshot backup") as tx:
            row = tx.get(Snapshot, snapshot_id)
            primary = on_primary(tx, snapshot_id)
            if primary is None or primary.state is not StoreRefState.READY:
                raise NotFound(
                    f"Can only archive snapshots present on primary storage. Cannot find snapshot {row.name} on primary"
                    " storage"
                )
            row = tx.transition(row, SnapshotEvent.BACKUP_TO_SECONDARY)
            ref = tx.insert(
                SnapshotStore(
                    store_id=objects.image_store_of(tx, row.data_center_id).id,
                    store_role=StoreRole.IMAGE,
                    snapshot_id=row.id,
                    volume_id=row.volume_id,
                    state=StoreRefState.ALLOCATED,
                    size=row.size,
                    physical_size=0,
                    install_path=f"snapshots/{row.uuid}.{own}.qcow2",
                    asked_at=tx.now,
                )
            )
            ref = tx.transition(ref, StoreRefEvent.CREATE_ONLY_REQUESTED)
            return row, ref, objects.snapshot_object(tx, row, primary), objects.snapshot_object(tx, row, ref)

    def _give_up(self, snapshot_id: int) -> Snapshot:
        with self._context.records.transaction("backup given up") as tx:
            row = tx.get(Snapshot, snapshot_id)
            _unschedule(tx, snapshot_id)
            if row.state not in _WAITING:
                return row
            return tx.transition(row, SnapshotEvent.OPERATION_NOT_PERFORMED, location_type=PRIMARY)


def on_primary(tx: Transaction, snapshot_id: int, zone_id: int | None = None) -> SnapshotStore | None:
    """Its row on a pool of the zone, of its own zone unless another is named, in whatever state."""
    wanted = zone_id or tx.get(Snapshot, snapshot_id).data_center_id
    return next((ref for ref in all_on_primary(tx, snapshot_id) if zone_id_of(tx, ref) == wanted), None)


def all_on_primary(tx: Transaction, snapshot_id: int) -> list[SnapshotStore]:
    """Its rows on pools, of whatever zone."""
    return tx.all(SnapshotStore, snapshot_id=snapshot_id, store_role=StoreRole.PRIMARY)


def on_image_store(tx: Transaction, snapshot_id: int, zone_id: int | None = None) -> SnapshotStore | None:
    """The row of its backup, if there is one; in the zone, if one is named."""
    refs = tx.all(SnapshotStore, snapshot_id=snapshot_id, store_role=StoreRole.IMAGE, state=StoreRefState.READY)
    return next((ref for ref in refs if zone_id in (None, zone_id_of(tx, ref))), None)


def zone_id_of(tx: Transaction, ref: SnapshotStore) -> int:
    if ref.store_role is StoreRole.PRIMARY:
        return tx.get(StoragePool, ref.store_id).data_center_id
    return tx.get(ImageStore, ref.store_id).data_center_id


def check_not_reverted_to(tx: Transaction, row: Snapshot) -> None:
    """Whether a revert takes effect shows only while its snapshot is there."""
    if tx.details("volume_details", row.volume_id).get(REVERTING) == str(row.id):
        raise InvalidParameter(
            f"Can't delete snapshot {row.name} from primary storage: its volume is being reverted to it; try again when"
            " that is over"
        )


def forget_primary(tx: Transaction, row: Snapshot, ref: SnapshotStore) -> None:
    """It is gone from its pool."""
    tx.delete(tx.transition(ref, StoreRefEvent.OPERATION_SUCCEEDED))
    if zone_id_of(tx, ref) != row.data_center_id:
        return
    for name in (row.uuid, POOL_DETAIL):
        tx.set_detail("snapshot_details", row.id, name, None)


def schedule(tx: Transaction, snapshot_id: int) -> None:
    tx.set_detail("snapshot_details", snapshot_id, TRIES, "0")
    tx.set_detail("snapshot_details", snapshot_id, NEXT, str(tx.now))


def _unschedule(tx: Transaction, snapshot_id: int) -> None:
    for name in (TRIES, NEXT):
        tx.set_detail("snapshot_details", snapshot_id, name, None)


def _abandon(tx: Transaction, ref: SnapshotStore) -> None:
    if ref.state is StoreRefState.CREATING:
        ref = tx.transition(ref, StoreRefEvent.OPERATION_FAILED)
    tx.transition(ref, StoreRefEvent.DESTROY_REQUESTED)


def _is_still(tx: Transaction, ref: SnapshotStore) -> bool:
    """Whether no host can begin to write the file any more."""
    return secondary_files.is_still(tx, ref.asked_at, "backup.snapshot.wait")
