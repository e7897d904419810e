"""Row 17: delete template. Seen from outside: spec/action-table.md row 17."""

from __future__ import annotations

from functools import partial

from harness.observers import Json, World
from scenarios.looks import fully_attached, reread, reread_volume, template_snapshots
from scenarios.registry import scenario
from scenarios.row11_template_from_volume import stopped_vm
from scenarios.snapshots import guest_reads, write
from scenarios.steps import (
    GIB,
    MISSING,
    deploy,
    expunge,
    new_idle_template,
    root_volume,
    setting,
    start,
    stop,
    template,
)
from scenarios.templates import (
    BEYOND,
    boots_with,
    collected,
    delete,
    files_of,
    from_volume,
    mirrors,
    nothing_left,
    refused_with,
    template_exists,
)

EVICT = "template.delete.from.primary.storage"
PLACES = (GIB,)


def used(world: World, made: Json) -> tuple[Json, Json]:
    """A running VM from the template, with a word on its ROOT disk beyond what the template has."""
    vm = deploy(world, str(made["id"]), rootdisksize=2)
    root = root_volume(world, str(vm["id"]))
    world.guest(str(vm["id"])).boot_id()
    write(world, vm, root, "mine", PLACES)
    return vm, root


def unharmed(world: World, vm: Json, root: Json) -> None:
    """It runs, has its bytes, and boots again."""
    with world.check("the VM made from it runs, with its bytes"):
        guest_reads(world, vm, root, "mine", PLACES)
    fully_attached(world, reread(world, vm), reread_volume(world, root))
    vm = start(world, stop(world, vm))
    with world.check("and boots again"):
        assert world.guest(str(vm["id"])).boot_id()
        guest_reads(world, vm, root, "mine", PLACES)


@scenario(17, "unused", "a template that nothing uses: file and cached snapshot are gone at once (#11782)")
def unused(world: World) -> None:
    made = new_idle_template(world)
    expunge(world, deploy(world, str(made["id"])))
    with world.check("it was cached"):
        assert len(template_snapshots(world, str(made["id"]))) == 1
    delete(world, made)
    nothing_left(world, made)
    with world.check("no VM can be made from it"):
        assert not template_exists(world, made)
    refused_with(world, "a VM from it", "entity does not exist", lambda: deploy(world, str(made["id"])))


@scenario(17, "never-used", "a template that was never used")
def never_used(world: World) -> None:
    made = template(world)
    delete(world, made)
    nothing_left(world, made)


@scenario(17, "in-use", "a template in use: its VMs are unharmed, and its cached snapshot is collected after the last")
def in_use(world: World) -> None:
    made = template(world)
    vm, root = used(world, made)
    refused_with(world, "a template in use, not forced", "are using it", lambda: delete(world, made))
    delete(world, made, forced=True)
    with world.check("not listed, no file, and the snapshot that its VM was made from stays"):
        assert not template_exists(world, made) and files_of(world, made) == []
        assert len(template_snapshots(world, str(made["id"]))) == 1
    unharmed(world, vm, root)
    expunge(world, vm)
    collected(world, made)


@scenario(17, "used-by-volume", "the snapshot stays for a ROOT volume that outlived its VM (#10688)")
def used_by_volume(world: World) -> None:
    made = template(world)
    vm, root = used(world, made)
    stop(world, vm)
    world.cloud.call("detachVolume", id=root["id"])
    expunge(world, vm)
    delete(world, made)
    with setting(world, "storage.cleanup.interval", "1", "86400"):
        other = deploy(world, volumeid=str(root["id"]))
        with world.check("a VM of that volume boots, with the bytes"):
            assert world.guest(str(other["id"])).boot_id()
            guest_reads(world, other, root, "mine", PLACES)
    with world.check("what it was made from is still there"):
        assert len(template_snapshots(world, str(made["id"]))) == 1
    expunge(world, other)
    collected(world, made)


@scenario(17, "later", "with the setting off the cached snapshot waits for the background task")
def later(world: World) -> None:
    made = new_idle_template(world)
    expunge(world, deploy(world, str(made["id"])))
    with setting(world, EVICT, "false", "true"):
        delete(world, made)
        with world.check("it is still on StorPool"):
            assert len(template_snapshots(world, str(made["id"]))) == 1
    collected(world, made)
    nothing_left(world, made)


@scenario(17, "made-here", "a template made from a volume: its own StorPool snapshot goes, too; the volume is unharmed")
def made_here(world: World) -> None:
    vm, volume = stopped_vm(world, "old")
    made = from_volume(world, volume)
    expunge(world, boots_with(world, made, "old"))
    with world.check("it was made as one snapshot, and cached as another"):
        assert len(mirrors(world, made)) == len(template_snapshots(world, str(made["id"]))) == 1
    delete(world, made)
    nothing_left(world, made)
    start(world, vm)
    with world.check("the volume that it was made from is unharmed"):
        assert world.guest(str(vm["id"])).boot_id()
        guest_reads(world, vm, volume, "old", BEYOND)


@scenario(17, "lost", "what StorPool has lost already is deleted")
def lost(world: World) -> None:
    _, volume = stopped_vm(world, "old")
    made = from_volume(world, volume)
    expunge(world, boots_with(world, made, "old"))
    for item in (*mirrors(world, made), *template_snapshots(world, str(made["id"]))):
        world.storpool.lose_snapshot("~" + str(item["globalId"]))
    delete(world, made)
    nothing_left(world, made)


@scenario(17, "others", "the next deploy of another template is unaffected")
def others(world: World) -> None:
    first, second = new_idle_template(world), template(world)
    vm, root = used(world, second)
    expunge(world, deploy(world, str(first["id"])))
    snapshot = template_snapshots(world, str(second["id"]))
    delete(world, first)
    nothing_left(world, first)
    with world.check("the other template is as it was"):
        assert template_exists(world, second) and len(files_of(world, second)) == 1
        assert template_snapshots(world, str(second["id"])) == snapshot
    other = deploy(world, str(second["id"]))
    with world.check("a VM from it boots, from the same snapshot"):
        assert world.guest(str(other["id"])).boot_id()
        assert len(template_snapshots(world, str(second["id"]))) == 1
    unharmed(world, vm, root)


@scenario(17, "refusals", "what cannot be deleted is refused with a reason")
def refusals(world: World) -> None:
    made = template(world)
    delete(world, made)
    for why, template_id in (("that was deleted", str(made["id"])), ("that does not exist", MISSING)):
        work = partial(delete, world, {"id": template_id})
        refused_with(world, f"a template {why}", "entity does not exist", work)
