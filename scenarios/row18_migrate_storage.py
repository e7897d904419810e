"""Row 18: migrate a volume, or a stopped VM, to other storage. Seen from outside: spec/action-table.md row 18."""

from __future__ import annotations

from harness.observers import Json, World
from scenarios import looks
from scenarios.copies import slow_copies
from scenarios.looks import fails, fully_attached, guest_sees, has_tags, refused, reread, reread_volume, serial
from scenarios.registry import scenario
from scenarios.snapshots import (
    BACKUP,
    BLOCK,
    all_on_storpool,
    guest_reads,
    on_storpool,
    state_of,
    take,
    volume_from,
    write,
)
from scenarios.steps import (
    GIB,
    MISSING,
    attach,
    booted_vm,
    compute_offering,
    data_volume,
    deploy,
    detach,
    detail,
    disk_offering,
    many,
    one,
    resize,
    root_volume,
    setting,
    shared_template,
    start,
    stop,
    tag_vm,
)
from scenarios.storage_migration import (
    NFS_POOL,
    NFS_TAG,
    anywhere,
    file_holds,
    file_of,
    is_on,
    make_nfs_pool,
    migrate,
    migrations_under_way,
    nfs_pool,
    nothing_on_storpool,
    one_object,
    other_pool,
    same_on_storpool,
    written_volume,
)

CUT_SECONDS = "4"
"""Less than a slow copy takes, in whatever world."""


def reads(world: World, vm: Json, volume: Json, word: str) -> Json:
    """Attach the volume and have the guest read the word from it."""
    attached = attach(world, volume, vm)
    fully_attached(world, vm, attached)
    with world.check("the guest reads what was written before"):
        guest_reads(world, vm, attached, word)
    return attached


@scenario(18, "storpool-offline", "a detached volume goes from StorPool to StorPool: no data copied, snapshots usable")
def storpool_offline(world: World) -> None:
    vm, before = written_volume(world, "old")
    snapshot = take(world, before)
    attached = attach(world, before, vm)
    write(world, vm, attached, "new")
    before = detach(world, attached)
    calls = world.storpool.calls()
    volume = migrate(world, before, other_pool(world).id)
    same_on_storpool(world, before, volume, other_pool(world))
    with world.check("StorPool was asked for no new object"):
        after = world.storpool.calls()
        made = {name: after[name] - calls.get(name, 0) for name in ("VolumeCreate", "VolumeSnapshot") if name in after}
        assert not any(made.values()), made
    has_tags(world, volume, cs="volume", uuid=str(volume["id"]), cvm="", disk="")
    with world.check("the snapshot is there, on StorPool and in CloudStack (weakness 5)"):
        assert state_of(world, snapshot) == "BackedUp"
        on_storpool(world, snapshot)
    detach(world, reads(world, vm, volume, "new"))
    world.cloud.call("revertSnapshot", id=snapshot["id"])
    with world.check("a revert leaves it on the new pool"):
        same_template = looks.on_storpool(world, reread_volume(world, volume))["templateName"]
        assert same_template == other_pool(world).storpool_template, same_template
    reads(world, vm, reread_volume(world, volume), "old")
    made_volume = volume_from(world, snapshot)
    reads(world, vm, made_volume, "old")


@scenario(18, "storpool-stopped", "a volume of a stopped VM goes from StorPool to StorPool; tags stay (#10587, #7526)")
def storpool_stopped(world: World) -> None:
    vm, volume = written_volume(world, "word")
    tag_vm(world, vm, vc_policy="daily")
    before = attach(world, volume, vm)
    vm = stop(world, vm)
    volume = migrate(world, before, other_pool(world).id)
    same_on_storpool(world, before, volume, other_pool(world))
    with world.check("every tag as before"):
        has_tags(world, volume, cs="volume", cvm=str(vm["id"]), disk=str(before["deviceid"]), vc_policy="daily")
    with world.check("the stopped VM gives it away and gets it back"):
        freed = detach(world, volume)
        has_tags(world, freed, cs="volume", cvm="", disk="", vc_policy="")
        volume = attach(world, freed, vm)
    vm = start(world, vm)
    fully_attached(world, vm, volume)
    with world.check("the guest reads what was written before"):
        guest_reads(world, vm, volume, "word")


