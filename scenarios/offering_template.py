"""StorPool templates by SP_TEMPLATE of offerings. Seen from outside: spec/action-table.md, `offering-template`."""

from __future__ import annotations

from harness.observers import World
from scenarios.looks import (
    attached,
    attached_nowhere,
    device_nowhere,
    fully_attached,
    global_id,
    refused,
    reread,
    reread_volume,
    serial,
)
from scenarios.offerings import (
    TEMPLATE,
    compute_with,
    has_limit,
    on_storpool_template,
    on_template,
    other_template,
    own_template,
    with_detail,
)
from scenarios.registry import scenario
from scenarios.row15_resize import everywhere, has_size
from scenarios.snapshots import take, volume_from
from scenarios.steps import (
    GIB,
    attach,
    booted_vm,
    change_offering,
    compute_offering,
    data_volume,
    deploy,
    detach,
    detail,
    disk_offering,
    idle_template,
    idle_vm,
    resize,
    root_volume,
    start,
    stop,
    vm_by_id,
)

MARK = b"written before it moved".ljust(4096, b"-")


@scenario("offering-template", "placed", "volumes are made on the StorPool template of their offering and stay on it")
def placed(world: World) -> None:
    vm = idle_vm(world)
    elsewhere = on_template(world, other_template(world))
    data = attach(world, data_volume(world, offering_id=elsewhere), vm)
    on_storpool_template(world, data, other_template(world))
    attached(world, vm, data)
    snapshot = take(world, data)
    on_storpool_template(world, volume_from(world, snapshot, elsewhere), other_template(world))
    on_storpool_template(world, volume_from(world, snapshot), own_template(world))
    data = attach(world, detach(world, data), vm)
    start(world, stop(world, vm))
    on_storpool_template(world, data, other_template(world))


@scenario(
    "offering-template", "root", "a ROOT volume is on the template of the system offering, or of its compute offering"
)
def root_placed(world: World) -> None:
    by_compute = compute_offering(world)
    detail(world, "ServiceOffering", str(by_compute["id"]), TEMPLATE, other_template(world))
    for compute in (compute_with(world, TEMPLATE, other_template(world)), by_compute):
        vm = deploy(world, idle_template(world), serviceofferingid=str(compute["id"]))
        root = root_volume(world, str(vm["id"]))
        on_storpool_template(world, root, other_template(world))
        attached(world, vm, root)


@scenario("offering-template", "moved", "changeOfferingForVolume moves a volume there and back; path and contents stay")
def moved(world: World) -> None:
    vm = booted_vm(world)
    guest = world.guest(str(vm["id"]))
    elsewhere = on_template(world, other_template(world), disksize=1)
    plain = disk_offering(world, disksize=1)
    data = attach(world, data_volume(world), vm)
    guest.write(serial(data), 0, MARK)
    path = global_id(data)
    data = change_offering(world, data, elsewhere)
    on_storpool_template(world, data, other_template(world))
    everywhere(world, vm, data, GIB)
    with world.check("the same path, and what was written"):
        assert (global_id(data), data["diskofferingid"]) == (path, elsewhere), data
        assert guest.read(serial(data), 0, len(MARK)) == MARK
    on_storpool_template(world, change_offering(world, data, plain), own_template(world))
    vm = stop(world, vm)
    on_storpool_template(world, change_offering(world, data, elsewhere), other_template(world))
    detach(world, data)
    on_storpool_template(world, change_offering(world, data, plain), own_template(world))
    with world.check("nobody has it"):
        attached_nowhere(world, data)
        device_nowhere(world, data)
    larger = on_template(world, other_template(world), disksize=3)
    on_storpool_template(world, change_offering(world, data, larger), other_template(world))
    has_size(world, data, 3 * GIB)
    vm = start(world, vm)
    data = attach(world, data, vm)
    fully_attached(world, vm, data)
    with world.check("what was written is there still"):
        found = world.guest(str(vm["id"])).read(serial(data), 0, len(MARK))
        assert found == MARK, f"the guest reads {found[:32]!r}"


@scenario("offering-template", "root-moved", "a ROOT volume moves under its running guest with a system disk offering")
def root_moved(world: World) -> None:
    vm = booted_vm(world)
    boot = world.guest(str(vm["id"])).boot_id()
    root = root_volume(world, str(vm["id"]))
    compute = compute_with(world, TEMPLATE, other_template(world))
    root = change_offering(world, root, str(compute["diskofferingid"]))
    on_storpool_template(world, root, other_template(world))
    fully_attached(world, vm, root)
    with world.check("the guest was not restarted"):
        assert world.guest(str(vm["id"])).boot_id() == boot


