"""Storage pools of a case's own, on StorPool templates of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.observers import Json, World
from scenarios.steps import compute_offering, deploy_parameters, disk_offering, idle_template, many, one, vm_by_id

CAPACITY = 1 << 37
"""Bytes of a new pool; enough for every case."""


def pool_url(world: World, template: str, token: str | None = None, endpoints: str | None = None) -> str:
    """The URL in pairs."""
    env = world.environment
    return (
        f"SP_API_HTTP={endpoints or env.storpool_endpoints};SP_AUTH_TOKEN={token or env.storpool_token}"
        f";SP_TEMPLATE={template}"
    )


def pool_uri(world: World, template: str) -> str:
    """The URL as a URI."""
    env = world.environment
    return f"storpool://{env.storpool_token}@{env.storpool_endpoints}/{template}"


def pool_parameters(world: World, pool_at: str, /, **parameters: str | int | bool) -> dict[str, str | int | bool]:
    chosen: dict[str, str | int | bool] = {
        "name": world.name("pool"),
        "url": pool_at,
        "zoneid": world.environment.zone_id,
        "scope": "zone",
        "provider": "StorPool",
        "hypervisor": "KVM",
        "capacitybytes": CAPACITY,
    }
    return {**chosen, **parameters}


@contextmanager
def storpool_template(world: World, *, replication: bool = True) -> Iterator[str]:
    """A StorPool template that no pool has; it goes when the block ended well, what is on it must be gone then."""
    name = world.name("storpool-template")
    world.storpool.make_template(name, world.environment.pools[0].storpool_template, replication=replication)
    yield name
    # StorPool takes its time over a snapshot that something was made from.
    world.wait_until(f"StorPool template {name} is unused", lambda: world.storpool.remove_template(name), 120)


@contextmanager
def spare_pool(world: World, **parameters: str | int | bool) -> Iterator[Json]:
    """A pool for the block; it is deleted when that ended well, else by whoever tidies up after the case."""
    with storpool_template(world) as name:
        answer = world.cloud.call("createStoragePool", **pool_parameters(world, pool_url(world, name), **parameters))
        shown = one(answer, "storagepool")
        yield {**shown, "storpool_template": name}
        remove_pool(world, shown)


def remove_pool(world: World, pool: Json) -> None:
    if pool_by_id(world, pool)["state"] != "Maintenance":
        world.cloud.call("enableStorageMaintenance", id=pool["id"])
    world.cloud.call("deleteStoragePool", id=pool["id"])


def pools(world: World) -> list[Json]:
    return many(world.cloud.call("listStoragePools"), "storagepool")


def pool_by_id(world: World, pool: Json) -> Json:
    return one(world.cloud.call("listStoragePools", id=pool["id"], storagecustomstats=True), "storagepool")


def on_template(world: World, template: str) -> list[str]:
    """Names of everything that StorPool has on a template of its."""
    found = [*world.storpool.volumes(), *world.storpool.snapshots()]
    return [str(item["name"]) for item in found if item.get("templateName") == template and not item.get("deleted")]


def offering_on(world: World, pool: Json) -> str:
    """A disk offering whose volumes go to that pool."""
    return disk_offering(world, tags=str(pool["tags"]))


def vm_on(world: World, pool: Json) -> Json:
    """A VM with no system, which hears its power button, and whose ROOT volume is on that pool."""
    offering = compute_offering(world, tags=str(pool["tags"]))
    parameters = deploy_parameters(world, idle_template(world), serviceofferingid=str(offering["id"]))
    vm = one(world.cloud.call("deployVirtualMachine", **parameters), "virtualmachine")
    world.guest(str(vm["id"])).ready()
    return vm_by_id(world, str(vm["id"]))


def connected_hosts(world: World, pool: Json) -> list[str]:
    """Names of the hosts that have the pool connected, sorted."""
    hosts = many(world.cloud.call("listHosts", type="Routing"), "host")
    return sorted(
        str(host["name"])
        for host in hosts
        if many(world.cloud.call("listStoragePools", id=pool["id"], hostid=host["id"]), "storagepool")
    )


def await_connected(world: World, pool: Json, timeout: float = 120) -> None:
    """A host that could not connect the pool at once does so when it is pinged next."""
    wanted = sorted(host.name for host in world.hosts)
    world.wait_until(
        f"every host has pool {pool['name']} connected", lambda: connected_hosts(world, pool) == wanted, timeout
    )
