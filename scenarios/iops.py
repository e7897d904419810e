"""Max IOPS of disk offerings and of system disk offerings. Seen from outside: spec/action-table.md, `iops`."""

from __future__ import annotations

from harness.observers import Json, World
from scenarios.looks import attached, refused, reread_volume
from scenarios.offerings import has_limit
from scenarios.registry import scenario
from scenarios.row15_resize import everywhere, has_size
from scenarios.snapshots import archive, take, volume_from
from scenarios.steps import (
    GIB,
    attach,
    booted_vm,
    change_offering,
    compute_offering,
    data_volume,
    deploy,
    detach,
    disk_offering,
    idle_template,
    idle_vm,
    one,
    resize,
    root_volume,
    running_vm,
    start,
    stop,
    volume_by_id,
)


def limited(world: World, limit: int, **parameters: str | int | bool) -> str:
    return disk_offering(world, miniops=100, maxiops=limit, **parameters)


def limited_compute(world: World, limit: int, **parameters: str | int | bool) -> Json:
    return compute_offering(world, miniops=100, maxiops=limit, **parameters)


@scenario(
    "iops", "from-template", "ROOT volumes of templates have the limit of their system disk offering (weakness 39)"
)
def from_template(world: World) -> None:
    compute, template = limited_compute(world, 800), idle_template(world)
    data = limited(world, 600, disksize=1)
    for limit, more in ((800, {}), (800, {"diskofferingid": data}), (500, {"overridediskofferingid": None})):
        parameters = {key: value or limited(world, 500, disksize=2) for key, value in more.items()}
        vm = deploy(world, template, serviceofferingid=str(compute["id"]), **parameters)
        root = root_volume(world, str(vm["id"]))
        has_limit(world, root, limit)
        attached(world, vm, root)
        for volume in _data_of(world, vm):
            has_limit(world, volume, 600)


@scenario("iops", "from-snapshot", "a volume of a snapshot has the limit of its own offering, or none (weakness 39)")
def from_snapshot(world: World) -> None:
    vm = idle_vm(world)
    source = attach(world, data_volume(world, offering_id=limited(world, 700)), vm)
    has_limit(world, source, 700)
    snapshot = take(world, source)
    has_limit(world, volume_from(world, snapshot, limited(world, 500)), 500)
    has_limit(world, volume_from(world, snapshot), None)
    root_snapshot = take(world, root_volume(world, str(vm["id"])))
    compute = limited_compute(world, 900)
    made = deploy(world, serviceofferingid=str(compute["id"]), snapshotid=str(root_snapshot["id"]))
    has_limit(world, root_volume(world, str(made["id"])), 900)
    archive(world, snapshot)
    with world.check("brought back from secondary storage"):
        has_limit(world, volume_from(world, snapshot, limited(world, 400)), 400)
        has_limit(world, volume_from(world, snapshot), None)


@scenario("iops", "first-use", "DATA volumes have their limit from their first use, attached running or stopped")
def first_use(world: World) -> None:
    vm = idle_vm(world)
    first = attach(world, data_volume(world, offering_id=limited(world, 700)), vm)
    has_limit(world, first, 700)
    custom = disk_offering(world, disksize=1, customizediops=True)
    answer = world.cloud.call(
        "createVolume",
        name=world.name("data"),
        zoneid=world.environment.zone_id,
        diskofferingid=custom,
        miniops=100,
        maxiops=450,
    )
    asked = attach(world, volume_by_id(world, str(one(answer, "volume")["id"])), vm)
    has_limit(world, asked, 450)
    vm = stop(world, vm)
    second = attach(world, data_volume(world, offering_id=limited(world, 300)), vm)
    vm = start(world, vm)
    for volume, limit in ((first, 700), (asked, 450), (second, 300)):
        has_limit(world, volume, limit)
        attached(world, vm, reread_volume(world, volume))
    detach(world, first)
    has_limit(world, first, 700)


