"""Operations on storage pools: add, maintenance and its end, delete (extra `pool`)."""

from __future__ import annotations

from harness.faults.operation import Operation, Subject
from harness.observers import Json, World
from scenarios import looks, pools, steps

CONNECT_SECONDS = 600.0
REMOVAL_SECONDS = 600.0


def _template(world: World) -> Subject:
    template = world.name("storpool-template")
    world.storpool.make_template(template, world.environment.pools[0].storpool_template)
    return Subject(storpool_template=template, name=world.name("pool"))


def _create(world: World, subject: Subject) -> None:
    wanted = pools.pool_parameters(world, pools.pool_url(world, subject.storpool_template), name=subject.name)
    world.cloud.call("createStoragePool", **wanted)


def _created(world: World, subject: Subject) -> None:
    pool = _pool(world, subject)
    assert pool is not None and pool["state"] == "Up", f"the pool is {pool}"
    pools.await_connected(world, pool, CONNECT_SECONDS)
    vm = steps.booted_vm(world)
    volume = steps.attach(world, steps.data_volume(world, 1, pools.offering_on(world, pool)), vm)
    looks.fully_attached(world, vm, volume)
    world.cloud.call("deleteVolume", id=steps.detach(world, volume)["id"])


def _not_created(world: World, subject: Subject) -> None:
    assert _pool(world, subject) is None, f"the pool is {_pool(world, subject)}"


def _pool(world: World, subject: Subject) -> Json | None:
    listed = steps.many(world.cloud.call("listStoragePools", name=subject.name), "storagepool")
    return listed[0] if listed else None


def _used(world: World) -> Subject:
    """A pool with a volume of a running VM."""
    subject = _template(world)
    _create(world, subject)
    pool = _pool(world, subject)
    assert pool is not None
    vm = steps.booted_vm(world)
    subject.vm = vm
    subject.volume = steps.attach(world, steps.data_volume(world, 1, pools.offering_on(world, pool)), vm)
    return subject


def _id(world: World, subject: Subject) -> str:
    pool = _pool(world, subject)
    return str(pool["id"]) if pool is not None else steps.MISSING


def _maintain(world: World, subject: Subject) -> None:
    world.cloud.call("enableStorageMaintenance", id=_id(world, subject))


def _maintained(world: World, subject: Subject) -> None:
    _is(world, subject, "Maintenance")
    vm = looks.reread(world, subject.vm)
    assert vm["state"] == "Stopped", f"VM {vm['id']} is {vm['state']}"
    looks.fully_detached(world, looks.reread_volume(world, subject.volume))
    _cancel(world, subject)
    _cancelled(world, subject)


def _not_maintained(world: World, subject: Subject) -> None:
    """As in CloudStack some VMs may be stopped by then."""
    _is(world, subject, "Up", "ErrorInMaintenance")


def _in_maintenance(world: World) -> Subject:
    subject = _used(world)
    _maintain(world, subject)
    return subject


def _cancel(world: World, subject: Subject) -> None:
    world.cloud.call("cancelStorageMaintenance", id=_id(world, subject))


def _cancelled(world: World, subject: Subject) -> None:
    """A VM that could not be started is told in the log, as in CloudStack, and can be started."""
    _is(world, subject, "Up")
    pools.await_connected(world, _pool(world, subject) or {}, CONNECT_SECONDS)
    vm = looks.reread(world, subject.vm)
    if vm["state"] == "Stopped":
        vm = steps.start(world, vm)
    assert vm["state"] == "Running", f"VM {vm['id']} is {vm['state']}"
    looks.fully_attached(world, vm, looks.reread_volume(world, subject.volume))


def _not_cancelled(world: World, subject: Subject) -> None:
    _is(world, subject, "Maintenance", "ErrorInMaintenance")


def _is(world: World, subject: Subject, *states: str) -> None:
    pool = _pool(world, subject)
    assert pool is not None and pool["state"] in states, f"the pool is {pool}, expected {states}"


def _to_be_deleted(world: World) -> Subject:
    """In Maintenance, with a cached template and a destroyed volume."""
    subject = _template(world)
    _create(world, subject)
    pool = _pool(world, subject)
    assert pool is not None
    steps.expunge(world, pools.vm_on(world, pool))
    vm = steps.booted_vm(world)
    volume = steps.attach(world, steps.data_volume(world, 1, pools.offering_on(world, pool)), vm)
    world.cloud.call("destroyVolume", id=steps.detach(world, volume)["id"])
    _maintain(world, subject)
    subject.volume = volume
    return subject


def _delete(world: World, subject: Subject) -> None:
    world.cloud.call("deleteStoragePool", id=_id(world, subject), forced=True)


def _deleted(world: World, subject: Subject) -> None:
    assert _pool(world, subject) is None, f"the pool is {_pool(world, subject)}"
    world.wait_until(
        "StorPool removes it", lambda: not pools.on_template(world, subject.storpool_template), REMOVAL_SECONDS
    )
    looks.gone(world, subject.volume)


def _not_deleted(world: World, subject: Subject) -> None:
    _is(world, subject, "Maintenance")


POOLS: tuple[Operation, ...] = (
    Operation("pool.create", "add a pool", _template, _create, _created, _not_created),
    Operation("pool.maintain", "put a pool into maintenance", _used, _maintain, _maintained, _not_maintained),
    Operation("pool.cancel", "take a pool out of maintenance", _in_maintenance, _cancel, _cancelled, _not_cancelled),
    Operation(
        "pool.delete",
        "delete a pool with a cached template and a destroyed volume",
        _to_be_deleted,
        _delete,
        _deleted,
        _not_deleted,
    ),
)