@scenario(18, "storpool-live", "a volume of a running VM goes live: template changes, path stays, no copy (#6661)")
def storpool_live(world: World) -> None:
    vm, volume = written_volume(world, "word")
    before = attach(world, volume, vm)
    snapshot = take(world, before)
    boot_id = world.guest(str(vm["id"])).boot_id()
    volume = migrate(world, before, other_pool(world).id, livemigrate=True)
    same_on_storpool(world, before, volume, other_pool(world))
    fully_attached(world, vm, volume)
    with world.check("the guest was never down, and reads and writes on"):
        assert world.guest(str(vm["id"])).boot_id() == boot_id
        guest_reads(world, vm, volume, "word")
        write(world, vm, volume, "more")
        guest_reads(world, vm, volume, "more")
    with world.check("its snapshots were not deleted (weakness 5)"):
        on_storpool(world, snapshot)


@scenario(18, "to-nfs", "a detached volume goes to NFS as it is, whatever its guest wrote; snapshots survive (#11625)")
def to_nfs(world: World) -> None:
    pool = nfs_pool(world)
    vm, volume = written_volume(world, "word")
    snapshot = take(world, volume)
    attached = attach(world, volume, vm)
    trap = b"QFI\xfb\0\0\0\3".ljust(BLOCK, b"\0")
    world.guest(str(vm["id"])).write(serial(attached), 0, trap)
    before = detach(world, attached)
    backups = world.secondary.backups()
    volume = migrate(world, before, str(pool["id"]))
    is_on(world, volume, str(pool["id"]))
    nothing_on_storpool(world, before)
    one_object(world, volume)
    with world.check("the file has the volume's bytes"):
        file_holds(world, volume, "word", (GIB // 2 + 4096 * 5, GIB - BLOCK))
    with world.check("a guest's header is data (weakness 7)"):
        assert world.secondary.read(file_of(volume), 0, BLOCK) == trap
    with world.check("secondary storage was not used"):
        assert world.secondary.backups() == backups, world.secondary.backups()
    with world.check("the snapshot is there, and a volume can be made of it"):
        assert state_of(world, snapshot) == "BackedUp"
        on_storpool(world, snapshot)
    reads(world, vm, volume_from(world, snapshot), "word")
    error = fails(lambda: world.cloud.call("revertSnapshot", id=snapshot["id"]))
    with world.check("the volume cannot be reverted to a snapshot that is elsewhere: clear error, still Ready"):
        assert "another pool" in error.text, error.text
        assert reread_volume(world, volume) == volume


@scenario(
    18, "from-nfs", "a volume comes from NFS to StorPool: same bytes, tier and limits of the new offering, file gone"
)
def from_nfs(world: World) -> None:
    pool = nfs_pool(world)
    vm, volume = written_volume(world, "word")
    away = migrate(world, volume, str(pool["id"]))
    limited = anywhere(world, disksize=1, miniops=100, maxiops=700)
    volume = migrate(world, away, other_pool(world).id, newdiskofferingid=limited)
    is_on(world, volume, other_pool(world).id)
    one_object(world, volume)
    with world.check("the file is gone"):
        assert file_of(away) not in world.secondary.files("primary")
    with world.check("size, limit and StorPool template"):
        seen = looks.on_storpool(world, volume)
        wanted = (volume["size"], "700", other_pool(world).storpool_template)
        assert (seen["size"], str(seen["iops"]), seen["templateName"]) == wanted, seen
        assert volume["diskofferingid"] == limited, volume
    has_tags(world, volume, cs="volume", uuid=str(volume["id"]), cvm="", disk="", qc="")
    detach(world, reads(world, vm, volume, "word"))
    gold = anywhere(world, disksize=1)
    detail(world, "DiskOffering", gold, "SP_QOSCLASS", "gold")
    away = migrate(world, volume, str(pool["id"]), newdiskofferingid=gold)
    volume = migrate(world, away, world.environment.pools[0].id)
    with world.check("the tier of its offering"):
        has_tags(world, volume, qc="gold")
    one_object(world, volume)
    reads(world, vm, volume, "word")


@scenario(18, "new-offering", "StorPool to StorPool with a new offering: tier and limit are its own (weakness 40)")
def new_offering(world: World) -> None:
    vm, before = written_volume(world, "word", anywhere(world, disksize=1, miniops=100, maxiops=500))
    gold = disk_offering(world, disksize=1, tags=other_pool(world).tag)
    detail(world, "DiskOffering", gold, "SP_QOSCLASS", "gold")
    volume = migrate(world, before, other_pool(world).id, newdiskofferingid=gold)
    same_on_storpool(world, before, volume, other_pool(world))
    has_tags(world, volume, qc="gold")
    with world.check("CloudStack shows the new offering"):
        assert volume["diskofferingid"] == gold, volume
    plain = disk_offering(world, disksize=1)
    volume = migrate(world, volume, world.environment.pools[0].id, newdiskofferingid=plain)
    with world.check("the tier is gone again, and there is no limit"):
        has_tags(world, volume, qc="")
        assert str(looks.on_storpool(world, volume)["iops"]) == "-", looks.on_storpool(world, volume)
    reads(world, vm, volume, "word")


@scenario(18, "nfs-volume", "a volume is made on NFS, used by a VM, moved to StorPool while that is off, and deleted")
def nfs_volume(world: World) -> None:
    nfs_pool(world)
    offering = disk_offering(world, tags=NFS_TAG)
    vm = stop(world, booted_vm(world))
    volume = attach(world, data_volume(world, offering_id=offering), vm)
    vm = start(world, vm)
    volume = reread_volume(world, volume)
    with world.check("CloudStack: Ready on the NFS pool, and the guest sees the disk"):
        assert (volume["state"], volume["storage"]) == ("Ready", NFS_POOL), volume
        guest_sees(world, vm, volume)
    write(world, vm, volume, "word")
    guest_reads(world, vm, volume, "word")
    second = attach(world, data_volume(world, offering_id=offering), vm)
    with world.check("a second one is plugged into the running VM, and taken away"):
        guest_sees(world, vm, second)
        second = detach(world, second)
    with refused(world, "to migrate the running VM with a disk on NFS to another host", 431):
        world.cloud.call("migrateVirtualMachine", virtualmachineid=vm["id"], autoselect=True)
    vm = stop(world, vm)
    with world.check("its file has what the guest wrote"):
        file_holds(world, volume, "word")
    away, volume = volume, migrate(world, volume, world.environment.pools[0].id, newdiskofferingid=disk_offering(world))
    vm = start(world, vm)
    fully_attached(world, vm, volume)
    with world.check("the guest reads it from StorPool"):
        guest_reads(world, vm, volume, "word")
    world.cloud.call("deleteVolume", id=second["id"])
    with world.check("no file is left"):
        left = {file_of(away), file_of(second)} & set(world.secondary.files("primary"))
        assert left == set(), left


@scenario(18, "vm", "a stopped VM goes with every volume to StorPool, to NFS, and back; it boots from each")
def whole_vm(world: World) -> None:
    pools, nfs = world.environment.pools, nfs_pool(world)
    offering = compute_offering(world, tags="")
    vm = deploy(world, shared_template(world), serviceofferingid=offering["id"], rootdisksize=2)
    data = attach(world, data_volume(world, offering_id=anywhere(world)), vm)
    world.guest(str(vm["id"])).boot_id()
    for word in ("root", "data"):
        write(world, vm, root_volume(world, str(vm["id"])) if word == "root" else data, word, (GIB - BLOCK,))
    for pool_id in (pools[1].id, str(nfs["id"]), pools[0].id):
        vm = stop(world, vm)
        answer = world.cloud.call("migrateVirtualMachine", virtualmachineid=vm["id"], storageid=pool_id)
        with world.check("the VM is Stopped, and every volume of it on the pool"):
            assert one(answer, "virtualmachine")["state"] == "Stopped", answer
            listed = many(world.cloud.call("listVolumes", virtualmachineid=vm["id"], listall=True), "volume")
            assert [(v["state"], v["storageid"]) for v in listed] == [("Ready", pool_id)] * 2, listed
        for volume in listed:
            one_object(world, volume)
        vm = start(world, vm)
        with world.check("the guest boots, and reads both disks"):
            world.guest(str(vm["id"])).boot_id()
            guest_reads(world, vm, root_volume(world, str(vm["id"])), "root", (GIB - BLOCK,))
            guest_reads(world, vm, reread_volume(world, data), "data", (GIB - BLOCK,))


@scenario(18, "meanwhile", "while it is copied a volume is Migrating, and nothing else can be done to it or its VM")
def meanwhile(world: World) -> None:
    pool = nfs_pool(world)
    vm, volume = written_volume(world, "word")
    vm = stop(world, vm)
    volume = attach(world, volume, vm)
    with slow_copies(world):
        job = world.cloud.start("migrateVolume", volumeid=volume["id"], storageid=pool["id"])
        world.wait_until("the volume is Migrating", lambda: migrations_under_way(world) == [volume["id"]])
        with world.check("a second migration, and a resize, are refused"):
            again = fails(lambda: migrate(world, volume, other_pool(world).id))
            larger = fails(lambda: resize(world, volume, 2))
            assert "Migrating" in again.text and "Migrating" in larger.text, (again.text, larger.text)
    world.cloud.wait(job)
    volume = reread_volume(world, volume)
    is_on(world, volume, str(pool["id"]))
    with world.check("the file has the volume's bytes"):
        file_holds(world, volume, "word")
    vm = start(world, reread(world, vm))
    guest_sees(world, vm, volume)
    guest_reads(world, vm, volume, "word")


@scenario(18, "nfs-away", "the NFS server is away: a clear error each way, the volume where it was, and later it works")
def nfs_away(world: World) -> None:
    pool = nfs_pool(world)
    vm, before = written_volume(world, "word")
    with world.secondary.unreachable():
        error = fails(lambda: migrate(world, before, str(pool["id"])))
    with world.check("to NFS: the error names volume and pool, and nothing has changed"):
        assert str(before["name"]) in error.text and NFS_POOL in error.text, error.text
        assert reread_volume(world, before) == before, reread_volume(world, before)
        one_object(world, before)
    away = migrate(world, before, str(pool["id"]))
    with world.secondary.unreachable():
        error = fails(lambda: migrate(world, away, other_pool(world).id))
    with world.check("from NFS: the same"):
        assert str(before["name"]) in error.text, error.text
        assert reread_volume(world, away) == away, reread_volume(world, away)
        one_object(world, away)
    reads(world, vm, migrate(world, away, other_pool(world).id), "word")


@scenario(18, "wait", "a copy may take as long as one setting says; one that is cut off leaves nothing (#12733)")
def wait(world: World) -> None:
    vm, volume = written_volume(world, "word")
    volume = copied_in_time(world, volume, str(nfs_pool(world)["id"]), "copy.volume.wait")
    volume = copied_in_time(world, volume, other_pool(world).id, "primary.storage.download.wait")
    reads(world, vm, volume, "word")


def copied_in_time(world: World, volume: Json, pool_id: str, name: str) -> Json:
    """Migrate the volume, first with too short a time, then with a longer one than the default."""
    with slow_copies(world):
        with setting(world, name, CUT_SECONDS, "10800"):
            error = fails(lambda: migrate(world, volume, pool_id))
        with world.check(f"{name} cuts it off: a clear error, the volume where it was"):
            assert "qemu-img convert" in error.text and "was killed" in error.text, error.text
            assert reread_volume(world, volume) == volume
            one_object(world, volume)
    with setting(world, name, "100000", "10800"):
        moved = migrate(world, volume, pool_id)
    one_object(world, moved)
    return moved


@scenario(18, "pool", "an NFS pool beside the StorPool pools: made, shown, refused twice, and deleted when it is empty")
def pool(world: World) -> None:
    made = nfs_pool(world)
    with world.check("as CloudStack shows it"):
        seen = (made["type"], made["provider"], made["scope"], made["state"], made["tags"])
        assert seen == ("NetworkFilesystem", "DefaultPrimary", "CLUSTER", "Up", NFS_TAG), made
        assert world.secondary.primary_url == f"nfs://{made['ipaddress']}{made['path']}", made
    with refused(world, "a second pool in the same place", 431):
        make_nfs_pool(world, name=world.name("again"))
    with refused(world, "a pool that is not on the export of the image store", 431):
        make_nfs_pool(world, name=world.name("elsewhere"), url="nfs://nowhere/else")
    volume = migrate(world, written_volume(world, "word")[1], str(made["id"]))
    with refused(world, "to delete a pool with a volume", 431):
        world.cloud.call("deleteStoragePool", id=made["id"])
    with refused(world, "a snapshot of a volume that is not on StorPool", 431, 530):
        take(world, volume)
    world.cloud.call("deleteVolume", id=volume["id"])
    world.cloud.call("enableStorageMaintenance", id=made["id"])
    world.cloud.call("deleteStoragePool", id=made["id"])
    with world.check("it is gone, and can be made again"):
        assert many(world.cloud.call("listStoragePools", name=NFS_POOL), "storagepool") == []
        assert make_nfs_pool(world)["state"] == "Up"


@scenario(18, "refusals", "what cannot be migrated is refused with a reason, and nothing changes")
def refusals(world: World) -> None:
    pools, nfs = world.environment.pools, nfs_pool(world)
    vm, volume = written_volume(world, "word", disk_offering(world))

    def no(why: str, text: str, volume_id: str, pool_id: str, **parameters: str | bool) -> None:
        with refused(world, why, 431, saying=text):
            world.cloud.call("migrateVolume", volumeid=volume_id, storageid=pool_id, **parameters)

    volume_id = str(volume["id"])
    no("to the pool that it is on", "already on the destination", volume_id, pools[0].id)
    no("to a pool without the offering's storage tag", "no matching tags for volume", volume_id, pools[1].id)
    no("a pool that is not there", "storageid", volume_id, MISSING)
    no("a volume that is not there", "volumeid", MISSING, pools[1].id)
    no(
        "with a new offering whose tags the pool lacks",
        "does not match new disk offering",
        volume_id,
        pools[1].id,
        newdiskofferingid=disk_offering(world),
    )
    no("a volume that was never used", "ready state", str(data_volume(world)["id"]), pools[1].id)
    free = anywhere(world)
    with setting(world, BACKUP, "false", "true"):
        used = attach(world, data_volume(world, offering_id=free), vm)
        only_here = take(world, used)
    no("of a running VM, without livemigrate", "livemigrate should be specified", str(used["id"]), pools[1].id)
    no("live to NFS", "stop the VM", str(used["id"]), str(nfs["id"]), livemigrate=True)
    with refused(world, "a running VM with a storage pool", 431):
        world.cloud.call("migrateVirtualMachine", virtualmachineid=vm["id"], storageid=pools[1].id)
    detach(world, used)
    no("with a snapshot on primary storage only", str(only_here["name"]), str(used["id"]), pools[1].id)
    with world.check("that snapshot is still there"):
        assert len(all_on_storpool(world, only_here)) == 1
    world.cloud.call("enableStorageMaintenance", id=nfs["id"])
    try:
        no("to a pool in maintenance", "is in maintenance mode", volume_id, str(nfs["id"]))
    finally:
        world.cloud.call("cancelStorageMaintenance", id=nfs["id"])
