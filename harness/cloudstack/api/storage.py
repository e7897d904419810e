"""Primary storage pools."""

from __future__ import annotations

from harness.cloudstack.api import nfs_pools
from harness.cloudstack.api.command import Command, Json, deleting, listing, object_job, sync
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import clean, entity, matching, named, optional, time, visible
from harness.cloudstack.api.parameters import LIST, Request
from harness.cloudstack.orchestration.placement import allocated_bytes
from harness.cloudstack.orchestration.pool import check_cancellable, check_maintainable, set_tags
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import (
    Cluster,
    HostRow,
    StoragePool,
    StoragePoolHost,
    StoragePoolTag,
    Zone,
)
from harness.cloudstack.services import Services
from harness.spi.driver import PoolRequest, Space


def create_storage_pool(services: Services, request: Request) -> Json:
    """Checked by its provider, then connected on every host that is Up. Pools of the plugin are zone-wide."""
    if nfs_pools.is_nfs(request):
        return _show(services, services.pools.add_by(lambda tx: nfs_pools.insert(services, tx, request)))
    wanted = _pool_request(services, request)
    with services.records.read() as tx:
        zone = entity(tx, Zone, request, "zoneid")
    return _show(services, services.pools.add(wanted, zone))


def delete_storage_pool(services: Services, request: Request) -> None:
    """Refused unless it is in Maintenance, and while volumes or snapshots are there; cached templates go with it."""
    with services.records.read() as tx:
        row = entity(tx, StoragePool, request, "id")
    services.pools.delete(row.id, forced=request.flag("forced"))


def enable_maintenance(services: Services, request: Request) -> Json:
    return _show(services, services.pools.maintain(check_maintenance(services, request)))


def check_maintenance(services: Services, request: Request) -> int:
    with services.records.read() as tx:
        row = entity(tx, StoragePool, request, "id")
        check_maintainable(tx, row)
    return row.id


def cancel_maintenance(services: Services, request: Request) -> Json:
    return _show(services, services.pools.cancel(check_cancel(services, request)))


def check_cancel(services: Services, request: Request) -> int:
    with services.records.read() as tx:
        row = entity(tx, StoragePool, request, "id")
    check_cancellable(row)
    return row.id


def update_storage_pool(services: Services, request: Request) -> Json:
    capacity, iops = request.natural("capacitybytes", 1), request.natural("capacityiops", 1)
    url = request.text("url")
    if request.text("details") or request.maps.get("details"):
        raise ApiError(PARAMETER, "details of a StorPool pool cannot be changed; for its connection give url")
    if url:
        with services.records.read() as tx:
            row = entity(tx, StoragePool, request, "id")
        if row.storage_provider_name != services.context.provider.name:
            raise ApiError(PARAMETER, f"pool {row.name} of provider {row.storage_provider_name} stays at its url")
        services.pools.change_connection(row.id, url)
    with services.records.transaction("storage pool updated") as tx:
        row = entity(tx, StoragePool, request, "id")
        if request.text("tags") is not None:
            set_tags(tx, row, request.items("tags"))
        if request.text("name"):
            row = tx.update(row, name=_free_name(tx, row, named(request)))
        if capacity is not None:
            row = tx.update(row, capacity_bytes=capacity)
        if iops is not None:
            row = tx.update(row, capacity_iops=iops)
        if request.text("enabled") is not None:
            row = _switch(tx, row, on=request.flag("enabled"))
        return storage_pool(services, tx, row)


def _free_name(tx: Transaction, row: StoragePool, name: str) -> str:
    other = tx.find(StoragePool, name=name, removed=None)
    if other is not None and other.id != row.id:
        raise ApiError(PARAMETER, f"a storage pool named {name} exists already")
    return name


def _switch(tx: Transaction, row: StoragePool, *, on: bool) -> StoragePool:
    """Disabled: nothing new is placed there, what is there goes on. Not the way out of a maintenance."""
    wanted, other = ("Up", "Disabled") if on else ("Disabled", "Up")
    if row.status not in (wanted, other):
        raise ApiError(
            PARAMETER, f"Pool {row.name} cannot be {'enabled' if on else 'disabled'}, as its state is {row.status}"
        )
    return tx.update(row, status=wanted)


def list_storage_pools(services: Services, request: Request) -> list[Json]:
    custom = request.flag("storagecustomstats")
    with services.records.read() as tx:
        host = optional(tx, HostRow, request, "hostid")
        connected = {ref.pool_id for ref in tx.all(StoragePoolHost, host_id=host.id)} if host else set()
        rows = [
            storage_pool(services, tx, row, custom=custom)
            for row in tx.all(StoragePool, removed=None)
            if host is None or row.id in connected
        ]
    status = request.text("status")
    if status is not None:
        rows = [row for row in rows if row["state"].lower() == status.lower()]
    return matching(rows, request, "id", "name", "zoneid", "clusterid", "scope", "path")


