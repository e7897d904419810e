"""Row 2: create ROOT volume from template (deploy VM). Seen from outside: spec/action-table.md row 2."""

from __future__ import annotations

import hashlib

from harness.observers import Host, Json, World
from scenarios.idle import same_bytes as same_idle_bytes
from scenarios.looks import (
    device_only_on,
    fully_attached,
    global_id,
    guest_sees,
    has_tags,
    has_vm_tags,
    on_storpool,
    refused,
    serial,
    template_snapshots,
)
from scenarios.registry import scenario
from scenarios.snapshots import BACKUP
from scenarios.steps import (
    GIB,
    MISSING,
    booted_vm,
    deploy,
    deploy_parameters,
    detach,
    disk_offering,
    host_of,
    many,
    new_idle_template,
    one,
    pool_of,
    root_volume,
    running_vm,
    setting,
    stop,
    template,
    vm_by_id,
    volume_by_id,
)


def starts_from(world: World, volume: Json, snapshot: Json) -> None:
    parent = on_storpool(world, volume)["parentName"]
    assert parent == snapshot["name"], f"{volume['path']} has parent {parent!r}, expected {snapshot['name']!r}"


def only_snapshot(world: World, template_id: str) -> Json:
    found = template_snapshots(world, template_id)
    assert len(found) == 1, f"template {template_id} has {len(found)} StorPool snapshots: {found}"
    return found[0]


@scenario(2, "first-use-seeds", "first use of a template seeds one StorPool snapshot, and the VM starts from it")
def first_use_seeds(world: World) -> None:
    template_id = str(template(world)["id"])
    with world.check("nothing on StorPool before the first use"):
        assert template_snapshots(world, template_id) == []
    vm = deploy(world, template_id)
    root = root_volume(world, str(vm["id"]))
    with world.check("one StorPool snapshot of the template, of the image's size"):
        snapshot = only_snapshot(world, template_id)
        assert snapshot["size"] == world.environment.image_size, f"snapshot has {snapshot['size']} bytes"
    with world.check("no volume of the seeding is left"):
        left = [v for v in world.storpool.volumes() if (v.get("tags") or {}).get("cs") in ("template", "temporary")]
        assert left == [], f"left over: {left}"
    with world.check("ROOT starts from the template's snapshot, on the pool's StorPool template"):
        starts_from(world, root, only_snapshot(world, template_id))
        seen = on_storpool(world, root)["templateName"]
        assert seen == pool_of(world, root).storpool_template, f"ROOT is placed by StorPool template {seen}"
    fully_attached(world, vm, root)
    with world.check("the guest boots"):
        assert world.guest(str(vm["id"])).boot_id()


def suspended_at_birth(world: World, template_id: str) -> tuple[Json, Host]:
    """A VM whose guest was stopped in its firmware, seconds before it could write to its disk."""
    before = {(host.name, name) for host in world.hosts for name in host.domains()}
    job = world.cloud.start("deployVirtualMachine", **deploy_parameters(world, template_id))
    found: list[tuple[Host, str]] = []

    def appeared() -> bool:
        for host in world.hosts:
            for name, state in host.domains().items():
                if state == "running" and (host.name, name) not in before:
                    host.suspend(name)
                    found.append((host, name))
                    return True
        return False

    world.wait_until("the domain runs", appeared, 120)
    vm = vm_by_id(world, str(one(world.cloud.wait(job), "virtualmachine")["id"]))
    host, name = found[0]
    assert vm["instancename"] == name, f"suspended {name}, but the VM is {vm['instancename']}"
    return vm, host


@scenario(2, "same-bytes", "a ROOT volume has the template's bytes")
def same_bytes(world: World) -> None:
    template_id = str(template(world)["id"])
    for use in ("first", "second"):
        vm, host = suspended_at_birth(world, template_id)
        root = root_volume(world, str(vm["id"]))
        with world.check(f"{use} use: sha256 of the device is the image's"):
            size = world.environment.image_size
            digest = hashlib.sha256(host.read_device(str(root["path"]), 0, size)).hexdigest()
            assert digest == world.environment.image_sha256, f"the first {size} bytes have sha256 {digest}"
        host.resume(str(vm["instancename"]))