@scenario("iops", "changed", "a new offering's limit is there at once; without one there is none (#6902)")
def changed(world: World) -> None:
    vm = booted_vm(world)
    high, low, free = limited(world, 900, disksize=1), limited(world, 300, disksize=1), disk_offering(world, disksize=1)
    data = attach(world, data_volume(world, offering_id=high), vm)
    for offering, limit in ((low, 300), (free, None), (high, 900)):
        change_offering(world, data, offering)
        has_limit(world, data, limit)
    vm = stop(world, vm)
    has_limit(world, change_offering(world, data, low), 300)
    detach(world, data)
    has_limit(world, change_offering(world, data, free), None)
    has_limit(world, resize(world, data, diskofferingid=limited(world, 600, disksize=2)), 600)
    unused = change_offering(world, data_volume(world, offering_id=high), low)
    vm = start(world, vm)
    has_limit(world, attach(world, unused, vm), 300)
    data = attach(world, data, vm)
    everywhere(world, vm, data, 2 * GIB)
    custom = disk_offering(world, disksize=2, customizediops=True)
    has_limit(world, change_offering(world, data, custom, miniops=100, maxiops=350), 350)


@scenario(
    "iops", "root-changed", "a ROOT volume's limit follows its system disk offering: changed, scaled, and removed"
)
def root_changed(world: World) -> None:
    compute = limited_compute(world, 800)
    vm = deploy(world, idle_template(world), serviceofferingid=str(compute["id"]))
    world.guest(str(vm["id"])).ready()
    root = root_volume(world, str(vm["id"]))
    root = change_offering(world, root, str(limited_compute(world, 500)["diskofferingid"]))
    has_limit(world, root, 500)
    attached(world, vm, root)
    vm = stop(world, vm)
    scaled = limited_compute(world, 1200, rootdisksize=3)
    world.cloud.call("scaleVirtualMachine", id=vm["id"], serviceofferingid=scaled["id"])
    has_size(world, root, 3 * GIB)
    has_limit(world, root, 1200)
    world.cloud.call("scaleVirtualMachine", id=vm["id"], serviceofferingid=compute_offering(world)["id"])
    has_limit(world, root, None)
    vm = start(world, vm)
    attached(world, vm, root_volume(world, str(vm["id"])))


@scenario("iops", "kept", "a resize without an offering, a revert, and a stop and start leave the limit alone")
def kept(world: World) -> None:
    vm = idle_vm(world)
    data = attach(world, data_volume(world, offering_id=limited(world, 700)), vm)
    snapshot = take(world, data)
    resize(world, data, 2)
    has_limit(world, data, 700)
    vm = stop(world, vm)
    change_offering(world, data, limited(world, 500), size=2)
    world.cloud.call("revertSnapshot", id=snapshot["id"])
    has_size(world, data, GIB)
    has_limit(world, data, 500)
    vm = start(world, vm)
    has_limit(world, data, 500)
    attached(world, vm, reread_volume(world, data))


@scenario("iops", "refusals", "a minimum above the maximum is refused, and a limit for an offering that has its own")
def refusals(world: World) -> None:
    vm = running_vm(world)
    data = attach(world, data_volume(world, offering_id=limited(world, 700, disksize=1)), vm)
    with refused(world, "an offering with more minimum than maximum IOPS", 431):
        disk_offering(world, disksize=1, miniops=500, maxiops=400)
    custom = disk_offering(world, disksize=1, customizediops=True)
    with refused(world, "a change to more minimum than maximum IOPS", 431, saying="500"):
        change_offering(world, data, custom, miniops=500, maxiops=400)
    with refused(world, "a limit that is no number", 431):
        change_offering(world, data, custom, maxiops="many")
    has_limit(world, data, 700)


def _data_of(world: World, vm: Json) -> list[Json]:
    answer = world.cloud.call("listVolumes", virtualmachineid=vm["id"], type="DATADISK", listall=True)
    return list(answer.get("volume", []))
