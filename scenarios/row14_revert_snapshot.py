"""Row 14: revert volume to snapshot. Seen from outside: spec/action-table.md row 14."""

from __future__ import annotations

from harness.observers import Json, World
from scenarios import looks
from scenarios.looks import fails, fully_attached, fully_detached, refused, reread_volume
from scenarios.registry import scenario
from scenarios.row09_volume_snapshot import used_volume
from scenarios.snapshots import (
    BACKUP,
    archive,
    delete,
    device_holds,
    file_holds,
    guest_reads,
    on_storpool,
    take,
    volume_from,
    write,
)
from scenarios.steps import (
    GIB,
    MISSING,
    attach,
    deploy,
    detach,
    disk_offering,
    root_volume,
    setting,
    shared_template,
    start,
    stop,
)


def revert(world: World, snapshot: Json) -> None:
    world.cloud.call("revertSnapshot", id=snapshot["id"])


def kept(world: World, before: Json, seen: Json) -> Json:
    """Path, offering, slot and VM in CloudStack; tags, limit and template on StorPool."""
    names = ("path", "diskofferingid", "virtualmachineid", "deviceid", "storageid", "state", "name")
    now = reread_volume(world, before)
    with world.check("nothing else of CloudStack's record changed, the path neither"):
        assert {n: now.get(n) for n in names} == {n: before.get(n) for n in names}, (before, now)
    with world.check("the path leads to the volume, with its tags, limit and template"):
        after = looks.on_storpool(world, now)
        for name in ("tags", "iops", "bw", "templateName"):
            assert after.get(name) == seen.get(name), f"{name} was {seen.get(name)}, is {after.get(name)}"
        assert after["size"] == now["size"], (after, now)
    return now


@scenario(14, "stopped", "DATA volume of a stopped VM: the bytes of the snapshot, once more and with newer snapshots")
def stopped(world: World) -> None:
    vm, volume = used_volume(world, "first")
    first = take(world, volume)
    write(world, vm, volume, "second")
    with setting(world, BACKUP, "false", "true"):
        second = take(world, volume)
    write(world, vm, volume, "third")
    stop(world, vm)
    before = reread_volume(world, volume)
    seen = looks.on_storpool(world, before)
    for snapshot, word in ((first, "first"), (second, "second"), (first, "first")):
        revert(world, snapshot)
        volume = kept(world, before, seen)
        fully_detached(world, volume)
        vm = start(world, vm)
        fully_attached(world, vm, volume)
        with world.check(f"the guest and the host read {word}"):
            guest_reads(world, vm, volume, word)
            device_holds(world, vm, volume, word)
        write(world, vm, volume, "since")
        stop(world, vm)
    with world.check("older and newer snapshots survive"):
        for snapshot in (first, second):
            assert on_storpool(world, snapshot)["size"] == volume["size"]
        file_holds(world, first, "first")
    vm = start(world, vm)
    made = attach(world, volume_from(world, second), vm)
    with world.check("the newer snapshot still has its bytes"):
        guest_reads(world, vm, made, "second")


@scenario(14, "detached", "detached DATA volume, and what is made of it afterwards")
def detached(world: World) -> None:
    vm, volume = used_volume(world, "old")
    snapshot = take(world, volume)
    write(world, vm, volume, "new")
    volume = detach(world, volume)
    seen = looks.on_storpool(world, volume)
    revert(world, snapshot)
    volume = kept(world, volume, seen)
    after = attach(world, volume, vm)
    fully_attached(world, vm, after)
    with world.check("the guest reads the bytes of the snapshot"):
        guest_reads(world, vm, after, "old")
    write(world, vm, after, "newest")
    newest = take(world, after)
    with world.check("a snapshot after the revert has what was written after it"):
        file_holds(world, newest, "newest")
    delete(world, snapshot)
    with world.check("deleting the snapshot leaves the volume unharmed"):
        guest_reads(world, vm, after, "newest")
    detach(world, after)
    world.cloud.call("deleteVolume", id=after["id"])
    looks.gone(world, after)