@scenario(
    "offering-template", "stays", "resizeVolume and scaleVirtualMachine take an offering's size, not its template"
)
def stays(world: World) -> None:
    vm = booted_vm(world)
    elsewhere = on_template(world, other_template(world), disksize=2)
    data = resize(world, attach(world, data_volume(world), vm), diskofferingid=elsewhere)
    everywhere(world, vm, data, 2 * GIB)
    with world.check("the offering is the new one"):
        assert data["diskofferingid"] == elsewhere, data
    on_storpool_template(world, data, own_template(world))
    compute = compute_with(world, TEMPLATE, other_template(world), rootdisksize=3)
    detail(world, "ServiceOffering", str(compute["id"]), TEMPLATE, other_template(world))
    vm = stop(world, vm)
    world.cloud.call("scaleVirtualMachine", id=vm["id"], serviceofferingid=compute["id"])
    root = root_volume(world, str(vm["id"]))
    has_size(world, root, 3 * GIB)
    on_storpool_template(world, root, own_template(world))
    with world.check("the VM has its new offering"):
        assert vm_by_id(world, str(vm["id"]))["serviceofferingid"] == compute["id"]
    vm = start(world, vm)
    for volume in (reread_volume(world, data), root_volume(world, str(vm["id"]))):
        fully_attached(world, vm, volume)
        on_storpool_template(world, volume, own_template(world))


@scenario(
    "offering-template", "by-hand", "a volume that somebody moved by hand is not moved back by an attach (weakness 38)"
)
def by_hand(world: World) -> None:
    vm = idle_vm(world)
    data = attach(world, data_volume(world), vm)
    world.storpool.update_volume("~" + global_id(data), template=other_template(world))
    data = attach(world, detach(world, data), vm)
    attached(world, vm, data)
    on_storpool_template(world, data, other_template(world))
    resize(world, data, 2)
    on_storpool_template(world, data, other_template(world))
    world.storpool.update_volume("~" + global_id(data), template=own_template(world))


@scenario("offering-template", "limit", "the StorPool template says the limit, not the offering, however it came there")
def limit(world: World) -> None:
    vm = idle_vm(world)
    elsewhere = on_template(world, other_template(world), disksize=1, maxiops=700, miniops=100)
    limited = disk_offering(world, disksize=1, maxiops=900, miniops=100)
    made = attach(world, data_volume(world, offering_id=elsewhere), vm)
    changed = attach(world, data_volume(world, offering_id=limited), vm)
    has_limit(world, changed, 900)
    change_offering(world, changed, elsewhere)
    restored = volume_from(world, take(world, made), elsewhere)
    for volume in (made, changed, restored):
        on_storpool_template(world, volume, other_template(world))
        with world.check("no limit, as the StorPool template has none"):
            seen = world.storpool.volume("~" + global_id(volume))
            assert seen is not None and seen["iops"] == "-", seen
    has_limit(world, change_offering(world, made, limited), 900)


@scenario(
    "offering-template", "refusals", "what cannot be placed or moved is refused with a reason, and nothing changes"
)
def refusals(world: World) -> None:
    vm = idle_vm(world)
    data, root = attach(world, data_volume(world), vm), root_volume(world, str(vm["id"]))
    missing = with_detail(world, TEMPLATE, world.name("no-such-template"), disksize=1)
    elsewhere = on_template(world, other_template(world), disksize=8)
    system = compute_with(world, TEMPLATE, other_template(world))
    unused = data_volume(world, offering_id=missing)
    with refused(world, "a plain disk offering for a ROOT volume", 431, saying="system disk offering"):
        change_offering(world, root, elsewhere)
    with refused(world, "a system disk offering for a DATA volume", 431, saying="DATA disk"):
        change_offering(world, data, str(system["diskofferingid"]))
    with refused(world, "a StorPool template that does not exist", 431, 530, saying="no-such-template"):
        change_offering(world, data, missing)
    with refused(world, "making a volume on a StorPool template that does not exist", 431, 530, 533):
        attach(world, unused, vm)
    with world.check("the VM runs on with its disks"):
        assert reread(world, vm)["state"] == "Running"
    for volume in (data, root):
        attached(world, vm, reread_volume(world, volume))
        on_storpool_template(world, volume, own_template(world))
