"""Row 1: create ROOT volume from ISO (deploy VM from ISO). Seen from outside: spec/action-table.md row 1."""

from __future__ import annotations

import hashlib

from harness.observers import Json, World
from scenarios.isos import (
    attach_iso,
    await_download,
    deploy_from_iso,
    detach_iso,
    has_iso,
    iso,
    iso_deploy_parameters,
    iso_exists,
    iso_parameters,
    iso_status,
)
from scenarios.looks import fully_attached, fully_detached, has_tags, has_vm_tags, on_storpool, refused, serial
from scenarios.registry import scenario
from scenarios.steps import (
    GIB,
    MISSING,
    booted_vm,
    deploy_parameters,
    detail,
    disk_offering,
    host_of,
    idle_vm,
    many,
    one,
    pool_of,
    root_volume,
    shared_template,
    start,
    stop,
    vm_by_id,
)

PIECE = 65536


def is_empty(world: World, vm: Json, root: Json) -> None:
    """The volume is made from nothing, and begins and ends with zeros."""
    seen = on_storpool(world, root)
    assert seen["parentName"] == "", f"the ROOT volume is made from {seen['parentName']}"
    host = host_of(world, vm)
    for offset in (0, int(root["size"]) - PIECE):
        assert host.read_device(str(root["path"]), offset, PIECE) == bytes(PIECE), f"data at {offset}"


def runs_from_iso(world: World, vm: Json, root: Json) -> None:
    with world.check("the guest boots the ISO"):
        assert world.guest(str(vm["id"])).booted_from() == "cdrom"
    with world.check("the empty disk is its first disk, the only one"):
        disks = world.guest(str(vm["id"])).disks()
        assert dict(disks) == {serial(root): root["size"]}, f"the guest sees {disks}"
        assert root["deviceid"] == 0, root


@scenario(1, "happy", "a VM deployed from an ISO has an empty ROOT volume of the disk offering, and boots the ISO")
def happy(world: World) -> None:
    image = iso(world)
    with world.check("the ISO is listed with its size and is bootable"):
        assert (image["size"], image["bootable"], image["format"]) == (world.environment.iso_size, True, "ISO"), image
    vm = deploy_from_iso(world, image, disk_offering(world, disksize=3))
    root = root_volume(world, str(vm["id"]))
    with world.check("size of the disk offering, in CloudStack and on StorPool"):
        sizes = (root["size"], on_storpool(world, root)["size"])
        assert sizes == (3 * GIB, 3 * GIB), f"CloudStack's and StorPool's sizes: {sizes}"
    with world.check("placed by the pool's StorPool template"):
        seen = on_storpool(world, root)["templateName"]
        assert seen == pool_of(world, root).storpool_template, f"ROOT is placed by StorPool template {seen}"
    with world.check("it is empty"):
        is_empty(world, vm, root)
    fully_attached(world, vm, root)
    with world.check("the ISO is in its drive"):
        has_iso(world, vm, image)
    runs_from_iso(world, vm, root)
    with world.check("no snapshot was made of an ISO"):
        found = [s for s in world.storpool.snapshots() if (s.get("tags") or {}).get("uuid") == image["id"]]
        assert found == [], f"StorPool has {found}"


