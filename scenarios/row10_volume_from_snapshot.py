"""Row 10: create volume from snapshot. Seen from outside: spec/action-table.md row 10."""

from __future__ import annotations

from harness.observers import Json, World
from scenarios import looks
from scenarios.looks import fails, fully_attached, has_tags, has_vm_tags, reread_volume
from scenarios.registry import scenario
from scenarios.row09_volume_snapshot import used_volume
from scenarios.snapshots import (
    BACKUP,
    BLOCK,
    all_on_storpool,
    archive,
    attached_nowhere,
    delete,
    device_holds,
    guest_reads,
    on_storpool,
    stores,
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
    detail,
    disk_offering,
    host_of,
    many,
    one,
    root_volume,
    setting,
    shared_template,
    volume_by_id,
)


def starts_from(world: World, volume: Json, snapshot: Json) -> None:
    with world.check("it starts from the StorPool snapshot: no data was copied"):
        found, parent = looks.on_storpool(world, volume), on_storpool(world, snapshot)
        names = {parent["name"], "~" + str(parent["globalId"])}
        assert found["parentName"] in names, f"starts from {found['parentName']!r}, expected {names}"


def copied(world: World, volume: Json) -> None:
    with world.check("it is a volume of its own, that the backup was copied onto"):
        found = looks.on_storpool(world, volume)
        assert found["parentName"] == "", found
    with world.check("and attached nowhere when that is over"):
        attached_nowhere(world, str(found["globalId"]))


def has_its_bytes(world: World, vm: Json, volume: Json, word: str) -> Json:
    """Attach it, and have the guest and the host read it."""
    attached = attach(world, volume, vm)
    fully_attached(world, vm, attached)
    with world.check("the guest reads the bytes of the snapshot's time"):
        guest_reads(world, vm, attached, word)
    with world.check("so does the host"):
        device_holds(world, vm, attached, word)
    return attached


def fresh(world: World, volume: Json, snapshot: Json, gib: int) -> None:
    with world.check("Ready on the pool, of the new offering's size, of no VM"):
        assert (volume["state"], volume["size"], volume["snapshotid"]) == ("Ready", gib * GIB, snapshot["id"]), volume
        assert "virtualmachineid" not in volume, volume
        assert looks.on_storpool(world, volume)["size"] == gib * GIB
        has_tags(world, volume, cs="volume", uuid=str(volume["id"]), cvm="", disk="")


@scenario(10, "on-primary", "from a snapshot on StorPool: no data copied; larger, in the new offering's tier")
def on_primary(world: World) -> None:
    vm, volume = used_volume(world, "old")
    snapshot = take(world, volume)
    write(world, vm, volume, "new")
    offering = disk_offering(world, miniops=100, maxiops=700)
    detail(world, "DiskOffering", offering, "SP_QOSCLASS", "gold")
    made = volume_from(world, snapshot, offering, 3)
    fresh(world, made, snapshot, 3)
    starts_from(world, made, snapshot)
    with world.check("in the new offering's tier, which says the limit"):
        has_tags(world, made, qc="gold")
        assert looks.on_storpool(world, made)["iops"] == "-", looks.on_storpool(world, made)
    attached = has_its_bytes(world, vm, made, "old")
    with world.check("beyond the snapshot's size there are zeros"):
        end = host_of(world, vm).read_device(str(attached["path"]), 3 * GIB - BLOCK, BLOCK)
        assert end == bytes(BLOCK), end[:32]
    with world.check("the old volume has its own bytes"):
        guest_reads(world, vm, volume, "new")


@scenario(10, "from-secondary", "from a snapshot that is on secondary storage only: brought back")
def from_secondary(world: World) -> None:
    vm, volume = used_volume(world, "old")
    snapshot = archive(world, take(world, volume))
    write(world, vm, volume, "new")
    with world.check("the snapshot is not on StorPool"):
        assert all_on_storpool(world, snapshot) == []
        assert stores(world, snapshot) == ["Image"], stores(world, snapshot)
    offering = disk_offering(world, miniops=100, maxiops=600)
    made = volume_from(world, snapshot, offering, 2)
    fresh(world, made, snapshot, 2)
    copied(world, made)
    with world.check("with the new offering's limit"):
        assert str(looks.on_storpool(world, made)["iops"]) == "600"
    attached = has_its_bytes(world, vm, made, "old")
    with world.check("beyond the snapshot's size there are zeros"):
        end = host_of(world, vm).read_device(str(attached["path"]), 2 * GIB - BLOCK, BLOCK)
        assert end == bytes(BLOCK), end[:32]
    with world.check("no StorPool snapshot came back, and no helper stays"):
        assert all_on_storpool(world, snapshot) == []


