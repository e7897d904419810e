"""Encrypted ROOT and DATA volumes. Seen from outside: spec/action-table.md, `encryption`."""

from __future__ import annotations

import hashlib

from harness.observers import Json, World
from scenarios import vm_snapshots
from scenarios.delayed import DELETE_AFTER
from scenarios.encrypted import (
    MAGIC,
    await_support,
    encrypted_data,
    encrypted_vm,
    is_luks,
    no_passphrase_left,
    nowhere_plain,
    nowhere_plain_bytes,
    reads,
    samples,
    with_data,
    write,
)
from scenarios.looks import (
    domain_has_size,
    fails,
    fully_attached,
    fully_detached,
    global_id,
    gone,
    guest_does_not_see,
    guest_sees,
    has_vm_tags,
    on_storpool,
    refused,
    reread,
    reread_volume,
    serial,
    template_snapshots,
)
from scenarios.registry import scenario
from scenarios.row13_download_volume import extract
from scenarios.row14_revert_snapshot import revert
from scenarios.snapshots import BYPASS, archive, delete, pattern, snapshot_exists, stores, take, volume_from
from scenarios.steps import (
    GIB,
    attach,
    booted_vm,
    change_offering,
    compute_offering,
    data_volume,
    deploy,
    detach,
    disk_offering,
    expunge,
    host_of,
    idle_template,
    many,
    resize,
    root_volume,
    setting,
    shared_template,
    start,
    stop,
    template_by_id,
    vm_by_id,
    volume_exists,
)
from scenarios.templates import from_snapshot, from_volume, refused_with


@scenario("encryption", "data", "an encrypted DATA volume: created at first use, written, detached, attached again")
def data(world: World) -> None:
    vm, volume = with_data(world, "secret")
    fully_attached(world, vm, volume)
    is_luks(world, vm, volume)
    plain = attach(world, data_volume(world), vm)
    write(world, vm, plain, "secret")
    nowhere_plain(world, "secret", but=plain)
    no_passphrase_left(world)
    gid = global_id(volume)
    volume = detach(world, volume)
    fully_detached(world, volume)
    guest_does_not_see(world, vm, volume)
    other = booted_vm(world)
    volume = attach(world, volume, other)
    with world.check("attached again it is the same volume"):
        assert global_id(volume) == gid, volume
    fully_attached(world, other, volume)
    reads(world, other, volume, "secret")
    no_passphrase_left(world)


@scenario("encryption", "root", "deploy with an encrypted ROOT volume: blank, then the template written through LUKS")
def root(world: World) -> None:
    template_id = shared_template(world)
    plain = deploy(world, template_id)
    vm = encrypted_vm(world)
    volume = root_volume(world, str(vm["id"]))
    fully_attached(world, vm, volume)
    is_luks(world, vm, volume)
    with world.check("it is no clone of the template"):
        (cached,) = template_snapshots(world, template_id)
        parent = on_storpool(world, volume).get("parentName") or ""
        assert parent in ("", "-"), f"its parent is {parent}; the template's snapshot is {cached['name']}"
        ordinary = on_storpool(world, root_volume(world, str(plain["id"])))
        assert ordinary.get("parentName") not in ("", "-", None), "the ROOT volume that is not encrypted is no clone"
    with world.check("the guest has the template's bytes"):
        size = world.environment.image_size
        guest, name, digest = world.guest(str(vm["id"])), serial(volume), hashlib.sha256()
        if not world.real:
            # A guest that runs has changed its file system by now.
            digest.update(guest.read(name, 0, size))
            assert digest.hexdigest() == world.environment.image_sha256
    with world.check("what the template begins with is not on the device"):
        begin = host_of(world, vm).read_device(str(volume["path"]), 2 << 20, 4096)
        plain_vm = vm_by_id(world, str(plain["id"]))
        path = str(root_volume(world, str(plain["id"]))["path"])
        assert begin != host_of(world, plain_vm).read_device(path, 0, 4096), "the device has the template's first bytes"
    no_passphrase_left(world)
    vm = start(world, stop(world, vm))
    fully_attached(world, vm, volume)
    no_passphrase_left(world)
    expunge(world, vm)
    gone(world, volume)


