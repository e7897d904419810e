"""Row 20: revert VM snapshot. Seen from outside: spec/action-table.md row 20."""

from __future__ import annotations

from collections.abc import Sequence

from harness.observers import Json, World
from scenarios import looks, snapshots
from scenarios.looks import fails, fully_attached, fully_detached, refused
from scenarios.registry import scenario
from scenarios.steps import (
    GIB,
    MISSING,
    data_volume,
    disk_offering,
    expunge,
    resize,
    setting,
    start,
    stop,
    tag_vm,
    volume_by_id,
)
from scenarios.vm_snapshots import (
    delete,
    disks_of,
    group_of,
    is_whole,
    on_pool,
    reads_all,
    revert,
    take,
    unchanged,
    vm_snapshot_by_id,
    vm_snapshots_of,
    vm_with_disks,
    write_all,
)

END_SECONDS = 300
"""In which the background task ends what was begun, once StorPool lets it."""


def written_since(world: World) -> tuple[Json, list[Json], Json, list[Json]]:
    """A stopped VM, its disks, a VM snapshot of "before", and the disks on StorPool once the guest wrote "after"."""
    vm, disks = vm_with_disks(world, "before")
    snapshot = take(world, vm)
    write_all(world, vm, disks, "after")
    vm = stop(world, vm)
    return vm, disks, snapshot, on_pool(world, disks)


@scenario(
    20, "stopped", "a stopped VM: every disk has the bytes of the snapshot, once more, and with newer ones around"
)
def stopped(world: World) -> None:
    vm, disks = vm_with_disks(world, "first")
    first = take(world, vm)
    write_all(world, vm, disks, "second")
    second = take(world, vm)
    write_all(world, vm, disks, "third")
    vm = stop(world, vm)
    seen = on_pool(world, disks)
    for snapshot, word in ((first, "first"), (second, "second"), (first, "first")):
        revert(world, snapshot)
        unchanged(world, disks, seen)
        with world.check("it is the current one now"):
            current = {item["id"]: item["current"] for item in vm_snapshots_of(world, vm)}
            assert current == {item["id"]: item is snapshot for item in (first, second)}, current
        for volume in disks:
            fully_detached(world, volume)
        with world.check("nothing is left of what was kept meanwhile"):
            kinds = [(item.get("tags") or {}).get("cs") for item in world.storpool.snapshots() if not item["deleted"]]
            assert "temporary" not in kinds, kinds
        vm = start(world, vm)
        for volume in disks:
            fully_attached(world, vm, volume)
        with world.check(f"the guest boots, and reads {word} on every disk"):
            reads_all(world, vm, disks, word)
        write_all(world, vm, disks, "since")
        vm = stop(world, vm)
    is_whole(world, vm, first, disks)
    is_whole(world, vm, second, disks)


@scenario(20, "attributes", "limits, tags and sizes are those of now, also where they changed since")
def attributes(world: World) -> None:
    limited = disk_offering(world, miniops=100, maxiops=800)
    vm, disks = vm_with_disks(world, "before", data_volume(world, 1, limited), data_volume(world, 2))
    snapshot = take(world, vm)
    write_all(world, vm, disks, "after")
    tag_vm(world, vm, vc_policy="daily")
    vm = stop(world, vm)
    seen = on_pool(world, disks)
    with world.check("limit and policy are there"):
        assert str(seen[1]["iops"]) == "800" and all(item["tags"]["vc-policy"] == "daily" for item in seen), seen
    revert(world, snapshot)
    unchanged(world, disks, seen)
    vm = start(world, vm)
    with world.check("the guest reads what every disk had"):
        reads_all(world, vm, disks, "before")
    delete(world, snapshot)
    larger = resize(world, disks[1], 2)
    after = take(world, vm)
    vm = stop(world, vm)
    revert(world, after)
    vm = start(world, vm)
    with world.check("a disk that was resized before the snapshot keeps that size"):
        assert volume_by_id(world, str(larger["id"]))["size"] == 2 * GIB
    for volume in disks_of(world, vm):
        fully_attached(world, vm, volume)


@scenario(20, "running", "a running VM is refused with CloudStack's reason, and nothing changes")
def running(world: World) -> None:
    vm, disks = vm_with_disks(world, "before")
    snapshot = take(world, vm)
    write_all(world, vm, disks, "after")
    reason = "VM Snapshot revert not allowed. This will result in VM state change."
    with refused(world, "a running VM", 431, saying=reason):
        revert(world, snapshot)
    for volume in disks:
        fully_attached(world, vm, volume)
    with world.check("the guest has what it wrote, and the snapshot is Ready"):
        reads_all(world, vm, disks, "after")
        assert state_of(world, snapshot) == "Ready"


@scenario(20, "lost", "StorPool has lost the snapshot of one disk: no disk is reverted, and it can be deleted")
def lost(world: World) -> None:
    vm, disks, snapshot, seen = written_since(world)
    gone = max(group_of(world, snapshot), key=lambda item: int(item["size"]))
    world.storpool.lose_snapshot("~" + str(gone["globalId"]))
    error = fails(lambda: revert(world, snapshot))
    with world.check("the reason names the disk and the snapshot"):
        assert "gone from StorPool" in error.text and str(snapshot["id"]) in error.text, error.text
    unchanged(world, disks, seen)
    vm = start(world, vm)
    with world.check("every disk has what was written last"):
        reads_all(world, vm, disks, "after")
    delete(world, snapshot)
    with world.check("nothing is left of it"):
        assert group_of(world, snapshot) == [] and vm_snapshots_of(world, vm) == []


