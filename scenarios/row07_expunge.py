"""Row 7: delete ROOT volume (expunge VM). Seen from outside: spec/action-table.md row 7."""

from __future__ import annotations

from harness.observers import World
from scenarios.delayed import DELETE_AFTER, delayed_snapshots, expires
from scenarios.looks import fully_attached, fully_detached, gone, has_tags, on_storpool, refused, serial
from scenarios.registry import scenario
from scenarios.steps import (
    MISSING,
    attach,
    data_volume,
    deploy,
    expunge,
    host_of,
    idle_vm,
    pool_of,
    root_volume,
    running_vm,
    setting,
    shared_template,
    stop,
    vm_by_id,
    vm_exists,
    volume_exists,
)


@scenario(7, "running", "expunging a running VM deletes its ROOT volume")
def expunge_running(world: World) -> None:
    vm = idle_vm(world)
    root, host = root_volume(world, str(vm["id"])), host_of(world, vm)
    expunge(world, vm)
    gone(world, root)
    with world.check("no domain on any host"):
        assert str(vm["instancename"]) not in host.domains(), host.domains()
    with world.check("CloudStack shows neither VM nor volume"):
        assert not vm_exists(world, str(vm["id"]))
        assert not volume_exists(world, str(root["id"]))


@scenario(7, "stopped", "expunging a stopped VM deletes its ROOT volume and no other's")
def expunge_stopped(world: World) -> None:
    template_id = shared_template(world)
    vm, other = deploy(world, template_id), deploy(world, template_id)
    root = root_volume(world, str(vm["id"]))
    world.guest(str(vm["id"])).boot_id()
    stop(world, vm)
    expunge(world, vm)
    gone(world, root)
    with world.check("the template's other VM is unharmed"):
        fully_attached(world, other, root_volume(world, str(other["id"])))


@scenario(7, "destroy-then-expunge", "a destroyed VM keeps its ROOT volume until it is expunged")
def destroy_then_expunge(world: World) -> None:
    vm = idle_vm(world)
    root = root_volume(world, str(vm["id"]))
    world.cloud.call("destroyVirtualMachine", id=vm["id"])
    with world.check("Destroyed, its volume still on StorPool but attached nowhere"):
        assert vm_by_id(world, str(vm["id"]))["state"] == "Destroyed"
        on_storpool(world, root)
    fully_detached(world, root)
    world.cloud.call("expungeVirtualMachine", id=vm["id"])
    gone(world, root)


@scenario(7, "data-survives", "DATA volumes survive the VM, with their bytes and without its tags")
def data_survives(world: World) -> None:
    template_id = shared_template(world)
    vm = deploy(world, template_id)
    guest = world.guest(str(vm["id"]))
    guest.boot_id()
    data = attach(world, data_volume(world), vm)
    mark = b"outlives its VM".ljust(4096, b"%")
    guest.write(serial(data), 0, mark)
    root = root_volume(world, str(vm["id"]))
    expunge(world, vm)
    gone(world, root)
    fully_detached(world, data)
    with world.check("the DATA volume has no tags of the VM"):
        has_tags(world, data, cvm="", disk="", vc_policy="", uuid=str(data["id"]), cs="volume")
    with world.check("CloudStack: the DATA volume is free"):
        assert volume_exists(world, str(data["id"]))
    heir = deploy(world, template_id)
    world.guest(str(heir["id"])).boot_id()
    attach(world, data, heir)
    with world.check("another VM reads its bytes"):
        seen = world.guest(str(heir["id"])).read(serial(data), 0, len(mark))
        assert seen == mark, f"read {seen[:32]!r}"


@scenario(7, "delayed", "with a delete-after interval, a snapshot of the ROOT volume stays until it expires")
def delayed_delete(world: World) -> None:
    vm = idle_vm(world)
    root = root_volume(world, str(vm["id"]))
    with setting(world, DELETE_AFTER, "12", "0", storageid=pool_of(world, root).id):
        before = {str(s["globalId"]) for s in delayed_snapshots(world)}
        expunge(world, vm)
        expires(world, root, before)
    gone(world, root)


@scenario(7, "refusals", "what cannot be expunged is refused with a reason, and nothing changes")
def refusals(world: World) -> None:
    vm = running_vm(world)
    with refused(world, "a VM that does not exist", 431):
        world.cloud.call("destroyVirtualMachine", id=MISSING, expunge=True)
    with refused(world, "expunging a VM that was not destroyed", 431, 530):
        world.cloud.call("expungeVirtualMachine", id=vm["id"])
    root = root_volume(world, str(vm["id"]))
    with refused(world, "deleting the ROOT volume of a VM", 431, 530):
        world.cloud.call("deleteVolume", id=root["id"])
