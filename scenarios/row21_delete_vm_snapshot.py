"""Row 21: delete VM snapshot. Seen from outside: spec/action-table.md row 21."""

from __future__ import annotations

from harness.observers import World
from scenarios import looks
from scenarios.looks import fully_attached, refused
from scenarios.registry import scenario
from scenarios.snapshots import guest_reads
from scenarios.steps import MISSING, attach, booted_vm, expunge, start, stop, volume_by_id
from scenarios.vm_snapshots import (
    delete,
    group_of,
    is_whole,
    nothing_left,
    on_pool,
    reads_all,
    revert,
    take,
    unchanged,
    vm_snapshots_of,
    vm_with_disks,
    write_all,
)


@scenario(
    21, "running", "a VM snapshot of a running VM: all its StorPool snapshots gone, the disks unharmed; once more"
)
def running(world: World) -> None:
    vm, disks = vm_with_disks(world, "before")
    snapshot = take(world, vm)
    write_all(world, vm, disks, "after")
    seen = on_pool(world, disks)
    delete(world, snapshot)
    nothing_left(world, snapshot)
    unchanged(world, disks, seen)
    for volume in disks:
        fully_attached(world, vm, volume)
    with world.check("the guest has what it wrote"):
        reads_all(world, vm, disks, "after")
    with world.check("deleting it again succeeds"):
        delete(world, snapshot)


@scenario(21, "chain", "the middle one of three, then the last: the others are whole, and can be reverted to")
def chain(world: World) -> None:
    vm, disks = vm_with_disks(world, "first")
    first = take(world, vm, name="first")
    write_all(world, vm, disks, "second")
    second = take(world, vm, name="second")
    write_all(world, vm, disks, "third")
    third = take(world, vm, name="third")
    delete(world, second)
    nothing_left(world, second)
    with world.check("the child of the deleted one is its parent's now"):
        by_id = {item["id"]: item for item in vm_snapshots_of(world, vm)}
        assert set(by_id) == {first["id"], third["id"]} and by_id[third["id"]]["parent"] == first["id"], by_id
    delete(world, third)
    nothing_left(world, third)
    with world.check("the parent of the current one that was deleted is the current one"):
        assert [(item["id"], item["current"]) for item in vm_snapshots_of(world, vm)] == [(first["id"], True)]
    is_whole(world, vm, first, disks)
    vm = stop(world, vm)
    revert(world, first)
    delete(world, first)
    nothing_left(world, first)
    vm = start(world, vm)
    with world.check("disks that came from a deleted one have its bytes"):
        reads_all(world, vm, disks, "first")


@scenario(
    21, "lost", "StorPool has lost some of its snapshots, or all: it is deleted all the same (#13972, #9369, #5297)"
)
def lost(world: World) -> None:
    vm, disks = vm_with_disks(world, "before")
    for losing in (1, len(disks)):
        snapshot = take(world, vm)
        for item in group_of(world, snapshot)[:losing]:
            world.storpool.lose_snapshot("~" + str(item["globalId"]))
        delete(world, snapshot)
        nothing_left(world, snapshot)
    with world.check("the guest has what it wrote"):
        reads_all(world, vm, disks, "before")


@scenario(21, "detached", "of a VM that is destroyed, whose DATA disks are detached then: all gone, the disks survive")
def detached(world: World) -> None:
    vm, disks = vm_with_disks(world, "before")
    first = take(world, vm)
    second = take(world, vm, name="second")
    world.cloud.call("destroyVirtualMachine", id=vm["id"])
    for snapshot in (first, second):
        nothing_left(world, snapshot)
    expunge(world, vm)
    looks.gone(world, disks[0])
    other = booted_vm(world)
    for volume in disks[1:]:
        with world.check("the DATA disk is nobody's, and another VM reads its bytes"):
            assert "virtualmachineid" not in volume_by_id(world, str(volume["id"]))
            guest_reads(world, other, attach(world, volume, other), "before")


@scenario(21, "refusals", "what cannot be deleted is refused with a reason")
def refusals(world: World) -> None:
    with refused(world, "a VM snapshot that does not exist", 431):
        world.cloud.call("deleteVMSnapshot", vmsnapshotid=MISSING)
