"""Row 8: delete DATA volume. Seen from outside: spec/action-table.md row 8."""

from __future__ import annotations

from harness.observers import World
from scenarios.delayed import DELETE_AFTER, delayed_snapshots, expires
from scenarios.looks import disk_in_domain, fully_attached, gone, refused
from scenarios.registry import scenario
from scenarios.steps import (
    MISSING,
    attach,
    booted_vm,
    data_volume,
    detach,
    host_of,
    idle_vm,
    pool_of,
    setting,
    stop,
    volume_exists,
)


@scenario(8, "detached", "deleting a detached DATA volume")
def delete_detached(world: World) -> None:
    vm = booted_vm(world)
    kept = attach(world, data_volume(world), vm)
    data = attach(world, data_volume(world), vm)
    detach(world, data)
    world.cloud.call("deleteVolume", id=data["id"])
    gone(world, data)
    with world.check("CloudStack no longer shows it"):
        assert not volume_exists(world, str(data["id"]))
    with world.check("the VM's other disk is unharmed"):
        disk_in_domain(host_of(world, vm), vm, kept)


@scenario(8, "allocated", "deleting a DATA volume that was never used")
def delete_allocated(world: World) -> None:
    before = len(world.storpool.volumes())
    data = data_volume(world)
    world.cloud.call("deleteVolume", id=data["id"])
    with world.check("CloudStack no longer shows it"):
        assert not volume_exists(world, str(data["id"]))
    with world.check("StorPool was not touched"):
        assert len(world.storpool.volumes()) == before


@scenario(8, "attached", "an attached volume is refused, and nothing changes")
def attached_is_refused(world: World) -> None:
    vm = booted_vm(world)
    data = attach(world, data_volume(world), vm)
    with refused(world, "deleting a volume of a running VM", 431, 530):
        world.cloud.call("deleteVolume", id=data["id"])
    fully_attached(world, vm, data)
    stop(world, vm)
    with refused(world, "deleting a volume of a stopped VM", 431, 530):
        world.cloud.call("deleteVolume", id=data["id"])


@scenario(8, "delayed", "with a delete-after interval, a snapshot of the volume stays until it expires")
def delayed_delete(world: World) -> None:
    vm = idle_vm(world)
    data = attach(world, data_volume(world), vm)
    detach(world, data)
    with setting(world, DELETE_AFTER, "12", "0", storageid=pool_of(world, data).id):
        before = {str(s["globalId"]) for s in delayed_snapshots(world)}
        world.cloud.call("deleteVolume", id=data["id"])
        expires(world, data, before)
    gone(world, data)


@scenario(8, "destroy", "destroyVolume with expunge deletes as well")
def destroy_volume(world: World) -> None:
    vm = idle_vm(world)
    data = attach(world, data_volume(world), vm)
    detach(world, data)
    world.cloud.call("destroyVolume", id=data["id"], expunge=True)
    gone(world, data)


@scenario(8, "refusals", "what cannot be deleted is refused with a reason")
def refusals(world: World) -> None:
    with refused(world, "a volume that does not exist", 431):
        world.cloud.call("deleteVolume", id=MISSING)
    with refused(world, "an id that is no id", 430, 431):
        world.cloud.call("deleteVolume", id="../../etc")
    data = data_volume(world)
    world.cloud.call("deleteVolume", id=data["id"])
    with refused(world, "deleting twice", 431):
        world.cloud.call("deleteVolume", id=data["id"])
