"""Copies of snapshots on primary storage of other zones, made by the storage itself (`usestoragereplication`)."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cloudstack import settings
from harness.cloudstack.orchestration import objects
from harness.cloudstack.orchestration.backup import on_primary, zone_id_of
from harness.cloudstack.orchestration.context import LOCK_TIMEOUT, Context
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import Snapshot, SnapshotStore, StoragePool, Zone
from harness.spi.errors import Conflict, Error, InvalidParameter
from harness.spi.objects import SnapshotObject, StoreRole
from harness.spi.states import SnapshotState, StoreRefEvent, StoreRefState

REPLICATION = "use.storage.replication"


class ReplicationManager:
    def __init__(self, context: Context) -> None:
        self._context = context

    def copy(self, snapshot_id: int, zone_ids: Sequence[int], source_zone_id: int | None = None) -> None:
        """Into each of the zones, one after the other; what was copied before an error stays."""
        with self._context.records.read() as tx:
            row = tx.get(Snapshot, snapshot_id)
        for zone_id in zone_ids:
            with self._context.volume_locks.hold(str(row.volume_id), LOCK_TIMEOUT):
                self._copy(row, zone_id, source_zone_id or row.data_center_id)

    def reset(self) -> None:
        """At the start: nobody works on copies any more that were being made; the driver removes what is there."""
        with self._context.records.transaction("snapshot copies interrupted") as tx:
            for ref in tx.select(SnapshotStore, "store_role = 'Primary' AND state IN ('Allocated', 'Creating')"):
                if tx.get(Snapshot, ref.snapshot_id).data_center_id != zone_id_of(tx, ref):
                    _forget(tx, ref)

    def _copy(self, row: Snapshot, zone_id: int, source_zone_id: int) -> None:
        ref, source, destination = self._begin(row.id, zone_id, source_zone_id)
        try:
            made = self._context.driver.copy(source, destination)
        except Error as error:
            with self._context.records.transaction("snapshot not copied") as tx:
                _forget(tx, ref)
                place = tx.get(Zone, zone_id)
            raise reworded(error, f"Failed to copy snapshot {row.name} to zone {place.name}: {error}") from error
        with self._context.records.transaction("snapshot copied") as tx:
            size = made.size
            tx.transition(ref, StoreRefEvent.OPERATION_SUCCEEDED, install_path=made.path, size=size, physical_size=size)

    def _begin(
        self, snapshot_id: int, zone_id: int, source_zone_id: int
    ) -> tuple[SnapshotStore, SnapshotObject, SnapshotObject]:
        with self._context.records.transaction("snapshot copy") as tx:
            row = tx.get(Snapshot, snapshot_id)
            check_copyable(tx, row, [tx.get(Zone, zone_id)], source_zone_id)
            primary = on_primary(tx, row.id, source_zone_id)
            assert primary is not None, "it was just looked for"
            ref = tx.insert(
                SnapshotStore(
                    store_id=_pool(tx, tx.get(Zone, zone_id)).id,
                    store_role=StoreRole.PRIMARY,
                    snapshot_id=row.id,
                    volume_id=row.volume_id,
                    state=StoreRefState.ALLOCATED,
                    size=row.size,
                    physical_size=0,
                    install_path=None,
                )
            )
            ref = tx.transition(ref, StoreRefEvent.CREATE_ONLY_REQUESTED)
            return ref, objects.snapshot_object(tx, row, primary), objects.snapshot_object(tx, row, ref)


def check_copyable(tx: Transaction, row: Snapshot, zones: Sequence[Zone], source_zone_id: int) -> None:
    """Raises `InvalidParameter`, or `Conflict` while the same copy is being made or removed."""
    if row.removed is not None or row.state is not SnapshotState.BACKED_UP:
        raise InvalidParameter(f"Snapshot {row.name} is {row.state.value}, not BackedUp, so it cannot be copied")
    primary = on_primary(tx, row.id, source_zone_id)
    if primary is None or primary.state is not StoreRefState.READY:
        raise InvalidParameter(
            f"Snapshot {row.name} is not on primary storage of zone {tx.get(Zone, source_zone_id).name}, so the storage"
            " cannot copy it"
        )
    for zone in zones:
        there = on_primary(tx, row.id, zone.id)
        if there is not None and there.state is not StoreRefState.READY:
            raise Conflict(
                f"The copy of snapshot {row.name} in zone {zone.name} is {there.state.value}; try again later"
            )
        if there is not None:
            raise InvalidParameter(f"Snapshot {row.name} is in zone {zone.name} already")
        _pool(tx, zone)


def check_destinations(tx: Transaction, zones: Sequence[Zone]) -> None:
    """Before there is a snapshot: raises `InvalidParameter` for a zone that cannot be given a copy."""
    for zone in zones:
        _pool(tx, zone)


def _pool(tx: Transaction, zone: Zone) -> StoragePool:
    """The pool of the zone that takes copies: the first that is Up and has the setting."""
    for pool in tx.all(StoragePool, data_center_id=zone.id, removed=None, status="Up"):
        value = settings.value(tx, REPLICATION, pool_id=pool.id)
        if value is not None and value.lower() == "true":
            return pool
    raise InvalidParameter(
        f"No storage pool of zone {zone.name} takes copied snapshots; set {REPLICATION} of one that is Up"
    )


def _forget(tx: Transaction, ref: SnapshotStore) -> None:
    tx.execute("DELETE FROM snapshot_store_ref WHERE id = ?", (ref.id,))
