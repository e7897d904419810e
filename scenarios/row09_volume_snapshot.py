"""Row 9: create ROOT/DATA volume snapshot. Seen from outside: spec/action-table.md row 9."""

from __future__ import annotations

from contextlib import ExitStack

from harness.observers import Json, World
from scenarios.looks import fails, fully_attached, refused, reread_volume
from scenarios.registry import scenario
from scenarios.snapshots import (
    BACKUP,
    BACKUP_SECONDS,
    PLACES,
    RETRY,
    RETRY_INTERVAL,
    archive,
    attached_nowhere,
    device_holds,
    file_holds,
    files_of,
    guest_reads,
    on_storpool,
    snapshot_by_id,
    snapshots_of,
    state_of,
    stores,
    take,
    write,
)
from scenarios.steps import (
    GIB,
    MISSING,
    attach,
    booted_vm,
    data_volume,
    deploy,
    detach,
    one,
    root_volume,
    running_vm,
    setting,
    shared_template,
    stop,
)


def used_volume(world: World, word: str) -> tuple[Json, Json]:
    """A running VM and a DATA volume of it that its guest wrote the word to."""
    vm = booted_vm(world)
    data = attach(world, data_volume(world), vm)
    write(world, vm, data, word)
    return vm, data


def looks_right(world: World, volume: Json, snapshot: Json, vm: Json | None) -> None:
    """CloudStack's record, and the object on StorPool with its tags; attached nowhere."""
    with world.check("CloudStack: BackedUp, of the volume and its size"):
        seen = (snapshot["state"], snapshot["volumeid"], snapshot["virtualsize"])
        assert seen == ("BackedUp", volume["id"], volume["size"]), snapshot
        assert reread_volume(world, volume)["state"] == "Ready"
    with world.check("one StorPool snapshot of the volume's size, on its template"):
        found = on_storpool(world, snapshot)
        source = world.storpool.volume("~" + str(volume["path"]).rpartition("/")[2])
        assert source is not None, volume
        assert (found["size"], found["templateName"]) == (volume["size"], source["templateName"]), found
    with world.check("its tags are cs, uuid and cvm, and no vc-policy"):
        tags = {key: value for key, value in (found.get("tags") or {}).items() if value}
        wanted = {"cs": "snapshot", "uuid": snapshot["id"]} | ({"cvm": vm["id"]} if vm else {})
        assert tags == wanted, tags
    with world.check("it is attached nowhere"):
        attached_nowhere(world, str(found["globalId"]))


def on_primary_only(world: World, snapshot: Json) -> None:
    with world.check("nothing on secondary storage"):
        assert files_of(world, snapshot) == [], world.secondary.backups()
        assert stores(world, snapshot) == ["Primary"], stores(world, snapshot)


@scenario(9, "data", "snapshot of a running VM's DATA volume, with its backup")
def data(world: World) -> None:
    vm, volume = used_volume(world, "before")
    snapshot = take(world, volume)
    write(world, vm, volume, "after")
    looks_right(world, volume, snapshot, vm)
    with world.check("a qcow2 on secondary storage with the bytes of that time"):
        assert stores(world, snapshot) == ["Image", "Primary"], stores(world, snapshot)
        file_holds(world, snapshot, "before")
    with world.check("the volume goes on with what was written since"):
        guest_reads(world, vm, volume, "after")
        device_holds(world, vm, volume, "after")
    fully_attached(world, vm, volume)


@scenario(9, "root", "snapshot of a ROOT volume, of a running and of a stopped VM")
def root(world: World) -> None:
    vm = deploy(world, shared_template(world), rootdisksize=2)
    volume = root_volume(world, str(vm["id"]))
    world.guest(str(vm["id"])).boot_id()
    places = (GIB, 2 * GIB - PLACES[1] % 4096 - 65536)
    write(world, vm, volume, "running", places)
    running = take(world, volume)
    write(world, vm, volume, "stopped", places)
    vm = stop(world, vm)
    stopped = take(world, volume)
    for snapshot, word in ((running, "running"), (stopped, "stopped")):
        looks_right(world, volume, snapshot, vm)
        with world.check(f"the backup has the bytes of the time when it was {word}"):
            file_holds(world, snapshot, word, places)


@scenario(9, "detached", "snapshot of a detached DATA volume names no VM")
def detached(world: World) -> None:
    vm, volume = used_volume(world, "kept")
    volume = detach(world, volume)
    snapshot = take(world, volume)
    looks_right(world, volume, snapshot, None)
    with world.check("the backup has the volume's bytes"):
        file_holds(world, snapshot, "kept")
    with world.check("the VM runs on"):
        assert world.guest(str(vm["id"])).boot_id()


@scenario(9, "bypass", "with bypass, nothing goes to secondary storage")
def bypass(world: World) -> None:
    vm, volume = used_volume(world, "primary")
    with setting(world, BACKUP, "false", "true"):
        snapshot = take(world, volume, name="only-here")
    looks_right(world, volume, snapshot, vm)
    on_primary_only(world, snapshot)
    with world.check("it has the name that it was given"):
        assert snapshot["name"] == "only-here", snapshot