@scenario("encryption", "root-nowhere", "of an encrypted ROOT volume's template nothing is readable on any host")
def root_nowhere(world: World) -> None:
    template_id = idle_template(world)
    witness = deploy(world, template_id)
    plain = root_volume(world, str(witness["id"]))
    vm = deploy(world, template_id, serviceofferingid=str(compute_offering(world, encryptroot=True)["id"]))
    with world.check("the guest boots"):
        world.guest(str(vm["id"])).ready()
    is_luks(world, vm, root_volume(world, str(vm["id"])))
    needles = samples(world, witness, plain, int(template_by_id(world, template_id)["size"]))
    with world.check("the template has something to look for"):
        assert needles, "of the template no piece can be looked for"
    nowhere_plain_bytes(world, *needles, but=plain)
    no_passphrase_left(world)


@scenario(
    "encryption", "both", "a VM with encrypted ROOT and DATA disks, stopped and started, also on another host (#7539)"
)
def both(world: World) -> None:
    vm = encrypted_vm(world, diskofferingid=disk_offering(world, disksize=1, encrypt=True))
    volumes = many(world.cloud.call("listVolumes", virtualmachineid=vm["id"], isencrypted=True), "volume")
    with world.check("CloudStack lists both as encrypted"):
        assert sorted(str(v["type"]) for v in volumes) == ["DATADISK", "ROOT"], volumes
    (disk,) = [volume for volume in volumes if volume["type"] == "DATADISK"]
    write(world, vm, disk, "both")
    first = host_of(world, vm)
    vm = stop(world, vm)
    fully_detached(world, disk)
    other = next(host for host in world.hosts if host.name != first.name)
    listed = many(world.cloud.call("listHosts", name=other.name), "host")
    world.cloud.call("startVirtualMachine", id=vm["id"], hostid=listed[0]["id"])
    vm = vm_by_id(world, str(vm["id"]))
    with world.check("it runs on the other host"):
        assert host_of(world, vm).name == other.name, vm
    for volume in volumes:
        fully_attached(world, vm, volume)
        is_luks(world, vm, volume)
    reads(world, vm, disk, "both")
    nowhere_plain(world, "both")
    no_passphrase_left(world)


@scenario(
    "encryption", "guest-off", "the guest shuts itself down, or QEMU dies: nothing is left, and the data is there"
)
def guest_off(world: World) -> None:
    vm, volume = with_data(world, "kept")
    host_of(world, vm).kill_qemu(str(vm["instancename"]))
    vm = _off_and_on(world, vm, volume)
    world.guest(str(vm["id"])).poweroff()
    _off_and_on(world, vm, volume)


def _off_and_on(world: World, vm: Json, volume: Json) -> Json:
    world.wait_until("CloudStack has seen it", lambda: reread(world, vm)["state"] == "Stopped", 300)
    fully_detached(world, volume)
    vm = start(world, vm)
    reads(world, vm, volume, "kept")
    no_passphrase_left(world)
    return vm


@scenario("encryption", "resize", "an encrypted volume grows live and stopped: the guest sees what was asked for")
def grow(world: World) -> None:
    vm, volume = with_data(world, "before")
    for _ in range(2):
        size = int(volume["size"]) // GIB + 1
        volume = resize(world, volume, size)
        guest = world.guest(str(vm["id"]))
        with world.check(f"CloudStack says {size} GiB, StorPool the header more, the guest sees {size} GiB at once"):
            assert volume["size"] == size * GIB, volume
            assert guest.disks()[serial(volume)] == size * GIB, guest.disks()
            domain_has_size(host_of(world, vm), vm, volume)
        is_luks(world, vm, volume)
        fully_attached(world, vm, volume)
    guest.write(serial(volume), int(volume["size"]) - 4096, b"e" * 4096)
    with world.check("the old bytes are there, and the new end can be written"):
        assert guest.read(serial(volume), 0, 4096) == pattern("before", 0)[:4096]
        assert guest.read(serial(volume), int(volume["size"]) - 4096, 4096) == b"e" * 4096
    vm = stop(world, vm)
    volume = resize(world, volume, 4)
    vm = start(world, vm)
    guest_sees(world, vm, volume)
    with world.check("the old bytes are there after growing while stopped"):
        assert world.guest(str(vm["id"])).read(serial(volume), 0, 4096) == pattern("before", 0)[:4096]
    volume = resize(world, volume, 2, shrinkok=True)
    is_luks(world, vm, volume)
    fully_attached(world, vm, volume)