@scenario(14, "root", "ROOT volume of a stopped VM: it boots with the bytes of the snapshot")
def root(world: World) -> None:
    vm = deploy(world, shared_template(world), rootdisksize=2)
    volume = root_volume(world, str(vm["id"]))
    world.guest(str(vm["id"])).boot_id()
    write(world, vm, volume, "old", (GIB,))
    snapshot = take(world, volume)
    write(world, vm, volume, "new", (GIB,))
    stop(world, vm)
    before = reread_volume(world, volume)
    seen = looks.on_storpool(world, before)
    revert(world, snapshot)
    volume = kept(world, before, seen)
    vm = start(world, vm)
    with world.check("the guest boots, and reads the bytes of the snapshot"):
        assert world.guest(str(vm["id"])).boot_id()
        guest_reads(world, vm, volume, "old", (GIB,))


@scenario(14, "new-volume", "a volume that was made a moment ago, with a limit of its own")
def new_volume(world: World) -> None:
    vm, volume = used_volume(world, "old")
    snapshot = take(world, volume)
    made = attach(world, volume_from(world, snapshot, disk_offering(world, miniops=100, maxiops=800), 2), vm)
    with setting(world, BACKUP, "false", "true"):
        own = take(world, made)
    write(world, vm, made, "new")
    made = detach(world, made)
    seen = looks.on_storpool(world, made)
    revert(world, own)
    made = kept(world, made, seen)
    with world.check("the limit is there"):
        assert str(looks.on_storpool(world, made)["iops"]) == "800"
    made = attach(world, made, vm)
    with world.check("the guest reads the bytes of the snapshot"):
        guest_reads(world, vm, made, "old")


@scenario(14, "running", "a running VM is refused, and nothing changes")
def running(world: World) -> None:
    vm, volume = used_volume(world, "old")
    snapshot = take(world, volume)
    write(world, vm, volume, "new")
    reason = "The VM the specified disk attached to is not in the shutdown state."
    with refused(world, "the volume of a running VM", 431, saying=reason):
        revert(world, snapshot)
    fully_attached(world, vm, volume)
    with world.check("the guest has what it wrote"):
        guest_reads(world, vm, volume, "new")


@scenario(14, "lost", "a snapshot that StorPool has lost, or is on secondary storage only: the volume stays as it is")
def lost(world: World) -> None:
    vm, volume = used_volume(world, "old")
    snapshot, stored = take(world, volume), archive(world, take(world, volume))
    write(world, vm, volume, "new")
    detach(world, volume)
    world.storpool.lose_snapshot("~" + str(on_storpool(world, snapshot)["globalId"]))
    before = reread_volume(world, volume)
    seen = looks.on_storpool(world, before)
    error = fails(lambda: revert(world, snapshot))
    with world.check("the reason names what is gone"):
        assert "gone from StorPool" in error.text and str(snapshot["id"]) in error.text, error.text
    with refused(world, "a snapshot on secondary storage only", 431):
        revert(world, stored)
    volume = kept(world, before, seen)
    volume = attach(world, volume, vm)
    with world.check("the volume has what was written last"):
        guest_reads(world, vm, volume, "new")


@scenario(14, "refusals", "what cannot be reverted is refused with a reason")
def refusals(world: World) -> None:
    with refused(world, "a snapshot that does not exist", 431):
        world.cloud.call("revertSnapshot", id=MISSING)
    _, volume = used_volume(world, "old")
    snapshot, deleted = take(world, volume), take(world, volume)
    delete(world, deleted)
    detach(world, volume)
    with refused(world, "a snapshot that was deleted", 431):
        revert(world, deleted)
    world.cloud.call("deleteVolume", id=volume["id"])
    with refused(world, "a volume that was deleted", 431):
        revert(world, snapshot)
