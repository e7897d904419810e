"""listCapacity and listStorageProviders: what the zone's primary storage has, and who provides it."""

from __future__ import annotations

from harness.cloudstack.api.command import Command, Json, listing
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import matching, zone
from harness.cloudstack.api.parameters import LIST, Request
from harness.cloudstack.orchestration.placement import allocated_bytes
from harness.cloudstack.records.rows import StoragePool
from harness.cloudstack.services import Services

STORAGE, ALLOCATED = 2, 3
"""CloudStack's `Capacity` types: what the storage says is used, and what the records have given away."""
_NAMES = {STORAGE: "STORAGE", ALLOCATED: "STORAGE_ALLOCATED"}


def list_capacity(services: Services, request: Request) -> list[Json]:
    """Sums over the pools that are Up. A pool that StorPool has not told of counts with its accounting."""
    driver = services.context.driver
    with services.records.read() as tx:
        place = zone(tx)
        pools = tx.all(StoragePool, removed=None, status="Up")
        allocated = {pool.id: allocated_bytes(tx, pool.id) for pool in pools}
    real = {pool.id: driver.pool_stats(pool.id) for pool in pools}
    totals = {
        STORAGE: (
            sum(told.capacity if told else pool.capacity_bytes for pool in pools for told in (real[pool.id],)),
            sum(told.used for told in real.values() if told),
        ),
        ALLOCATED: (sum(pool.capacity_bytes for pool in pools), sum(allocated.values())),
    }
    rows = [
        {
            "type": kind,
            "name": _NAMES[kind],
            "zoneid": place.uuid,
            "zonename": place.name,
            "capacitytotal": total,
            "capacityused": used,
            "percentused": f"{100 * used / total if total else 0:.2f}",
        }
        for kind, (total, used) in totals.items()
    ]
    return matching(rows, request, "type", "zoneid")


def list_storage_providers(services: Services, request: Request) -> list[Json]:
    kind = request.need("type").lower()
    if kind not in ("primary", "image"):
        raise ApiError(PARAMETER, f"Invalid type: {kind[:64]}; primary or image")
    name = services.context.provider.name if kind == "primary" else "NFS"
    return [{"name": name, "type": kind.upper()}]


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