@scenario(9, "failing-backup", "a failing backup keeps the StorPool snapshot, and can be tried again (#9239)")
def failing_backup(world: World) -> None:
    vm, volume = used_volume(world, "before")
    with world.secondary.unreachable():
        error = fails(lambda: take(world, volume))
    with world.check("the error says what is there, what is not and what to do"):
        for words in ("on primary storage", "not backed up to secondary storage", "archiveSnapshot"):
            assert words in error.text, error.text
    (snapshot,) = snapshots_of(world, volume)
    write(world, vm, volume, "after")
    looks_right(world, volume, snapshot, vm)
    world.wait_until("what was begun on secondary storage is gone", lambda: files_of(world, snapshot) == [], 120)
    on_primary_only(world, snapshot)
    archive(world, snapshot)
    with world.check("tried again, it is on secondary storage with the bytes of the snapshot's time"):
        file_holds(world, snapshot, "before")
        assert stores(world, snapshot) == ["Image"], stores(world, snapshot)


@scenario(9, "async", "an asynchronous backup is tried again by itself until it succeeds")
def asynchronous(world: World) -> None:
    vm, volume = used_volume(world, "before")
    with ExitStack() as settings:
        settings.enter_context(setting(world, RETRY, "100", "3"))
        settings.enter_context(setting(world, RETRY_INTERVAL, "2", "300"))
        with world.secondary.unreachable():
            snapshot = take(world, volume, asyncbackup=True)
            with world.check("the snapshot is there before its backup"):
                assert on_storpool(world, snapshot)["size"] == volume["size"]
                assert snapshot["state"] in ("CreatedOnPrimary", "BackingUp"), snapshot
            write(world, vm, volume, "after")

            def failed_once() -> bool:
                return state_of(world, snapshot) == "BackingUp"

            world.wait_until("a try has begun", failed_once, BACKUP_SECONDS)
        world.wait_until("it is backed up", lambda: "Image" in stores(world, snapshot), BACKUP_SECONDS)
    looks_right(world, volume, snapshot_by_id(world, str(snapshot["id"])), vm)
    world.wait_until("only the good try has a file", lambda: len(files_of(world, snapshot)) == 1, 120)
    with world.check("the backup has the bytes of the snapshot's time"):
        file_holds(world, snapshot, "before")
        assert stores(world, snapshot) == ["Image", "Primary"], stores(world, snapshot)


@scenario(9, "retries-end", "after the last failing try the snapshot stays on primary storage, and serves")
def retries_end(world: World) -> None:
    vm, volume = used_volume(world, "before")
    with ExitStack() as settings:
        settings.enter_context(setting(world, RETRY, "2", "3"))
        settings.enter_context(setting(world, RETRY_INTERVAL, "1", "300"))
        with world.secondary.unreachable():
            snapshot = take(world, volume, asyncbackup=True)

            def given_up() -> bool:
                return state_of(world, snapshot) == "BackedUp"

            world.wait_until("no more tries", given_up, BACKUP_SECONDS)
    looks_right(world, volume, snapshot_by_id(world, str(snapshot["id"])), vm)
    world.wait_until("what was begun on secondary storage is gone", lambda: files_of(world, snapshot) == [], 120)
    on_primary_only(world, snapshot)


@scenario(9, "hosts-cut", "no host reaches StorPool's API: the backup fails clearly, the snapshot is there")
def hosts_cut(world: World) -> None:
    vm, volume = used_volume(world, "before")
    with ExitStack() as cuts:
        for host in world.hosts:
            cuts.enter_context(host.storpool_api_cut())
        error = fails(lambda: take(world, volume))
    with world.check("the error names the cause"):
        assert "not backed up" in error.text and "StorPool API" in error.text, error.text
    (snapshot,) = snapshots_of(world, volume)
    looks_right(world, volume, snapshot, vm)
    on_primary_only(world, snapshot)


@scenario(9, "several", "snapshots of one volume, one after the other and of two volumes at once")
def several(world: World) -> None:
    vm, volume = used_volume(world, "first")
    first = take(world, volume)
    write(world, vm, volume, "second")
    other = attach(world, data_volume(world), vm)
    write(world, vm, other, "other")
    jobs = [world.cloud.start("createSnapshot", volumeid=item["id"]) for item in (volume, other)]
    second, third = [snapshot_by_id(world, str(one(world.cloud.wait(job), "snapshot")["id"])) for job in jobs]
    write(world, vm, volume, "last")
    for of, snapshot, word in ((volume, first, "first"), (volume, second, "second"), (other, third, "other")):
        looks_right(world, of, snapshot, vm)
        with world.check(f"the backup of {word} has its own bytes"):
            file_holds(world, snapshot, word)


@scenario(9, "refusals", "what cannot be taken is refused with a reason")
def refusals(world: World) -> None:
    unused = data_volume(world)
    with refused(world, "a volume that was never used", 431):
        world.cloud.call("createSnapshot", volumeid=unused["id"])
    with refused(world, "a volume that does not exist", 431):
        world.cloud.call("createSnapshot", volumeid=MISSING)
    vm = running_vm(world)
    volume = root_volume(world, str(vm["id"]))
    with refused(world, "a location type, which is for managed storage", 431):
        world.cloud.call("createSnapshot", volumeid=volume["id"], locationtype="PRIMARY")
    with refused(world, "a name of 256 characters", 431):
        world.cloud.call("createSnapshot", volumeid=volume["id"], name="n" * 256)
    with refused(world, "archiving a snapshot that does not exist", 431):
        world.cloud.call("archiveSnapshot", id=MISSING)