@scenario(20, "half-way", "StorPool reverts some disks and not the last: until it does, the VM cannot be started")
def half_way(world: World) -> None:
    vm, disks, snapshot, seen = written_since(world)
    with world.storpool.refusing("VolumeRevert", "~" + looks.global_id(disks[-1])):
        error = fails(lambda: revert(world, snapshot))
        with world.check("the error says that it is not over, and what that means for the VM"):
            assert "cannot be started before" in error.text and str(snapshot["displayname"]) in error.text, error.text
        with world.check("every disk but the last is reverted"):
            assert reverted(world, disks, seen) == [True, True, False], (seen, on_pool(world, disks))
        with world.check("CloudStack says so of the snapshot and of every disk"):
            assert state_of(world, snapshot) == "Reverting", vm_snapshots_of(world, vm)
            assert {volume["state"] for volume in disks_of(world, vm)} == {"RevertSnapshotting"}, disks_of(world, vm)
        with refused(world, "to start the VM", 536, saying="its disks are being reverted to VM snapshot"):
            start(world, vm)
        with refused(world, "to revert once more meanwhile", 536, saying="other active vm snapshot tasks"):
            revert(world, snapshot)
    world.wait_until("it goes on by itself, to its end", lambda: state_of(world, snapshot) == "Ready", END_SECONDS)
    with world.check("every disk is reverted"):
        assert reverted(world, disks, seen) == [True, True, True], (seen, on_pool(world, disks))
    unchanged(world, disks, seen)
    vm = start(world, vm)
    with world.check("the guest boots, and reads what every disk had"):
        reads_all(world, vm, disks, "before")
    write_all(world, vm, disks, "since")
    vm = stop(world, vm)
    revert(world, snapshot)
    unchanged(world, disks, seen)
    vm = start(world, vm)
    with world.check("once more it is reverted at once, and so the guest reads"):
        reads_all(world, vm, disks, "before")
    is_whole(world, vm, snapshot, disks)


@scenario(20, "back", "StorPool cannot revert the last disk: those that were are put back, and the VM starts as it was")
def back(world: World) -> None:
    vm, disks, snapshot, seen = written_since(world)
    with world.storpool.refusing("VolumeRevert", "~" + looks.global_id(disks[-1]), for_good=True):
        error = fails(lambda: revert(world, snapshot))
    with world.check("the error says why, and that nothing has changed"):
        assert "busy" in error.text and "every disk is as it was before" in error.text, error.text
    with world.check("the other disks were reverted, and put back"):
        assert reverted(world, disks, seen) == [True, True, False], (seen, on_pool(world, disks))
        assert state_of(world, snapshot) == "Ready", vm_snapshots_of(world, vm)
    unchanged(world, disks, seen)
    vm = start(world, vm)
    with world.check("the guest boots, and reads what was written last"):
        reads_all(world, vm, disks, "after")
    is_whole(world, vm, snapshot, disks)


def reverted(world: World, disks: Sequence[Json], seen: Sequence[Json]) -> list[bool]:
    """Which of the disks are other StorPool objects than they were when they were `seen`."""
    now = on_pool(world, disks)
    return [new["globalId"] != old["globalId"] for old, new in zip(seen, now, strict=True)]


def state_of(world: World, snapshot: Json) -> str:
    return str(vm_snapshot_by_id(world, str(snapshot["id"]))["state"])


@scenario(20, "mixed", "with a volume snapshot of a disk around: it survives, and is what it was")
def mixed(world: World) -> None:
    vm, disks = vm_with_disks(world, "first")
    with setting(world, snapshots.BACKUP, "false", "true"):
        own = snapshots.take(world, disks[1])
    write_all(world, vm, disks, "second")
    snapshot = take(world, vm)
    write_all(world, vm, disks, "third")
    vm = stop(world, vm)
    revert(world, snapshot)
    snapshots.on_storpool(world, own)
    vm = start(world, vm)
    with world.check("the guest reads the bytes of the VM snapshot"):
        reads_all(world, vm, disks, "second")
    delete(world, snapshot)
    vm = stop(world, vm)
    world.cloud.call("revertSnapshot", id=own["id"])
    vm = start(world, vm)
    with world.check("without VM snapshots the disk can be reverted to its own"):
        reads_all(world, vm, [disks[1]], "first")
        reads_all(world, vm, [disks[0], disks[2]], "second")


@scenario(20, "refusals", "what cannot be reverted to is refused with a reason")
def refusals(world: World) -> None:
    with refused(world, "a VM snapshot that does not exist", 431):
        world.cloud.call("revertToVMSnapshot", vmsnapshotid=MISSING)
    vm, disks = vm_with_disks(world, "before")
    deleted, kept = take(world, vm), take(world, vm, name="kept")
    delete(world, deleted)
    vm = stop(world, vm)
    with refused(world, "one that was deleted", 431):
        revert(world, deleted)
    world.cloud.call("destroyVirtualMachine", id=vm["id"])
    with refused(world, "one of a VM that was destroyed", 431):
        revert(world, kept)
    world.cloud.call("recoverVirtualMachine", id=vm["id"])
    with world.check("a VM that was recovered has its ROOT disk, no VM snapshots, and starts"):
        assert vm_snapshots_of(world, vm) == []
        vm = start(world, looks.reread(world, vm))
        reads_all(world, vm, disks[:1], "before")
    expunge(world, vm)
    looks.gone(world, disks[0])