@scenario(10, "lost", "StorPool has lost the snapshot: brought back from its backup, or a clear error without one")
def lost(world: World) -> None:
    vm, volume = used_volume(world, "old")
    snapshot = take(world, volume)
    with setting(world, BACKUP, "false", "true"):
        only_there = take(world, volume)
    write(world, vm, volume, "new")
    for each in (snapshot, only_there):
        world.storpool.lose_snapshot("~" + str(on_storpool(world, each)["globalId"]))
    made = volume_from(world, snapshot)
    fresh(world, made, snapshot, 1)
    copied(world, made)
    has_its_bytes(world, vm, made, "old")
    before = len(world.storpool.volumes())
    error = fails(lambda: volume_from(world, only_there))
    with world.check("without a backup: the reason, and no volume"):
        assert "gone" in error.text, error.text
        assert len(world.storpool.volumes()) == before
        names = [v for v in many(world.cloud.call("listVolumes", listall=True), "volume") if v["state"] == "Creating"]
        assert names == [], names


@scenario(10, "secondary-away", "secondary storage is away: a clear error, nothing stays, and later it works")
def secondary_away(world: World) -> None:
    vm, volume = used_volume(world, "old")
    snapshot = archive(world, take(world, volume))
    before = {str(v["globalId"]) for v in world.storpool.volumes()}
    with world.secondary.unreachable():
        error = fails(lambda: volume_from(world, snapshot))
    with world.check("the error names the image store"):
        assert "image store" in error.text, error.text
    with world.check("no volume stays on StorPool"):
        left = {str(v["globalId"]) for v in world.storpool.volumes()} - before
        assert left == set(), left
    made = volume_from(world, snapshot)
    copied(world, made)
    has_its_bytes(world, vm, made, "old")


@scenario(10, "orphaned", "from the snapshot of a volume that was deleted")
def orphaned(world: World) -> None:
    vm, volume = used_volume(world, "old")
    with setting(world, BACKUP, "false", "true"):
        snapshot = take(world, volume)
    detach(world, volume)
    world.cloud.call("deleteVolume", id=volume["id"])
    made = volume_from(world, snapshot)
    fresh(world, made, snapshot, 1)
    has_its_bytes(world, vm, made, "old")
    delete(world, snapshot)
    with world.check("its bytes outlive the snapshot"):
        guest_reads(world, vm, reread_volume(world, made), "old")


@scenario(10, "several", "several volumes at once, each its own")
def several(world: World) -> None:
    vm, volume = used_volume(world, "old")
    snapshot, stored = take(world, volume), archive(world, take(world, volume))
    offering = disk_offering(world)
    jobs = [
        world.cloud.start(
            "createVolume", name=world.name("many"), snapshotid=item["id"], diskofferingid=offering, size=1
        )
        for item in (snapshot, snapshot, stored, stored)
    ]
    made = [volume_by_id(world, str(one(world.cloud.wait(job), "volume")["id"])) for job in jobs]
    with world.check("four volumes of their own"):
        assert len({v["path"] for v in made}) == 4, made
    for each in (made[0], made[2]):
        attached = attach(world, each, vm)
        write(world, vm, attached, "mine")
    for each in (made[1], made[3]):
        has_its_bytes(world, vm, each, "old")


@scenario(10, "root", "deploy a VM from a ROOT volume's snapshot, on StorPool and on secondary storage only")
def root(world: World) -> None:
    source = deploy(world, shared_template(world), rootdisksize=2)
    volume = root_volume(world, str(source["id"]))
    world.guest(str(source["id"])).boot_id()
    write(world, source, volume, "old", (GIB,))
    snapshot, stored = take(world, volume), archive(world, take(world, volume))
    for each in (snapshot, stored):
        vm = deploy(world, snapshotid=each["id"])
        made = root_volume(world, str(vm["id"]))
        with world.check("the guest boots, and has the bytes"):
            assert world.guest(str(vm["id"])).boot_id()
            guest_reads(world, vm, made, "old", (GIB,))
        with world.check("tags name the new VM and volume"):
            has_vm_tags(world, vm, made)


@scenario(10, "refusals", "what no volume can be made from is refused with a reason")
def refusals(world: World) -> None:
    _, volume = used_volume(world, "old")
    snapshot = take(world, volume)
    delete(world, snapshot)
    offering = disk_offering(world)
    for why, snapshot_id in (("that was deleted", snapshot["id"]), ("that does not exist", MISSING)):
        with looks.refused(world, f"a snapshot {why}", 431):
            world.cloud.call("createVolume", name=world.name("no"), snapshotid=snapshot_id, diskofferingid=offering)