def storage_pool(services: Services, tx: Transaction, row: StoragePool, *, custom: bool = False) -> Json:
    """Without the details that hold secrets. Capacity is what accounting goes by; what StorPool tells is beside it."""
    real = services.context.driver.pool_stats(row.id)
    zone = tx.get(Zone, row.data_center_id)
    cluster = None if row.cluster_id is None else tx.get(Cluster, row.cluster_id)
    allocated = allocated_bytes(tx, row.id)
    return clean(
        id=row.uuid,
        name=row.name,
        state=row.status,
        provider=row.storage_provider_name,
        type=row.pool_type,
        path=row.path,
        scope=row.scope,
        hypervisor="KVM",
        managed=False,
        zoneid=zone.uuid,
        zonename=zone.name,
        clusterid=cluster and cluster.uuid,
        clustername=cluster and cluster.name,
        ipaddress=None if row.host_address == "n/a" else row.host_address,
        tags=",".join(tag.tag for tag in tx.all(StoragePoolTag, pool_id=row.id)) or None,
        capacitybytes=row.capacity_bytes,
        capacityiops=row.capacity_iops,
        disksizeused=real.used if real else None,
        storagecustomstats=_custom(real) if custom and real else None,
        disksizetotal=row.capacity_bytes,
        disksizeallocated=allocated,
        overprovisionfactor="1.0",
        details=visible(tx.details("storage_pool_details", row.id)) or None,
        created=time(row.created),
    )


def _pool_request(services: Services, request: Request) -> PoolRequest:
    provider = services.context.provider.name
    if (request.text("provider") or "").lower() != provider.lower():
        raise ApiError(PARAMETER, f"Invalid provider: primary storage here is provider {provider}")
    scope = (request.text("scope") or "zone").upper()
    if scope != "ZONE" or request.text("clusterid") or request.text("podid"):
        raise ApiError(PARAMETER, f"{provider} pools are zone-wide: give scope=zone, and neither clusterid nor podid")
    capacity = request.natural("capacitybytes", 1)
    if capacity is None:
        raise ApiError(PARAMETER, "Capacity bytes not available or not in bytes: capacitybytes is required")
    tags = tuple(tag.strip() for tag in (request.text("tags") or "").split(",") if tag.strip())
    return PoolRequest(
        name=named(request),
        url=request.need("url"),
        scope=scope,
        capacity_bytes=capacity,
        capacity_iops=request.natural("capacityiops", 1),
        tags=tags,
    )


def _custom(real: Space) -> dict[str, str]:
    free = max(0, real.capacity - real.used)
    return {
        "storpool.capacitybytes": str(real.capacity),
        "storpool.usedbytes": str(real.used),
        "storpool.freebytes": str(free),
    }


def _show(services: Services, row: StoragePool) -> Json:
    with services.records.read() as tx:
        return storage_pool(services, tx, tx.get(StoragePool, row.id))


_FIELDS = (
    "id:string name:string state:string provider:string type:string path:string scope:string hypervisor:string"
    " managed:boolean zoneid:string zonename:string clusterid:string clustername:string ipaddress:string"
    " tags:string capacitybytes:long capacityiops:long"
    " disksizetotal:long disksizeused:long disksizeallocated:long storagecustomstats:map overprovisionfactor:string"
    " details:map created:date"
)

COMMANDS: tuple[Command, ...] = (
    sync(
        "createStoragePool",
        "storagepool",
        "name:string* url:string* zoneid:uuid* clusterid:uuid podid:uuid scope:string provider:string tags:string"
        " capacitybytes:long capacityiops:long hypervisor:string managed:boolean details:map",
        _FIELDS,
        create_storage_pool,
    ),
    deleting("deleteStoragePool", "id:uuid* forced:boolean", delete_storage_pool),
    object_job(
        "enableStorageMaintenance",
        "storagepool",
        "id:uuid*",
        _FIELDS,
        enable_maintenance,
        check=check_maintenance,
    ),
    object_job("cancelStorageMaintenance", "storagepool", "id:uuid*", _FIELDS, cancel_maintenance, check=check_cancel),
    sync(
        "updateStoragePool",
        "storagepool",
        "id:uuid* name:string tags:list capacitybytes:long capacityiops:long enabled:boolean details:map url:string",
        _FIELDS,
        update_storage_pool,
    ),
    listing(
        "listStoragePools",
        "storagepool",
        f"{LIST} id:uuid name:string zoneid:uuid clusterid:uuid path:string scope:string status:string"
        " hostid:uuid storagecustomstats:boolean",
        _FIELDS,
        list_storage_pools,
    ),
)
