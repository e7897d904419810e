"""Row 18, migrateVirtualMachineWithVolume: a running VM to another host, and its volumes to another pool."""

from __future__ import annotations

from collections.abc import Sequence

from harness.observers import Json, World
from scenarios.looks import fails, fully_attached, refused, reread, reread_volume
from scenarios.migrating import Counter, host_id, other_host
from scenarios.registry import scenario
from scenarios.snapshots import on_storpool, take
from scenarios.steps import (
    GIB,
    attach,
    booted_vm,
    compute_offering,
    data_volume,
    deploy,
    host_of,
    idle_vm,
    pool_of,
    root_volume,
    shared_template,
    stop,
)
from scenarios.storage_migration import anywhere, is_on, migrate, other_pool, same_on_storpool

COMMAND = "migrateVirtualMachineWithVolume"
BEHIND_IMAGE = GIB
"""Where a guest counts on a ROOT disk of 2 GiB."""


def migrate_with(world: World, vm: Json, host: str, *volumes: Json) -> Json:
    """To the host of this id, with these volumes to the other pool."""
    world.cloud.call(COMMAND, **_parameters(world, vm, host, volumes))
    return reread(world, vm)


def _parameters(world: World, vm: Json, host: str, volumes: Sequence[Json]) -> dict[str, str]:
    parameters = {"virtualmachineid": str(vm["id"]), "hostid": host}
    for index, volume in enumerate(volumes):
        parameters[f"migrateto[{index}].volume"] = str(volume["id"])
        parameters[f"migrateto[{index}].pool"] = other_pool(world).id
    return parameters


@scenario(
    18, "vm-live", "a running VM goes to another host, its ROOT and DATA volumes to another pool: no data is copied"
)
def vm_live(world: World) -> None:
    offering = compute_offering(world, tags="")
    vm = deploy(world, shared_template(world), serviceofferingid=offering["id"], rootdisksize=2)
    boot = world.guest(str(vm["id"])).boot_id()
    destination = other_host(world, vm)
    root = root_volume(world, str(vm["id"]))
    data = attach(world, data_volume(world, offering_id=anywhere(world)), vm)
    snapshot = take(world, data)
    on_root, on_data = Counter(world, vm, root, BEHIND_IMAGE), Counter(world, vm, data)
    on_data.write()
    job = world.cloud.start(COMMAND, **_parameters(world, vm, host_id(world, destination), (root, data)))
    on_root.write_until_ended(job)
    world.cloud.wait(job)
    vm = reread(world, vm)
    with world.check("CloudStack: Running there"):
        assert (vm["state"], vm["hostname"]) == ("Running", destination.name), vm
    for before in (root, data):
        same_on_storpool(world, before, reread_volume(world, before), other_pool(world))
        fully_attached(world, vm, reread_volume(world, before))
    with world.check("the guest was never down, and what it wrote before and meanwhile is there"):
        assert world.guest(str(vm["id"])).boot_id() == boot
        on_root.is_there()
        on_data.is_there()
    with world.check("its snapshots were not deleted (weakness 5)"):
        on_storpool(world, snapshot)
    back = migrate(world, reread_volume(world, root), str(root["storageid"]), livemigrate=True)
    same_on_storpool(world, root, back, pool_of(world, root))
    fully_attached(world, vm, back)
    with world.check("with its ROOT volume back, alone and live, the guest writes on"):
        for counter in (on_root, on_data):
            counter.write()
            counter.is_there()
        assert world.guest(str(vm["id"])).boot_id() == boot


@scenario(18, "vm-live-fails", "the host cannot be reached: the volumes are back on their pool, and nothing is left")
def vm_live_fails(world: World) -> None:
    vm = booted_vm(world)
    source, destination = host_of(world, vm), other_host(world, vm)
    volume = attach(world, data_volume(world, offering_id=anywhere(world)), vm)
    counter = Counter(world, vm, volume)
    counter.write()
    with destination.libvirt_cut():
        fails(lambda: migrate_with(world, vm, host_id(world, destination), volume))
    with world.check("the VM runs where it was"):
        now = reread(world, vm)
        assert (now["state"], now["hostname"]) == ("Running", source.name), now
    with world.check("the volume is where it was"):
        is_on(world, reread_volume(world, volume), str(volume["storageid"]))
    fully_attached(world, vm, reread_volume(world, volume))
    counter.is_there()


@scenario(18, "vm-live-refusals", "what cannot be migrated so is refused with a reason, and nothing changes")
def vm_live_refusals(world: World) -> None:
    vm, other = idle_vm(world), idle_vm(world)
    destination = host_id(world, other_host(world, vm))
    foreign = attach(world, data_volume(world, offering_id=anywhere(world)), other)
    bound = attach(world, data_volume(world), vm)
    call, name = world.cloud.call, COMMAND
    with refused(world, "neither host nor volumes", 431):
        call(name, virtualmachineid=vm["id"])
    with refused(world, "another VM's volume", 431):
        migrate_with(world, vm, destination, foreign)
    with refused(world, "a volume whose offering's tag the pool lacks", 431):
        migrate_with(world, vm, destination, bound)
    with refused(world, "an entry without a pool", 431):
        call(name, **{"virtualmachineid": vm["id"], "hostid": destination, "migrateto[0].volume": bound["id"]})
    vm = stop(world, vm)
    with refused(world, "a VM that does not run", 431):
        call(name, virtualmachineid=vm["id"], hostid=destination)
