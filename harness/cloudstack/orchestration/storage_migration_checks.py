"""CloudStack's own refusals to give a volume another pool, in its order and close to its words."""

from __future__ import annotations

from harness.cloudstack.orchestration import placement
from harness.cloudstack.orchestration.backup import on_image_store, on_primary
from harness.cloudstack.orchestration.encryption import POOL_TYPES, check_offerings
from harness.cloudstack.orchestration.vm_snapshot_rules import refuse_with_vm_snapshots
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import (
    ATTACHING,
    CHANGING,
    DETACHING,
    DiskOffering,
    Snapshot,
    StoragePool,
    StoragePoolTag,
    Vm,
    Volume,
)
from harness.spi.errors import InsufficientCapacity, InvalidParameter
from harness.spi.objects import VolumeType
from harness.spi.states import SnapshotState, StoreRefState, VmState, VolumeState


def check_migratable(
    tx: Transaction, row: Volume, pool: StoragePool, disk_offering_id: int | None, *, live: bool
) -> None:
    """Raises `InvalidParameter`. `live` is whether it was asked for that a running VM keeps the volume meanwhile."""
    if row.removed is not None or row.state is not VolumeState.READY or row.path is None or row.pool_id is None:
        raise InvalidParameter(f"Volume must be in ready state; {row.name} is {row.state.value}")
    details = tx.details("volume_details", row.id)
    if any(name in details for name in (ATTACHING, DETACHING, CHANGING)):
        raise InvalidParameter(f"Volume {row.name} is being attached, detached or changed; try again when that is over")
    if row.pool_id == pool.id:
        raise InvalidParameter(f"Volume {row.name} is already on the destination storage pool {pool.name}")
    source = tx.get(StoragePool, row.pool_id)
    refuse_with_vm_snapshots(
        tx,
        row.instance_id,
        "Volume cannot be migrated, please remove all VM snapshots for VM to which this volume is attached",
    )
    if row.passphrase_id is not None and pool.pool_type not in POOL_TYPES:
        raise InvalidParameter(
            f"Migration of encrypted volumes is unsupported but from StorPool to StorPool: {row.name} is one, and"
            f" {pool.name} is of type {pool.pool_type}"
        )
    _check_vm(tx, row, source, pool, live=live)
    _check_snapshots(tx, row)
    if pool.removed is not None or pool.data_center_id != row.data_center_id:
        raise InvalidParameter(f"Cannot migrate volume {row.name} to a storage pool of another zone: {pool.name}")
    if pool.status in placement.IN_MAINTENANCE:
        raise InvalidParameter(
            f"Cannot migrate volume {row.name} to the destination storage pool {pool.name} as the storage pool is in"
            " maintenance mode."
        )
    if pool.status != "Up":
        raise InvalidParameter(
            f"Cannot migrate volume {row.name} to the destination storage pool {pool.name}: it is {pool.status}"
        )
    if source.storage_provider_name == pool.storage_provider_name and source.pool_type != "StorPool":
        raise InvalidParameter(
            f"Cannot migrate volume {row.name} from storage pool {source.name} to {pool.name}: no data motion strategy"
            f" copies between pools of provider {pool.storage_provider_name}"
        )
    offering = tx.get(DiskOffering, disk_offering_id or row.disk_offering_id)
    if disk_offering_id is not None and (row.volume_type is VolumeType.ROOT) != offering.compute_only:
        raise InvalidParameter(
            f"The disk offering {offering.name} does not fit {row.name}: a ROOT volume has that of a compute offering,"
            " a DATA volume any other"
        )
    check_offerings(tx.get(DiskOffering, row.disk_offering_id), offering)
    _check_tags(tx, row, pool, offering, new=disk_offering_id is not None)


def check_room(tx: Transaction, row: Volume, pool: StoragePool, size: int | None = None) -> None:
    """Raises `InsufficientCapacity` when the pool would be full."""
    reason = placement.full(tx, pool, row.size if size is None else size)
    if reason is not None:
        raise InsufficientCapacity(
            f"Storage pool {pool.name} does not have enough space to migrate volume {row.name}: it {reason}"
        )


def _check_vm(tx: Transaction, row: Volume, source: StoragePool, pool: StoragePool, *, live: bool) -> None:
    vm = None if row.instance_id is None else tx.find(Vm, id=row.instance_id, removed=None)
    if vm is None:
        return
    if vm.state is VmState.RUNNING:
        if not live:
            raise InvalidParameter(
                f"The volume {row.name} is attached to a vm and for migrating it the parameter livemigrate should be"
                " specified"
            )
        if source.pool_type != "StorPool" or pool.pool_type != "StorPool":
            raise InvalidParameter(
                f"Volume {row.name} of the running VM {vm.display_name} goes live from StorPool to StorPool only, not"
                f" from {source.name} to {pool.name}; stop the VM first"
            )
    elif vm.state not in (VmState.STOPPED, VmState.MIGRATING):
        raise InvalidParameter(
            f"The volume's VM should be running or stopped before a migration; {vm.display_name} is {vm.state.value}"
        )


def _check_snapshots(tx: Transaction, row: Volume) -> None:
    """CloudStack fears for snapshots that are nowhere but beside the volume."""
    only = [
        snapshot.name
        for snapshot in tx.all(Snapshot, volume_id=row.id, state=SnapshotState.BACKED_UP, removed=None)
        if on_image_store(tx, snapshot.id) is None and _is_ready(tx, snapshot)
    ]
    if only:
        raise InvalidParameter(
            f"Volume {row.name} has the following snapshots only in primary storage: {', '.join(only)}. Please, back"
            " them up to secondary storage, or delete them, before migrating the volume"
        )


def _is_ready(tx: Transaction, snapshot: Snapshot) -> bool:
    ref = on_primary(tx, snapshot.id)
    return ref is not None and ref.state is StoreRefState.READY


def _check_tags(tx: Transaction, row: Volume, pool: StoragePool, offering: DiskOffering, *, new: bool) -> None:
    has = [tag.tag for tag in tx.all(StoragePoolTag, pool_id=pool.id)]
    if placement.words(offering.tags) <= set(has):
        return
    if new:
        raise InvalidParameter(
            f"Target Storage [{pool.name}] tags [{','.join(has)}] does not match new disk offering [{offering.name}]"
            f" tags [{offering.tags}]."
        )
    raise InvalidParameter(
        f"Migration target pool [{pool.name}, tags:{','.join(has)}] has no matching tags for volume [{row.name}, uuid:"
        f"{row.uuid}, tags:{offering.tags}]"
    )