@scenario(2, "later-vms-share", "later VMs copy no data and start from the same snapshot")
def later_vms_share(world: World) -> None:
    template_id = str(template(world)["id"])
    first = deploy(world, template_id)
    snapshot = only_snapshot(world, template_id)
    before = world.storpool.calls()
    second = deploy(world, template_id)
    if before:
        with world.check("StorPool was asked for one new volume and no snapshot"):
            after = world.storpool.calls()
            grown = {name: after.get(name, 0) - before.get(name, 0) for name in ("VolumeCreate", "VolumeSnapshot")}
            assert grown == {"VolumeCreate": 1, "VolumeSnapshot": 0}, f"calls of the second deploy: {grown}"
    with world.check("still the same one snapshot"):
        assert only_snapshot(world, template_id)["globalId"] == snapshot["globalId"]
    with world.check("both ROOT volumes start from it"):
        for vm in (first, second):
            starts_from(world, root_volume(world, str(vm["id"])), snapshot)
    with world.check("both guests boot, each on its own disk"):
        boots = {world.guest(str(vm["id"])).boot_id() for vm in (first, second)}
        assert len(boots) == 2, f"boot ids: {boots}"


@scenario(2, "two-at-once", "two VMs at once seed the template once, and have its bytes")
def two_at_once(world: World) -> None:
    template_id = str(new_idle_template(world)["id"])
    jobs = [world.cloud.start("deployVirtualMachine", **deploy_parameters(world, template_id)) for _ in range(2)]
    vms = [one(world.cloud.wait(job), "virtualmachine") for job in jobs]
    with world.check("one StorPool snapshot of the template"):
        snapshot = only_snapshot(world, template_id)
    with world.check("both ROOT volumes start from it"):
        for vm in vms:
            starts_from(world, root_volume(world, str(vm["id"])), snapshot)
    same_idle_bytes(world, *vms)
    with world.check("no volume of the seeding is left"):
        left = [v for v in world.storpool.volumes() if (v.get("tags") or {}).get("cs") == "template"]
        assert left == [], f"left over: {left}"


@scenario(2, "larger-root", "a ROOT disk larger than the template has that size")
def larger_root(world: World) -> None:
    template_id = str(template(world)["id"])
    vm = deploy(world, template_id, **{"details[0].rootdisksize": 2})
    root = root_volume(world, str(vm["id"]))
    with world.check("CloudStack and StorPool say 2 GiB"):
        sizes = (root["size"], on_storpool(world, root)["size"])
        assert sizes == (2 * GIB, 2 * GIB), f"CloudStack and StorPool sizes: {sizes}"
    with world.check("the device has 2 GiB"):
        device_only_on(world, root, host_of(world, vm))
    with world.check("the guest sees 2 GiB"):
        guest_sees(world, vm, root)
    with world.check("it still starts from the template's snapshot"):
        starts_from(world, root, only_snapshot(world, template_id))


@scenario(2, "override-offering", "a ROOT disk with an overriding disk offering has its size and pool")
def override_offering(world: World) -> None:
    pool = world.environment.pools[1]
    offering = disk_offering(world, disksize=3, tags=pool.tag)
    template_id = str(template(world)["id"])
    vm = deploy(world, template_id, overridediskofferingid=offering)
    root = root_volume(world, str(vm["id"]))
    with world.check("size of the offering"):
        assert (root["size"], on_storpool(world, root)["size"]) == (3 * GIB, 3 * GIB)
    with world.check("pool of the offering's tag"):
        assert root["storageid"] == pool.id
        assert on_storpool(world, root)["templateName"] == pool.storpool_template
    with world.check("the guest boots"):
        assert world.guest(str(vm["id"])).boot_id()


@scenario(2, "from-volume", "deploy a VM from an existing volume (#10503)")
def from_volume(world: World) -> None:
    old = booted_vm(world)
    stop(world, old)
    root = root_volume(world, str(old["id"]))
    detach(world, root)
    vm = deploy(world, volumeid=str(root["id"]))
    found = root_volume(world, str(vm["id"]))
    with world.check("the VM's ROOT is that volume, at its old path"):
        assert (found["id"], found["path"]) == (root["id"], root["path"])
    with world.check("the volume names its new VM"):
        has_vm_tags(world, vm, found)
    with world.check("the guest boots"):
        assert world.guest(str(vm["id"])).boot_id()


