"""Row 11: create template from ROOT volume. Seen from outside: spec/action-table.md row 11."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from harness.observers import Json, World
from scenarios.looks import (
    fails,
    fully_detached,
    on_storpool,
    reread_volume,
    template_snapshots,
)
from scenarios.registry import scenario
from scenarios.row02_root_from_template import suspended_at_birth
from scenarios.snapshots import guest_reads, take, write
from scenarios.steps import (
    MISSING,
    attach,
    booted_vm,
    data_volume,
    deploy,
    detach,
    disk_offering,
    one,
    pool_of,
    root_volume,
    running_vm,
    shared_template,
    start,
    stop,
    template_by_id,
)
from scenarios.templates import (
    BEYOND,
    boots_with,
    create,
    file_holds,
    file_of,
    from_volume,
    looks_right,
    mirror_of,
    names,
    objects,
    refused_with,
    suspended_at_start,
)


def stopped_vm(world: World, word: str) -> tuple[Json, Json]:
    """A stopped VM with a ROOT disk of 2 GiB that its guest wrote the word to."""
    vm = deploy(world, shared_template(world), rootdisksize=2)
    root = root_volume(world, str(vm["id"]))
    world.guest(str(vm["id"])).boot_id()
    write(world, vm, root, word, BEYOND)
    return stop(world, vm), root


def made_as(world: World, template: Json, volume: Json) -> None:
    with world.check("one StorPool snapshot with its tags, on the volume's StorPool template, attached nowhere"):
        found = mirror_of(world, template)
        assert found["size"] == volume["size"], found
        assert found["templateName"] == on_storpool(world, volume)["templateName"], found
    with world.check("the volume goes on from it"):
        assert on_storpool(world, volume)["parentName"] == found["name"], on_storpool(world, volume)


@scenario(11, "root", "template from the ROOT volume of a stopped VM: file and StorPool snapshot with its bytes")
def root(world: World) -> None:
    vm, volume = stopped_vm(world, "old")
    made = from_volume(world, volume)
    looks_right(world, made, int(volume["size"]))
    made_as(world, made, volume)
    with world.check("the qcow2 has the volume's bytes"):
        file_holds(world, made, "old", BEYOND)
    with world.check("nothing is cached before the first use"):
        assert template_snapshots(world, str(made["id"])) == []
    with world.check("the volume is as it was"):
        assert reread_volume(world, volume)["state"] == "Ready"
    fully_detached(world, volume)
    start(world, vm)
    world.guest(str(vm["id"])).boot_id()
    write(world, vm, volume, "new", BEYOND)
    boots_with(world, made, "old")
    with world.check("the volume has what was written since"):
        guest_reads(world, vm, volume, "new", BEYOND)


@scenario(11, "same-bytes", "every byte of volume, file and StorPool snapshot is the same")
def same_bytes(world: World) -> None:
    source = stop(world, booted_vm(world))
    volume = root_volume(world, str(source["id"]))
    size = int(volume["size"])
    made = from_volume(world, volume)
    content = world.secondary.read(file_of(world, made), 0, size)
    source, host = suspended_at_start(world, source)
    with world.check("the volume, all of it"):
        assert host.read_device(str(volume["path"]), 0, size) == content
    host.resume(str(source["instancename"]))
    vm, host = suspended_at_birth(world, str(made["id"]))
    with world.check("a ROOT volume that starts from the StorPool snapshot, all of it"):
        assert host.read_device(str(root_volume(world, str(vm["id"]))["path"]), 0, size) == content
    host.resume(str(vm["instancename"]))
    with world.check("and it boots"):
        assert world.guest(str(vm["id"])).boot_id()


@scenario(11, "no-copy", "the first VM from it copies no data: StorPool has the bytes")
def no_copy(world: World) -> None:
    _, volume = stopped_vm(world, "old")
    made = from_volume(world, volume)
    with world.secondary.unreachable():
        boots_with(world, made, "old")
    with world.check("no volume of the seeding is left"):
        left = [v for v in world.storpool.volumes() if (v.get("tags") or {}).get("cs") == "template"]
        assert left == [], left


@scenario(11, "other-pool", "a VM on another pool, and one after StorPool lost the template's snapshot")
def other_pool(world: World) -> None:
    _, volume = stopped_vm(world, "old")
    made = from_volume(world, volume)
    pool = world.environment.pools[1]
    offering = disk_offering(world, disksize=2, tags=pool.tag)
    vm = deploy(world, str(made["id"]), overridediskofferingid=offering)
    disk = root_volume(world, str(vm["id"]))
    with world.check("on the other pool it boots, with the bytes"):
        assert pool_of(world, disk).id == pool.id
        assert on_storpool(world, disk)["templateName"] == pool.storpool_template
        assert world.guest(str(vm["id"])).boot_id()
        guest_reads(world, vm, disk, "old", BEYOND)
    world.storpool.lose_snapshot("~" + str(mirror_of(world, made)["globalId"]))
    other = deploy(world, str(made["id"]))
    with world.check("without its snapshot it is copied from secondary storage, and boots with the bytes"):
        assert world.guest(str(other["id"])).boot_id()
        guest_reads(world, other, root_volume(world, str(other["id"])), "old", BEYOND)


@scenario(11, "data", "template from a detached DATA volume")
def data(world: World) -> None:
    vm = booted_vm(world)
    volume = attach(world, data_volume(world, 2), vm)
    write(world, vm, volume, "data", BEYOND)
    volume = detach(world, volume)
    made = from_volume(world, volume)
    looks_right(world, made, int(volume["size"]))
    made_as(world, made, volume)
    with world.check("the qcow2 has the volume's bytes"):
        file_holds(world, made, "data", BEYOND)


@scenario(11, "two-at-once", "two templates of one volume at once, each its own")
def two_at_once(world: World) -> None:
    _, volume = stopped_vm(world, "old")
    jobs = [
        world.cloud.start(
            "createTemplate",
            name=world.name("template"),
            displaytext="two",
            ostypeid=world.environment.os_type_id,
            volumeid=volume["id"],
        )
        for _ in range(2)
    ]
    made = [template_by_id(world, str(one(world.cloud.wait(job), "template")["id"])) for job in jobs]
    for each in made:
        looks_right(world, each, int(volume["size"]))
        with world.check("with a StorPool snapshot of its own, and the bytes"):
            mirror_of(world, each)
            file_holds(world, each, "old", BEYOND)


@scenario(11, "started-meanwhile", "the VM may start while the template is copied: the template has the moment before")
def started_meanwhile(world: World) -> None:
    vm, volume = stopped_vm(world, "old")
    name = world.name("template")
    job = world.cloud.start("createTemplate", name=name, ostypeid=world.environment.os_type_id, volumeid=volume["id"])

    def snapped() -> bool:
        parent = str(on_storpool(world, volume)["parentName"])
        found = world.storpool.snapshot(parent) if parent else None
        return found is not None and (found.get("tags") or {}).get("vc-policy") == "no"

    world.wait_until("the StorPool snapshot was made", snapped)
    start(world, vm)
    world.guest(str(vm["id"])).boot_id()
    write(world, vm, volume, "new", BEYOND)
    made = template_by_id(world, str(one(world.cloud.wait(job), "template")["id"]))
    with world.check("the qcow2 has the bytes of the moment when it was asked for"):
        file_holds(world, made, "old", BEYOND)
    boots_with(world, made, "old")


@scenario(11, "secondary-away", "secondary storage is away: a clear error, nothing stays, and later it works")
def secondary_away(world: World) -> None:
    _, volume = stopped_vm(world, "old")
    before, templates = objects(world), names(world)
    with world.secondary.unreachable():
        error = fails(lambda: from_volume(world, volume))
    with world.check("the error says what failed"):
        assert "Failed to create template" in error.text and "image store" in error.text, error.text
    with world.check("no template, no StorPool object and no file stays"):
        assert names(world) == templates, names(world)
        world.wait_until("nothing of it is on StorPool", lambda: objects(world) <= before, 120)
    made = from_volume(world, volume)
    with world.check("made again, it has the bytes"):
        file_holds(world, made, "old", BEYOND)
        mirror_of(world, made)


@scenario(11, "hosts-cut", "no host reaches StorPool's API: a clear error, and nothing stays")
def hosts_cut(world: World) -> None:
    _, volume = stopped_vm(world, "old")
    before, templates, files = objects(world), names(world), world.secondary.files("template")
    with ExitStack() as cuts:
        for host in world.hosts:
            cuts.enter_context(host.storpool_api_cut())
        error = fails(lambda: from_volume(world, volume))
    with world.check("the error names the cause"):
        assert "StorPool API" in error.text, error.text
    with world.check("no template, no StorPool object and no file stays"):
        assert names(world) == templates, names(world)
        world.wait_until("nothing of it is on StorPool", lambda: objects(world) <= before, 120)
        assert world.secondary.files("template") == files, world.secondary.files("template")


@scenario(11, "refusals", "what no template can be made from is refused with a reason")
def refusals(world: World) -> None:
    vm = running_vm(world)
    volume = root_volume(world, str(vm["id"]))
    unused = data_volume(world)
    snapshot = take(world, volume)
    for why, words, parameters in (
        ("the volume of a running VM", "please stop the VM first", {"volumeid": str(volume["id"])}),
        ("a volume that was never used", "not Ready", {"volumeid": str(unused["id"])}),
        ("a volume that does not exist", "entity does not exist", {"volumeid": MISSING}),
        ("neither a volume nor a snapshot", "neither volume ID nor snapshot ID", {}),
        ("both", "please specify only one", {"volumeid": str(volume["id"]), "snapshotid": str(snapshot["id"])}),
    ):
        refused_with(world, why, words, partial(create, world, **parameters))
