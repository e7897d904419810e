"""Row 12: create template from snapshot. Seen from outside: spec/action-table.md row 12."""

from __future__ import annotations

from functools import partial

from harness.observers import Json, World
from scenarios import templates
from scenarios.looks import fails, serial, template_snapshots
from scenarios.registry import scenario
from scenarios.snapshots import (
    BACKUP,
    BLOCK,
    archive,
    delete,
    guest_reads,
    on_storpool,
    snapshot_exists,
    state_of,
    stores,
    take,
    write,
)
from scenarios.steps import GIB, MISSING, deploy, idle_vm, root_volume, setting, shared_template, stop
from scenarios.templates import (
    BEYOND,
    all_on_storpool,
    boots_with,
    create,
    file_holds,
    from_snapshot,
    looks_right,
    mirror_of,
    names,
    nothing_left,
    objects,
    refused_with,
)


def root_of_running_vm(world: World, word: str) -> tuple[Json, Json]:
    """A running VM with a ROOT disk of 2 GiB that its guest wrote the word to."""
    vm = deploy(world, shared_template(world), rootdisksize=2)
    root = root_volume(world, str(vm["id"]))
    world.guest(str(vm["id"])).boot_id()
    write(world, vm, root, word, BEYOND)
    return vm, root


def on_primary_only(world: World, volume: Json) -> Json:
    with setting(world, BACKUP, "false", "true"):
        return take(world, volume)


def goes_on(world: World, vm: Json, volume: Json, snapshot: Json) -> None:
    with world.check("the snapshot is as it was, and the VM goes on with its own bytes"):
        assert state_of(world, snapshot) == "BackedUp"
        guest_reads(world, vm, volume, "new", BEYOND)


@scenario(12, "on-primary", "from a snapshot that is on StorPool only, of a running VM's ROOT volume")
def on_primary(world: World) -> None:
    vm, volume = root_of_running_vm(world, "old")
    snapshot = on_primary_only(world, volume)
    write(world, vm, volume, "new", BEYOND)
    made = from_snapshot(world, snapshot)
    looks_right(world, made, int(volume["size"]))
    with world.check("one StorPool snapshot of its own, and no helper stays"):
        found = mirror_of(world, made)
        assert found["size"] == volume["size"] and len(all_on_storpool(world, made)) == 1, found
        assert found["globalId"] != on_storpool(world, snapshot)["globalId"]
    with world.check("the qcow2 has the bytes of the snapshot's time"):
        file_holds(world, made, "old", BEYOND)
    with world.secondary.unreachable():
        boots_with(world, made, "old")
    goes_on(world, vm, volume, snapshot)


@scenario(12, "backed-up", "from a snapshot that is on both stores")
def backed_up(world: World) -> None:
    vm, volume = root_of_running_vm(world, "old")
    snapshot = take(world, volume)
    write(world, vm, volume, "new", BEYOND)
    made = from_snapshot(world, snapshot)
    looks_right(world, made, int(volume["size"]))
    with world.check("qcow2 and StorPool snapshot of its own, with the bytes of the snapshot's time"):
        mirror_of(world, made)
        file_holds(world, made, "old", BEYOND)
        assert stores(world, snapshot) == ["Image", "Primary"]
    boots_with(world, made, "old")
    goes_on(world, vm, volume, snapshot)


@scenario(12, "secondary-only", "from a snapshot on secondary storage only: nothing on StorPool until the first use")
def secondary_only(world: World) -> None:
    vm, volume = root_of_running_vm(world, "old")
    snapshot = archive(world, take(world, volume))
    write(world, vm, volume, "new", BEYOND)
    made = from_snapshot(world, snapshot)
    looks_right(world, made, int(volume["size"]))
    with world.check("the qcow2 has the bytes of the snapshot's time"):
        file_holds(world, made, "old", BEYOND)
    with world.check("nothing of it is on StorPool"):
        assert all_on_storpool(world, made) == [], all_on_storpool(world, made)
    boots_with(world, made, "old")
    with world.check("the first use made one StorPool snapshot, and nothing else stays"):
        assert len(all_on_storpool(world, made)) == len(template_snapshots(world, str(made["id"]))) == 1
    goes_on(world, vm, volume, snapshot)