@scenario("encryption", "snapshot", "snapshots with bypass: volume from one, revert, delete; the key is the volume's")
def snapshots(world: World) -> None:
    vm, volume = with_data(world, "old")
    with setting(world, BYPASS, "true", "false"):
        snapshot = take(world, volume)
    with world.check("on primary storage only"):
        assert stores(world, snapshot) == ["Primary"], stores(world, snapshot)
    write(world, vm, volume, "new")
    encrypting = disk_offering(world, encrypt=True)
    made = volume_from(world, snapshot, encrypting)
    made = attach(world, made, vm)
    fully_attached(world, vm, made)
    is_luks(world, vm, made)
    reads(world, vm, made, "old")
    reads(world, vm, volume, "new")
    nowhere_plain(world, "old", "new")
    volume = detach(world, volume)
    revert(world, snapshot)
    volume = reread_volume(world, volume)
    with world.check("its size is as it was"):
        assert volume["size"] == GIB, volume
    volume = attach(world, volume, vm)
    fully_attached(world, vm, volume)
    reads(world, vm, volume, "old")
    delete(world, snapshot)
    with world.check("the snapshot is gone, and what was made from it is not"):
        assert not snapshot_exists(world, snapshot)
    reads(world, vm, made, "old")
    no_passphrase_left(world)


@scenario(
    "encryption", "snapshot-outlives", "the volume of an encrypted snapshot can be deleted: a new one still opens"
)
def snapshot_outlives(world: World) -> None:
    vm, volume = with_data(world, "outlives")
    with setting(world, BYPASS, "true", "false"):
        snapshot = take(world, volume)
    world.cloud.call("deleteVolume", id=detach(world, volume)["id"])
    gone(world, volume)
    made = attach(world, volume_from(world, snapshot, disk_offering(world, encrypt=True), size=2), vm)
    with world.check("it has the size that was asked for"):
        assert made["size"] == 2 * GIB, made
    fully_attached(world, vm, made)
    guest = world.guest(str(vm["id"]))
    with world.check("and the snapshot's bytes"):
        assert guest.read(serial(made), 0, 4096) == pattern("outlives", 0)[:4096]


@scenario("encryption", "deploy-from", "deploy from an encrypted ROOT volume's snapshot, and from the volume itself")
def deploy_from(world: World) -> None:
    vm = encrypted_vm(world)
    with setting(world, BYPASS, "true", "false"):
        snapshot = take(world, root_volume(world, str(vm["id"])))
    offering = str(compute_offering(world, encryptroot=True)["id"])
    other = deploy(world, snapshotid=str(snapshot["id"]), serviceofferingid=offering)
    world.guest(str(other["id"])).boot_id()
    volume = root_volume(world, str(other["id"]))
    fully_attached(world, other, volume)
    is_luks(world, other, volume)
    stop(world, other)
    volume = detach(world, volume)
    third = deploy(world, volumeid=str(volume["id"]), serviceofferingid=offering)
    world.guest(str(third["id"])).boot_id()
    volume = root_volume(world, str(third["id"]))
    fully_attached(world, third, volume)
    is_luks(world, third, volume)
    no_passphrase_left(world)


@scenario("encryption", "deleted", "an encrypted volume is deleted without a snapshot of it being left behind")
def deleted(world: World) -> None:
    _, volume = with_data(world, "deleted")
    before = {str(item["globalId"]) for item in world.storpool.snapshots()}
    with setting(world, DELETE_AFTER, "86400", "0"):
        world.cloud.call("deleteVolume", id=detach(world, volume)["id"])
    gone(world, volume)
    with world.check("no snapshot stays, though others would leave one: its passphrase is gone"):
        assert {str(item["globalId"]) for item in world.storpool.snapshots()} == before
        assert not volume_exists(world, str(volume["id"]))


@scenario("encryption", "no-host", "without a host that can encrypt, nothing is deployed, created or attached")
def no_host(world: World) -> None:
    vm = booted_vm(world)
    volume = encrypted_data(world)
    ready = detach(world, attach(world, encrypted_data(world), vm))
    offering = str(compute_offering(world, encryptroot=True)["id"])
    template_id = idle_template(world)
    first, second = world.hosts
    with first.without_encryption(), second.without_encryption():
        await_support(world, {first.name: False, second.name: False})
        for disk in (volume, ready):
            with refused(world, "attach where no host can encrypt", 431, 530):
                attach(world, disk, vm)
        error = fails(lambda: deploy(world, template_id, serviceofferingid=offering))
        with world.check("a deploy is refused with the reason"):
            assert "encrypt" in error.text, error.text
        with world.check("a volume that is not encrypted is attached as ever"):
            detach(world, attach(world, data_volume(world), vm))
    await_support(world, {first.name: True, second.name: True})
    fully_attached(world, vm, attach(world, volume, vm))