@scenario(2, "from-snapshot", "deploy a VM from a snapshot of a ROOT volume (#10503)")
def from_snapshot(world: World) -> None:
    source = deploy(world, str(template(world)["id"]), **{"details[0].rootdisksize": 2})
    source_root = root_volume(world, str(source["id"]))
    mark, place = b"before the snapshot".ljust(4096, b"."), GIB
    guest = world.guest(str(source["id"]))
    guest.boot_id()
    guest.write(serial(source_root), place, mark)
    with setting(world, BACKUP, "false", "true"):
        answer = world.cloud.call("createSnapshot", volumeid=source_root["id"])
    snapshot_id = str(one(answer, "snapshot")["id"])
    guest.write(serial(source_root), place, b"after".ljust(4096, b"."))
    on_pool = [s for s in world.storpool.snapshots() if (s.get("tags") or {}).get("uuid") == snapshot_id]
    with world.check("one StorPool snapshot carries the snapshot's uuid"):
        assert len(on_pool) == 1, f"found {on_pool}"
    vm = deploy(world, snapshotid=snapshot_id)
    root = root_volume(world, str(vm["id"]))
    with world.check("ROOT starts from the StorPool snapshot, no data copied"):
        starts_from(world, root, on_pool[0])
    with world.check("tags name the new VM and volume"):
        has_vm_tags(world, vm, root)
    with world.check("the guest boots and has the bytes of the snapshot's time"):
        copy = world.guest(str(vm["id"]))
        assert copy.boot_id()
        seen = copy.read(serial(root), place, len(mark))
        assert seen == mark, f"the new disk has {seen[:32]!r}"


@scenario(2, "guest-boots", "a guest boots from its ROOT disk, and again after stop and start")
def guest_boots(world: World) -> None:
    vm = booted_vm(world)
    guest = world.guest(str(vm["id"]))
    first = guest.boot_id()
    stop(world, vm)
    world.cloud.call("startVirtualMachine", id=vm["id"])
    with world.check("another boot after stop and start"):
        second = guest.boot_id()
        assert second != first, f"boot id {second} did not change"
    with world.check("it is the same disk"):
        assert serial(root_volume(world, str(vm["id"]))) in guest.disks()


@scenario(2, "refusals", "what cannot be deployed is refused with a reason, and nothing is made")
def refusals(world: World) -> None:
    cloud = world.cloud
    template_id = str(template(world)["id"])
    for why, codes, parameters in (
        ("a template that does not exist", (431,), {"templateid": MISSING}),
        ("a service offering that does not exist", (431,), {"serviceofferingid": MISSING}),
        ("a negative ROOT size", (431,), {"details[0].rootdisksize": -1}),
        ("a ROOT size that is no number", (430, 431), {"details[0].rootdisksize": "many"}),
        ("a VM name of 64 characters", (431,), {"name": "n" * 64}),
        ("a VM name with a blank", (431,), {"name": "two words"}),
        ("a disk offering that does not exist", (431,), {"overridediskofferingid": MISSING}),
    ):
        wanted = {**deploy_parameters(world, template_id), **parameters}
        with refused(world, why, *codes):
            cloud.call("deployVirtualMachine", **wanted)
    with world.check("nothing was seeded for them"):
        assert template_snapshots(world, template_id) == []


@scenario(2, "template-not-there", "a template whose image cannot be fetched is never ready and cannot be deployed")
def template_not_there(world: World) -> None:
    env = world.environment
    name = world.name("template")
    answer = world.cloud.call(
        "registerTemplate",
        name=name,
        displaytext=name,
        format="QCOW2",
        hypervisor="KVM",
        url=env.image_url + ".missing",
        zoneid=env.zone_id,
        ostypeid=env.os_type_id,
    )
    template_id = str(one(answer, "template")["id"])

    def status() -> str:
        found = many(world.cloud.call("listTemplates", templatefilter="all", id=template_id, listall=True), "template")
        return str(found[0].get("status", "")) if found else ""

    world.wait_until("the failed download is reported", lambda: status() not in ("", "Creating", "Downloading"), 120)
    with world.check("the template is not ready and says why"):
        found = one(world.cloud.call("listTemplates", templatefilter="all", id=template_id, listall=True), "template")
        assert not found["isready"], f"template is ready: {found}"
        assert status() != "Download Complete"
    with refused(world, "a template that was never downloaded", 430, 431, 530, 533):
        world.cloud.call("deployVirtualMachine", **deploy_parameters(world, template_id))


@scenario(2, "root-tags", "a ROOT volume says which disk of which VM it is")
def root_tags(world: World) -> None:
    vm = running_vm(world)
    root = root_volume(world, str(vm["id"]))
    with world.check("no policy, no tag"):
        has_tags(world, root, vc_policy="")
    with world.check("ROOT is disk 0 of its VM"):
        has_tags(world, root, cs="volume", disk="0", cvm=str(vm["id"]), uuid=str(volume_by_id(world, root["id"])["id"]))
    with world.check("its path leads to its global id"):
        assert on_storpool(world, root)["globalId"] == global_id(root)
