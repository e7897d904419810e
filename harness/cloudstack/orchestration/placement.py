"""Which pool a volume goes to and which host a VM; `InsufficientCapacity` when none will do."""

from __future__ import annotations

from collections.abc import Collection

from harness.cloudstack import settings
from harness.cloudstack.orchestration.agents import USABLE
from harness.cloudstack.orchestration.encryption import why_not_on_host, why_not_on_pool
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import (
    DiskOffering,
    HostRow,
    StoragePool,
    StoragePoolHost,
    StoragePoolTag,
    Vm,
    Volume,
)
from harness.spi.errors import InsufficientCapacity


def pool_for(tx: Transaction, volume: Volume, host_id: int | None = None) -> StoragePool:
    """An Up pool that has every storage tag of the volume's offering, room for it, and `host_id` connected."""
    wanted = words(tx.get(DiskOffering, volume.disk_offering_id).tags)
    reasons = []
    pools = tx.select(StoragePool, "removed IS NULL AND data_center_id = ? ORDER BY id", (volume.data_center_id,))
    for pool in pools:
        reason = _unfit(tx, pool, wanted, volume.size, host_id) or why_not_on_pool(tx, volume, pool)
        if reason is None:
            return pool
        reasons.append(f"{pool.name}: {reason}")
    tried = "; ".join(reasons) or "the zone has no primary storage"
    raise InsufficientCapacity(f"no storage pool for volume {volume.name} of {volume.size} bytes ({tried})")


IN_MAINTENANCE = ("PrepareForMaintenance", "Maintenance", "ErrorInMaintenance")


def check_pools(tx: Transaction, vm: Vm) -> None:
    """Refuses to start a VM that has a volume on a pool in maintenance."""
    for volume in tx.all(Volume, instance_id=vm.id, removed=None):
        check_pool(tx, volume)


def check_pool(tx: Transaction, volume: Volume) -> None:
    """Refuses to use a volume whose pool is in maintenance; one that is Disabled serves what it has."""
    pool = None if volume.pool_id is None else tx.get(StoragePool, volume.pool_id)
    if pool is not None and pool.status in IN_MAINTENANCE:
        raise InsufficientCapacity(f"volume {volume.name} is on storage pool {pool.name}, whose state is {pool.status}")


def check_change(tx: Transaction, volume: Volume, disk_offering_id: int, size: int) -> None:
    """Refuses an offering whose storage tags the volume's pool lacks, and a size that it has no room for."""
    if volume.pool_id is None:
        return
    pool = tx.get(StoragePool, volume.pool_id)
    wanted = words(tx.get(DiskOffering, disk_offering_id).tags)
    reason = _unfit(tx, pool, wanted, max(0, size - volume.size), None)
    if reason is not None:
        raise InsufficientCapacity(
            f"volume {volume.name} would have to be migrated, which is not asked for: pool {pool.name} {reason}"
        )


def allocated_bytes(tx: Transaction, pool_id: int) -> int:
    """Virtual sizes of all volumes and cached templates that are, or are being put, on the pool."""
    volumes = tx.integer(
        "SELECT SUM(size) FROM volumes WHERE pool_id = ? AND removed IS NULL"
        " AND state NOT IN ('Allocated', 'Expunged')",
        (pool_id,),
    )
    return volumes + tx.integer("SELECT SUM(template_size) FROM template_spool_ref WHERE pool_id = ?", (pool_id,))


def host_for(tx: Transaction, vm: Vm, avoid: Collection[int] = (), wanted: int | None = None) -> HostRow:
    """A usable host that has all pools of the VM's volumes connected: the one asked for, the VM's last, or the one
    with the fewest VMs."""
    hosts = tx.select(
        HostRow,
        f"{USABLE} AND shunned_until <= ? AND data_center_id = ? AND NOT EXISTS"
        " (SELECT 1 FROM volumes v WHERE v.instance_id = ? AND v.removed IS NULL AND v.pool_id IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM storage_pool_host_ref r WHERE r.pool_id = v.pool_id AND r.host_id = host.id))"
        " ORDER BY id",
        (tx.now, vm.data_center_id, vm.id),
    )
    reasons = []
    usable = []
    for host in hosts:
        if host.id in avoid or wanted not in (None, host.id):
            continue
        reason = _no_room(tx, vm, host)
        if reason is None:
            usable.append(host)
        else:
            reasons.append(f"on host {host.name}: {reason}")
    if not usable:
        raise InsufficientCapacity(
            "; ".join(reasons)
            or f"no host for VM {vm.instance_name}: it must be Up and Enabled, have the VM's storage pools connected"
            f" and not be one that has just failed ({len(avoid)} have)"
        )
    counts = {host.id: _vms_on(tx, host.id) for host in usable}
    return min(usable, key=lambda host: (host.id != vm.last_host_id, counts[host.id], host.id))


def _no_room(tx: Transaction, vm: Vm, host: HostRow) -> str | None:
    """Why the host cannot have a volume of the VM, or a pool for one that is on none yet."""
    for volume in tx.select(Volume, "instance_id = ? AND removed IS NULL ORDER BY id", (vm.id,)):
        reason = why_not_on_host(tx, volume, host)
        if reason is not None:
            return reason
    for volume in tx.select(Volume, "instance_id = ? AND removed IS NULL AND pool_id IS NULL ORDER BY id", (vm.id,)):
        try:
            pool_for(tx, volume, host.id)
        except InsufficientCapacity as error:
            return str(error)
    return None


def _unfit(tx: Transaction, pool: StoragePool, wanted: set[str], asked: int, host_id: int | None) -> str | None:
    if pool.status != "Up":
        return f"is {pool.status}"
    missing = wanted - {row.tag for row in tx.all(StoragePoolTag, pool_id=pool.id)}
    if missing:
        return f"lacks the storage tag {', '.join(sorted(missing))}"
    if host_id is not None and tx.find(StoragePoolHost, pool_id=pool.id, host_id=host_id) is None:
        return "is not connected to the host"
    return full(tx, pool, asked)


def full(tx: Transaction, pool: StoragePool, asked: int) -> str | None:
    """Why so many bytes more are too many for the pool; None when there is room."""
    name = "pool.storage.allocated.capacity.disablethreshold"
    limit = pool.capacity_bytes * float(settings.value(tx, name, zone_id=pool.data_center_id) or 1)
    used = allocated_bytes(tx, pool.id)
    if used + asked > limit:
        return f"{used} of {pool.capacity_bytes} bytes are allocated and {name} ends at {limit:.0f}"
    return None


def _vms_on(tx: Transaction, host_id: int) -> int:
    return tx.integer("SELECT COUNT(*) FROM vm_instance WHERE host_id = ? AND removed IS NULL", (host_id,))


def words(tags: str) -> set[str]:
    return {tag.strip() for tag in tags.split(",") if tag.strip()}
