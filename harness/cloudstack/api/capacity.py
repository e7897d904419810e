"""listCapacity and listStorageProviders: what the zone's primary storage has, and who provides it."""

from __future__ import annotations

from harness.cloudstack.api.command import Command, Json, listing
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import matching
from harness.cloudstack.api.parameters import LIST, Request
from harness.cloudstack.orchestration.placement import allocated_bytes
from harness.cloudstack.primary.default_driver import PROVIDER
from harness.cloudstack.records.rows import StoragePool, Zone
from harness.cloudstack.services import Services

STORAGE, ALLOCATED = 2, 3
"""CloudStack's `Capacity` types: what the storage says is used, and what the records have given away."""
_NAMES = {STORAGE: "STORAGE", ALLOCATED: "STORAGE_ALLOCATED"}


def list_capacity(services: Services, request: Request) -> list[Json]:
    """Of each zone, over its pools that are Up. A pool that StorPool has not told of counts with its accounting."""
    with services.records.read() as tx:
        zones = tx.all(Zone)
        pools = {zone.id: tx.all(StoragePool, data_center_id=zone.id, removed=None, status="Up") for zone in zones}
        allocated = {zone.id: sum(allocated_bytes(tx, pool.id) for pool in pools[zone.id]) for zone in zones}
    rows = []
    for zone in zones:
        told = [(pool, services.context.driver.pool_stats(pool.id)) for pool in pools[zone.id]]
        total = sum(space.capacity if space else pool.capacity_bytes for pool, space in told)
        rows.append(_row(zone, STORAGE, total, sum(space.used for _, space in told if space)))
        rows.append(_row(zone, ALLOCATED, sum(pool.capacity_bytes for pool, _ in told), allocated[zone.id]))
    return matching(rows, request, "type", "zoneid")


def _row(zone: Zone, kind: int, total: int, used: int) -> Json:
    return {
        "type": kind,
        "name": _NAMES[kind],
        "zoneid": zone.uuid,
        "zonename": zone.name,
        "capacitytotal": total,
        "capacityused": used,
        "percentused": f"{100 * used / total if total else 0:.2f}",
    }


def list_storage_providers(services: Services, request: Request) -> list[Json]:
    kind = request.need("type").lower()
    if kind not in ("primary", "image"):
        raise ApiError(PARAMETER, f"Invalid type: {kind[:64]}; primary or image")
    names = (services.context.provider.name, PROVIDER) if kind == "primary" else ("NFS",)
    return [{"name": name, "type": kind.upper()} for name in names]


COMMANDS: tuple[Command, ...] = (
    listing(
        "listCapacity",
        "capacity",
        f"{LIST} type:integer zoneid:uuid podid:uuid clusterid:uuid fetchlatest:boolean sortby:string",
        "type:short name:string zoneid:string zonename:string capacitytotal:long capacityused:long percentused:string",
        list_capacity,
    ),
    listing(
        "listStorageProviders",
        "dataStoreProvider",
        f"{LIST} type:string*",
        "name:string type:string",
        list_storage_providers,
    ),
)
