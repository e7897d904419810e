"""Primary storage pools."""

from __future__ import annotations

from harness.cloudstack.api import nfs_pools
from harness.cloudstack.api.command import Command, Json, deleting, listing, sync
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import clean, entity, matching, named, time, visible
from harness.cloudstack.api.parameters import LIST, Request
from harness.cloudstack.orchestration.placement import allocated_bytes
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import Cluster, HostRow, StoragePool, StoragePoolTag, TemplatePool, Zone
from harness.cloudstack.services import Services
from harness.spi.driver import PoolDescription, PoolRequest
from harness.spi.errors import Error


def create_storage_pool(services: Services, request: Request) -> Json:
    """Checked by its provider, then connected on every host that is Up. Pools of the plugin are zone-wide."""
    if nfs_pools.is_nfs(request):
        return _bring_up(services, nfs_pools.insert(services, request))
    wanted = _pool_request(services, request)
    # The provider looks for pools of the same template, so two of them must not be made at once.
    with services.pool_locks.hold("create", 120.0):
        with services.records.read() as tx:
            zone = entity(tx, Zone, request, "zoneid")
            if tx.find(StoragePool, name=wanted.name, removed=None):
                raise ApiError(PARAMETER, f"a storage pool named {wanted.name} exists already")
        description = services.context.provider.life_cycle.initialize(wanted)
        with services.records.transaction("storage pool") as tx:
            row = _insert(tx, services, wanted, description, zone)
    return _bring_up(services, row)


def _bring_up(services: Services, row: StoragePool) -> Json:
    failures = _connect(services, row)
    with services.records.transaction("storage pool up") as tx:
        connected = tx.integer("SELECT COUNT(*) FROM storage_pool_host_ref WHERE pool_id = ?", (row.id,))
        if failures and not connected:
            _delete(tx, row)
        else:
            row = tx.update(row, status="Up")
        shown = storage_pool(tx, row)
    if failures and not connected:
        raise ApiError(530, f"No host can use storage pool {row.name}, it was not added: {'; '.join(failures)}")
    return shown


def delete_storage_pool(services: Services, request: Request) -> None:
    """Refused while volumes or snapshots are there; cached templates go with the pool."""
    with services.records.transaction("storage pool delete") as tx:
        row = entity(tx, StoragePool, request, "id")
        volumes = tx.integer("SELECT COUNT(*) FROM volumes WHERE pool_id = ? AND removed IS NULL", (row.id,))
        snapshots = tx.integer(
            "SELECT COUNT(*) FROM snapshot_store_ref WHERE store_role = 'Primary' AND store_id = ?", (row.id,)
        )
        if volumes or snapshots:
            raise ApiError(
                PARAMETER,
                f"Cannot delete pool {row.name} as there are associated {volumes} volumes and {snapshots} snapshots"
                " for this pool",
            )
        cached = tx.all(TemplatePool, pool_id=row.id)
        tx.update(row, status="Disabled")
    try:
        for entry in cached:
            services.templates.evict(entry.template_id, row.id)
    except Error:
        with services.records.transaction("storage pool not deleted") as tx:
            tx.update(row, status=row.status)
        raise
    with services.records.transaction("storage pool deleted") as tx:
        _delete(tx, row)


def update_storage_pool(services: Services, request: Request) -> Json:
    capacity = request.natural("capacitybytes", 1)
    with services.records.transaction("storage pool updated") as tx:
        row = entity(tx, StoragePool, request, "id")
        if request.text("details") or request.maps.get("details") or request.text("url"):
            raise ApiError(PARAMETER, "the connection of a StorPool pool cannot be changed; make another pool")
        if request.text("tags") is not None:
            _set_tags(tx, row, request.items("tags"))
        if request.text("name"):
            row = tx.update(row, name=named(request))
        if capacity is not None:
            row = tx.update(row, capacity_bytes=capacity)
        if request.text("enabled") is not None:
            row = tx.update(row, status="Up" if request.flag("enabled") else "Disabled")
        return storage_pool(tx, row)


def list_storage_pools(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        rows = [storage_pool(tx, row) for row in tx.all(StoragePool, removed=None)]
    status = request.text("status")
    if status is not None:
        rows = [row for row in rows if row["state"].lower() == status.lower()]
    return matching(rows, request, "id", "name", "zoneid", "scope", "path")


def storage_pool(tx: Transaction, row: StoragePool) -> Json:
    """Without the details that hold secrets."""
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
    return PoolRequest(name=named(request), url=request.need("url"), scope=scope, capacity_bytes=capacity, tags=tags)


def _insert(
    tx: Transaction, services: Services, wanted: PoolRequest, description: PoolDescription, zone: Zone
) -> StoragePool:
    row = tx.insert(
        StoragePool(
            uuid=description.uuid,
            name=wanted.name,
            status="Initialized",
            path=description.path,
            scope=wanted.scope,
            storage_provider_name=services.context.provider.name,
            pool_type="StorPool",
            data_center_id=zone.id,
            capacity_bytes=wanted.capacity_bytes or 0,
            created=tx.now,
        )
    )
    _set_tags(tx, row, description.tags)
    for key, value in description.details.items():
        tx.set_detail("storage_pool_details", row.id, key, value)
    return row


def _connect(services: Services, row: StoragePool) -> list[str]:
    """Why hosts cannot use the pool; a host that is away is connected when it comes back."""
    with services.records.read() as tx:
        hosts = tx.all(HostRow, status="Up", resource_state="Enabled", data_center_id=row.data_center_id)
    failures = []
    for host in hosts:
        try:
            services.hosts.connect_pool(host.id, row.id)
        except Error as error:
            failures.append(f"{host.name}: {error}")
    return failures


def _delete(tx: Transaction, row: StoragePool) -> None:
    tx.update(row, removed=tx.now, status="Removed")
    for table, column in (
        ("storage_pool_host_ref", "pool_id"),
        ("storage_pool_tags", "pool_id"),
        ("storage_pool_details", "resource_id"),
    ):
        tx.execute(f"DELETE FROM {table} WHERE {column} = ?", (row.id,))


def _set_tags(tx: Transaction, row: StoragePool, tags: tuple[str, ...] | list[str]) -> None:
    tx.execute("DELETE FROM storage_pool_tags WHERE pool_id = ?", (row.id,))
    for tag in dict.fromkeys(tags):
        tx.insert(StoragePoolTag(pool_id=row.id, tag=tag))


_FIELDS = (
    "id:string name:string state:string provider:string type:string path:string scope:string hypervisor:string"
    " managed:boolean zoneid:string zonename:string clusterid:string clustername:string ipaddress:string"
    " tags:string capacitybytes:long disksizetotal:long"
    " disksizeallocated:long overprovisionfactor:string details:map created:date"
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
        f"{LIST} id:uuid name:string zoneid:uuid clusterid:uuid podid:uuid path:string scope:string status:string",
        _FIELDS,
        list_storage_pools,
    ),
)