@scenario("encryption", "placement", "VMs with encrypted disks start where that is supported")
def placement(world: World) -> None:
    template_id = idle_template(world)
    offering = str(compute_offering(world, encryptroot=True)["id"])
    without, capable = world.hosts
    with without.without_encryption():
        await_support(world, {without.name: False, capable.name: True})
        vms = [deploy(world, template_id, serviceofferingid=offering) for _ in range(2)]
        with world.check("both run on the host that can encrypt"):
            assert {host_of(world, vm).name for vm in vms} == {capable.name}, vms
    await_support(world, {without.name: True, capable.name: True})


@scenario("encryption", "refusals", "what is not done with encrypted volumes is refused, and changes nothing")
def refusals(world: World) -> None:
    vm, volume = with_data(world, "refused")
    with refused(world, "a snapshot that would go to secondary storage", 431):
        take(world, volume)
    with setting(world, BYPASS, "true", "false"):
        snapshot = take(world, volume)
    detached = detach(world, attach(world, encrypted_data(world), vm))
    with refused(world, "archiving a snapshot of it", 431):
        archive(world, snapshot)
    for why, work in (
        ("a template of its snapshot", lambda: from_snapshot(world, snapshot)),
        ("a template of it", lambda: from_volume(world, detached)),
        ("downloading it", lambda: extract(world, detached)),
    ):
        refused_with(world, why, "encrypted volumes is not supported", work)
    with refused(world, "a volume that is not encrypted from its snapshot", 431):
        volume_from(world, snapshot)
    attached = attach(world, data_volume(world), vm)
    with setting(world, BYPASS, "true", "false"):
        ordinary = take(world, attached)
    encrypting = disk_offering(world, encrypt=True)
    with refused(world, "an encrypted volume from a snapshot that is not encrypted", 431):
        volume_from(world, ordinary, encrypting)
    with refused(world, "another offering that does not encrypt", 431):
        change_offering(world, volume, disk_offering(world, disksize=2))
    with refused(world, "another offering that does encrypt, for a volume that is not", 431):
        change_offering(world, attached, disk_offering(world, disksize=2, encrypt=True))
    with world.check("all is as it was"):
        assert reread_volume(world, volume)["encryptformat"] == "LUKS"
        assert "encryptformat" not in reread_volume(world, attached)
        assert host_of(world, vm).read_device(str(volume["path"]), 0, len(MAGIC)) == MAGIC


@scenario("encryption", "tags", "an encrypted volume carries the tags and limits that any other one has")
def tags(world: World) -> None:
    vm = booted_vm(world)
    volume = attach(world, data_volume(world, 1, disk_offering(world, encrypt=True, maxiops=700)), vm)
    has_vm_tags(world, vm, volume)
    with world.check("limit, pool's template"):
        found = on_storpool(world, volume)
        assert (found["iops"], found["templateName"]) == (700, world.environment.pools[0].storpool_template), found


@scenario("encryption", "vm-snapshot", "a snapshot of a VM with encrypted disks: taken, reverted to, deleted")
def vm_snapshot(world: World) -> None:
    vm = encrypted_vm(world)
    data = attach(world, encrypted_data(world), vm)
    write(world, vm, data, "then")
    snapshot = vm_snapshots.take(world, vm)
    disks = [root_volume(world, str(vm["id"])), data]
    vm_snapshots.is_whole(world, vm, snapshot, disks)
    write(world, vm, data, "since")
    vm = stop(world, vm)
    vm_snapshots.revert(world, snapshot)
    with world.check("guests' sizes are as before"):
        assert [reread_volume(world, disk)["size"] for disk in disks] == [disk["size"] for disk in disks]
    vm = start(world, vm)
    world.guest(str(vm["id"])).boot_id()
    for disk in disks:
        fully_attached(world, vm, reread_volume(world, disk))
        is_luks(world, vm, disk)
    reads(world, vm, data, "then")
    vm_snapshots.delete(world, snapshot)
    vm_snapshots.nothing_left(world, snapshot)
    no_passphrase_left(world)