@scenario(1, "written", "what the guest of an ISO writes to its disk is there after stop and start, and after the ISO")
def written(world: World) -> None:
    image = iso(world)
    vm = deploy_from_iso(world, image)
    root = root_volume(world, str(vm["id"]))
    guest = world.guest(str(vm["id"]))
    first, mark = guest.boot_id(), b"installed".ljust(4096, b".")
    guest.write(serial(root), GIB // 2, mark)
    vm = stop(world, vm)
    with world.check("stopped: detached everywhere, the VM's tags and its ISO stay"):
        fully_detached(world, root)
        has_vm_tags(world, vm, root)
        has_iso(world, vm, image)
    vm = start(world, vm)
    with world.check("another boot of the ISO"):
        assert guest.booted_from() == "cdrom"
        assert guest.boot_id() != first
    with world.check("the disk has what was written"):
        assert guest.read(serial(root), GIB // 2, len(mark)) == mark
    vm = detach_iso(world, vm)
    with world.check("the drive of the running VM is empty"):
        has_iso(world, vm, None)
    with world.check("the guest runs on, with its disk"):
        assert guest.read(serial(root), GIB // 2, len(mark)) == mark


@scenario(1, "customized", "a disk offering of customised size needs a size; another pool by its tag")
def customized(world: World) -> None:
    image = iso(world)
    pool = world.environment.pools[1]
    offering = disk_offering(world, tags=pool.tag)
    with refused(world, "a customised disk offering without a size", 431):
        world.cloud.call("deployVirtualMachine", **iso_deploy_parameters(world, image, offering))
    vm = deploy_from_iso(world, image, offering, size=2)
    root = root_volume(world, str(vm["id"]))
    with world.check("the size that was asked for"):
        assert (root["size"], on_storpool(world, root)["size"]) == (2 * GIB, 2 * GIB)
    with world.check("pool and StorPool template of the offering's tag"):
        assert root["storageid"] == pool.id
        assert on_storpool(world, root)["templateName"] == pool.storpool_template
    runs_from_iso(world, vm, root)


@scenario(1, "tier", "the ROOT volume has the tier, the StorPool template and the limit of its disk offering")
def tier(world: World) -> None:
    image = iso(world)
    tiered = disk_offering(world, disksize=1)
    limited = disk_offering(world, disksize=1, maxiops=500, miniops=100)
    placed = disk_offering(world, disksize=1)
    detail(world, "DiskOffering", tiered, "SP_QOSCLASS", "tier1")
    detail(world, "DiskOffering", placed, "SP_TEMPLATE", world.environment.pools[1].storpool_template)
    for offering, wanted in (
        (tiered, ("tier1", world.environment.pools[0].storpool_template, "-")),
        (limited, ("", world.environment.pools[0].storpool_template, 500)),
        (placed, ("", world.environment.pools[1].storpool_template, "-")),
    ):
        vm = deploy_from_iso(world, image, offering)
        root = root_volume(world, str(vm["id"]))
        with world.check(f"tier, StorPool template and limit: {wanted}"):
            shown = on_storpool(world, root)
            seen = ((shown.get("tags") or {}).get("qc", ""), shown["templateName"], shown["iops"])
            assert seen == wanted, f"tier, StorPool template and limit are {seen}"
            has_vm_tags(world, vm, root)


@scenario(1, "change-iso", "an ISO is attached to a running and to a stopped VM, replaced, and detached")
def change_iso(world: World) -> None:
    first, second = iso(world), iso(world)
    vm = booted_vm(world)
    boot = world.guest(str(vm["id"])).boot_id()
    for image in (first, second):
        vm = attach_iso(world, image, vm)
        with world.check("the drive of the running VM has it"):
            has_iso(world, vm, image)
    with world.check("an ISO in a drive is not deleted"):
        with refused(world, "an ISO that a VM has", 431):
            world.cloud.call("deleteIso", id=second["id"])
    with world.check("an ISO that was replaced is"):
        world.cloud.call("deleteIso", id=first["id"])
        assert not iso_exists(world, str(first["id"]))
    with world.check("the guest was not disturbed"):
        assert world.guest(str(vm["id"])).boot_id() == boot
    vm = stop(world, vm)
    vm = start(world, vm)
    with world.check("started with the ISO in its drive, the guest boots it, for the drive comes first"):
        has_iso(world, vm, second)
        assert world.guest(str(vm["id"])).booted_from() == "cdrom"
    vm = stop(world, vm)
    vm = detach_iso(world, vm)
    with world.check("detached from the stopped VM"):
        has_iso(world, vm, None)
    vm = start(world, vm)
    with world.check("it boots its disk again"):
        has_iso(world, vm, None)
        assert world.guest(str(vm["id"])).booted_from() == "disk"
    with refused(world, "to detach what is not there", 431):
        world.cloud.call("detachIso", virtualmachineid=vm["id"])


@scenario(1, "two-at-once", "two VMs deployed from one ISO at once have each its own volume")
def two_at_once(world: World) -> None:
    image = iso(world)
    jobs = [world.cloud.start("deployVirtualMachine", **iso_deploy_parameters(world, image)) for _ in range(2)]
    vms = [vm_by_id(world, str(one(world.cloud.wait(job), "virtualmachine")["id"])) for job in jobs]
    roots = [root_volume(world, str(vm["id"])) for vm in vms]
    with world.check("two volumes"):
        assert len({root["path"] for root in roots}) == 2, roots
    for vm, root in zip(vms, roots, strict=True):
        has_tags(world, root, cs="volume", disk="0", cvm=str(vm["id"]), uuid=str(root["id"]))
        has_iso(world, vm, image)
        runs_from_iso(world, vm, root)


@scenario(1, "iso-lost", "an ISO that cannot be read gives a clear error at the start, and nothing is left on the host")
def iso_lost(world: World) -> None:
    image = iso(world)
    vm = stop(world, deploy_from_iso(world, image))
    root = root_volume(world, str(vm["id"]))
    with world.secondary.unreachable(), refused(world, "to start a VM whose ISO cannot be read", 530, 533, 534):
        world.cloud.call("startVirtualMachine", id=vm["id"])
    fully_detached(world, root)
    with world.check("no host has its domain"):
        found = [host.name for host in world.hosts if str(vm["instancename"]) in host.domains()]
        assert found == [], f"domain {vm['instancename']} is on {found}"
    vm = start(world, vm)
    with world.check("it starts once the ISO can be read"):
        assert vm["state"] == "Running", vm
        assert world.guest(str(vm["id"])).booted_from() == "cdrom"


@scenario(1, "refusals", "what cannot be deployed from an ISO, or registered as one, is refused, and nothing is made")
def refusals(world: World) -> None:
    image = iso(world)
    deploys: tuple[tuple[str, dict[str, str | int | bool]], ...] = (
        ("an ISO without a disk offering", deploy_parameters(world, str(image["id"]))),
        ("a disk offering that does not exist", iso_deploy_parameters(world, image, MISSING)),
        (
            "two offerings for one disk",
            iso_deploy_parameters(world, image, overridediskofferingid=disk_offering(world, disksize=2)),
        ),
        ("an ISO that is not bootable", iso_deploy_parameters(world, iso(world, bootable=False))),
    )
    for why, parameters in deploys:
        with refused(world, why, 431):
            world.cloud.call("deployVirtualMachine", **parameters)
    for why, wrong in (
        ("a URL that does not end in .iso", {"url": world.environment.image_url}),
        ("a bootable ISO without an OS type", {"ostypeid": ""}),
        ("a zone that does not exist", {"zoneid": MISSING}),
        ("a scheme that is not fetched", {"url": "ftp://host/a.iso"}),
    ):
        parameters = {key: value for key, value in iso_parameters(world, **wrong).items() if value != ""}
        with refused(world, f"to register {why}", 431):
            world.cloud.call("registerIso", **parameters)
    vm = idle_vm(world)
    template_id = shared_template(world)
    with refused(world, "a template in a CD drive", 431):
        world.cloud.call("attachIso", id=template_id, virtualmachineid=vm["id"])
    with refused(world, "an ISO for a VM that does not exist", 431):
        world.cloud.call("attachIso", id=image["id"], virtualmachineid=MISSING)
    with refused(world, "an ISO deleted as a template", 431):
        world.cloud.call("deleteTemplate", id=image["id"])
    with world.check("an ISO is no template"):
        listed = world.cloud.call("listTemplates", templatefilter="all", listall=True)
        assert image["id"] not in [item["id"] for item in many(listed, "template")]


@scenario(1, "iso-not-there", "an ISO that is none, or is not there, is never ready, and neither deployed nor attached")
def iso_not_there(world: World) -> None:
    digest = hashlib.sha256(b"another image").hexdigest()
    for why, wrong in (
        ("not there", {"url": world.environment.iso_url.replace(".iso", ".missing.iso")}),
        ("of another checksum", {"checksum": f"{{SHA-256}}{digest}"}),
    ):
        answer = world.cloud.call("registerIso", **iso_parameters(world, **wrong))
        iso_id = str(one(answer, "iso")["id"])
        await_download(world, iso_id)
        with world.check(f"{why}: not ready"):
            assert iso_status(world, iso_id) != "Download Complete"
        with refused(world, f"to deploy from an ISO that is {why}", 431):
            world.cloud.call("deployVirtualMachine", **iso_deploy_parameters(world, {"id": iso_id}))