@scenario(12, "outlives", "the template outlives its snapshot, and the snapshot the template")
def outlives(world: World) -> None:
    vm, volume = root_of_running_vm(world, "old")
    first, second = on_primary_only(world, volume), take(world, volume)
    made = from_snapshot(world, first)
    gone = from_snapshot(world, second)
    delete(world, first)
    templates.delete(world, gone)
    nothing_left(world, gone)
    with world.check("the other template's snapshot is unharmed"):
        assert snapshot_exists(world, second) and on_storpool(world, second)
    boots_with(world, made, "old")
    with world.check("the VM runs on"):
        guest_reads(world, vm, volume, "old", BEYOND)


@scenario(12, "lost", "StorPool has lost the snapshot: from its backup, or a clear error without one")
def lost(world: World) -> None:
    vm, volume = root_of_running_vm(world, "old")
    snapshot, only_there = take(world, volume), on_primary_only(world, volume)
    write(world, vm, volume, "new", BEYOND)
    for each in (snapshot, only_there):
        world.storpool.lose_snapshot("~" + str(on_storpool(world, each)["globalId"]))
    made = from_snapshot(world, snapshot)
    looks_right(world, made, int(volume["size"]))
    with world.check("with its bytes"):
        file_holds(world, made, "old", BEYOND)
        assert all_on_storpool(world, made) == []
    boots_with(world, made, "old")
    before, known, files = objects(world), names(world), world.secondary.files("template")
    error = fails(lambda: from_snapshot(world, only_there))
    with world.check("without a backup: the reason, and nothing stays"):
        assert "gone from StorPool" in error.text, error.text
        assert names(world) == known and world.secondary.files("template") == files
        assert objects(world) <= before


@scenario(12, "secondary-away", "secondary storage is away: a clear error, nothing stays, and later it works")
def secondary_away(world: World) -> None:
    _, volume = root_of_running_vm(world, "old")
    snapshot = on_primary_only(world, volume)
    before, known = objects(world), names(world)
    with world.secondary.unreachable():
        error = fails(lambda: from_snapshot(world, snapshot))
    with world.check("the error says what failed, and nothing stays"):
        assert "Failed to create template" in error.text and "image store" in error.text, error.text
        assert names(world) == known, names(world)
        world.wait_until("nothing of it is on StorPool", lambda: objects(world) <= before, 120)
    made = from_snapshot(world, snapshot)
    with world.check("made again, it has the bytes"):
        file_holds(world, made, "old", BEYOND)


@scenario(12, "smaller", "a snapshot from before its volume grew gives a template of its own size")
def smaller(world: World) -> None:
    vm, volume = root_of_running_vm(world, "old")
    snapshot = on_primary_only(world, volume)
    stop(world, vm)
    world.cloud.call("resizeVolume", id=volume["id"], size=3)
    made = from_snapshot(world, snapshot)
    looks_right(world, made, 2 * GIB)
    larger = deploy(world, str(made["id"]), rootdisksize=4)
    disk = root_volume(world, str(larger["id"]))
    with world.check("a larger ROOT disk from it has its bytes, and its size"):
        assert disk["size"] == 4 * GIB, disk
        guest = world.guest(str(larger["id"]))
        assert guest.boot_id()
        guest_reads(world, larger, disk, "old", BEYOND)
        assert guest.read(serial(disk), 4 * GIB - BLOCK, BLOCK) == bytes(BLOCK)


@scenario(12, "refusals", "what no template can be made from is refused with a reason")
def refusals(world: World) -> None:
    volume = root_volume(world, str(idle_vm(world)["id"]))
    snapshot = on_primary_only(world, volume)
    delete(world, snapshot)
    for why, snapshot_id in (("that was deleted", str(snapshot["id"])), ("that does not exist", MISSING)):
        work = partial(create, world, snapshotid=snapshot_id)
        refused_with(world, f"a snapshot {why}", "entity does not exist", work)
