"""Row 16: delete snapshot. Seen from outside: spec/action-table.md row 16."""

from __future__ import annotations

from contextlib import ExitStack

from harness.observers import Json, World
from scenarios.looks import fails, fully_attached, refused
from scenarios.registry import scenario
from scenarios.row09_volume_snapshot import used_volume
from scenarios.snapshots import (
    BACKUP,
    BACKUP_SECONDS,
    RETRY,
    RETRY_INTERVAL,
    all_on_storpool,
    archive,
    attached_nowhere,
    delete,
    device_holds,
    file_holds,
    files_of,
    guest_reads,
    on_storpool,
    snapshot_exists,
    state_of,
    stores,
    take,
    volume_from,
    write,
)
from scenarios.steps import MISSING, attach, detach, setting, stop


def gone(world: World, snapshot: Json) -> None:
    """Nothing of it is left anywhere; a backup may go a little later, when its store was away."""
    with world.check("CloudStack no longer shows it"):
        assert not snapshot_exists(world, snapshot)
    with world.check("StorPool snapshot gone"):
        assert all_on_storpool(world, snapshot) == []
    world.wait_until("its backup is gone from secondary storage", lambda: files_of(world, snapshot) == [], 180)


@scenario(16, "backed-up", "snapshot on StorPool and secondary storage; a volume made from it is unharmed")
def backed_up(world: World) -> None:
    vm, volume = used_volume(world, "old")
    kept, snapshot = take(world, volume), take(world, volume)
    write(world, vm, volume, "new")
    newer = take(world, volume)
    made = attach(world, volume_from(world, snapshot), vm)
    gid = str(on_storpool(world, snapshot)["globalId"])
    delete(world, snapshot)
    gone(world, snapshot)
    with world.check("attached nowhere"):
        attached_nowhere(world, gid)
    with world.check("the volume made from it is unharmed"):
        guest_reads(world, vm, made, "old")
        device_holds(world, vm, made, "old")
    with world.check("so is the volume that it was of"):
        guest_reads(world, vm, volume, "new")
    with world.check("older and newer snapshots stay, with their backups"):
        for other, word in ((kept, "old"), (newer, "new")):
            assert on_storpool(world, other)["size"] == volume["size"]
            file_holds(world, other, word)
    fully_attached(world, vm, volume)


@scenario(16, "bypassed", "snapshot that is on StorPool only")
def bypassed(world: World) -> None:
    _, volume = used_volume(world, "old")
    with setting(world, BACKUP, "false", "true"):
        snapshot = take(world, volume)
    delete(world, snapshot)
    gone(world, snapshot)


@scenario(16, "archived", "snapshot that is on secondary storage only")
def archived(world: World) -> None:
    vm, volume = used_volume(world, "old")
    snapshot = archive(world, take(world, volume))
    made = attach(world, volume_from(world, snapshot), vm)
    delete(world, snapshot)
    gone(world, snapshot)
    with world.check("the volume made from it is unharmed"):
        guest_reads(world, vm, made, "old")


@scenario(16, "orphaned", "snapshots of a volume that was deleted (#9855)")
def orphaned(world: World) -> None:
    _, volume = used_volume(world, "old")
    snapshot = take(world, volume)
    detach(world, volume)
    world.cloud.call("deleteVolume", id=volume["id"])
    with world.check("the snapshot outlives its volume"):
        assert on_storpool(world, snapshot)["size"] == volume["size"]
        file_holds(world, snapshot, "old")
    delete(world, snapshot)
    gone(world, snapshot)


@scenario(16, "twice", "deleting twice succeeds, one after the other and at once")
def twice(world: World) -> None:
    _, volume = used_volume(world, "old")
    first, second = take(world, volume), take(world, volume)
    delete(world, first)
    with world.check("again, one after the other"):
        delete(world, first)
    gone(world, first)
    with world.check("two at once"):
        jobs = [world.cloud.start("deleteSnapshot", id=second["id"]) for _ in range(2)]
        for job in jobs:
            world.cloud.wait(job)
    gone(world, second)


@scenario(16, "lost", "deleting what StorPool has lost succeeds, and takes the backup away (#9855)")
def lost(world: World) -> None:
    _, volume = used_volume(world, "old")
    snapshot = take(world, volume)
    world.storpool.lose_snapshot("~" + str(on_storpool(world, snapshot)["globalId"]))
    delete(world, snapshot)
    gone(world, snapshot)


@scenario(16, "secondary-away", "secondary storage is away: the snapshot is deleted, its backup as soon as it can be")
def secondary_away(world: World) -> None:
    _, volume = used_volume(world, "old")
    snapshot = take(world, volume)
    with world.secondary.unreachable():
        delete(world, snapshot)
        with world.check("gone for CloudStack and from StorPool"):
            assert not snapshot_exists(world, snapshot)
            assert all_on_storpool(world, snapshot) == []
    gone(world, snapshot)


@scenario(16, "stopped", "snapshots of a stopped VM's disk, and that VM starts again")
def stopped(world: World) -> None:
    vm, volume = used_volume(world, "old")
    snapshot = take(world, volume)
    stop(world, vm)
    delete(world, snapshot)
    gone(world, snapshot)
    world.cloud.call("startVirtualMachine", id=vm["id"])
    with world.check("the volume has its bytes"):
        guest_reads(world, vm, volume, "old")


@scenario(16, "refusals", "what cannot be deleted is refused with a reason, and nothing changes")
def refusals(world: World) -> None:
    with refused(world, "a snapshot that does not exist", 431):
        world.cloud.call("deleteSnapshot", id=MISSING)
    with refused(world, "an id that is no id", 430, 431):
        world.cloud.call("deleteSnapshot", id="../../etc")
    _, volume = used_volume(world, "old")
    with ExitStack() as settings:
        settings.enter_context(setting(world, RETRY, "100", "3"))
        settings.enter_context(setting(world, RETRY_INTERVAL, "5", "300"))
        with world.secondary.unreachable():
            snapshot = take(world, volume, asyncbackup=True)
            with world.check("one that is being backed up is refused"):
                error = fails(lambda: delete(world, snapshot))
                assert on_storpool(world, snapshot)["size"] == volume["size"]
                assert error.code == 431 and "not BackedUp" in error.text, error
        world.wait_until("it is backed up", lambda: "Image" in stores(world, snapshot), BACKUP_SECONDS)
    with world.check("then it can be deleted"):
        assert state_of(world, snapshot) == "BackedUp"
        delete(world, snapshot)
    gone(world, snapshot)
