"""Templates: how they are made and deleted, and what can be seen of them from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.observers import Host, Json, World
from scenarios.looks import on_storpool, refused, template_snapshots
from scenarios.snapshots import BLOCK, attached_nowhere, guest_reads, pattern
from scenarios.steps import GIB, deploy, many, one, root_volume, setting, template_by_id, vm_by_id

FILES = "template/tmpl/2"
INTERVAL = "storage.cleanup.interval"
COLLECT_SECONDS = 300
"""Longer than two rounds of the background task take when they follow each other at once."""
BEYOND = (GIB, 2 * GIB - BLOCK)
"""Places of a ROOT disk of 2 GiB that no file system of the guest uses."""


def create(world: World, **parameters: str | int | bool) -> Json:
    """createTemplate, from `volumeid` or `snapshotid`."""
    name = world.name("template")
    chosen: dict[str, str | int | bool] = {
        "name": name,
        "displaytext": name,
        "ostypeid": world.environment.os_type_id,
    }
    answer = world.cloud.call("createTemplate", **{**chosen, **parameters})
    return template_by_id(world, str(one(answer, "template")["id"]))


def from_volume(world: World, volume: Json, **parameters: str | int | bool) -> Json:
    return create(world, volumeid=str(volume["id"]), **parameters)


def from_snapshot(world: World, snapshot: Json, **parameters: str | int | bool) -> Json:
    return create(world, snapshotid=str(snapshot["id"]), **parameters)


def delete(world: World, template: Json, *, forced: bool = False) -> None:
    world.cloud.call("deleteTemplate", id=template["id"], **({"forced": True} if forced else {}))


def template_exists(world: World, template: Json) -> bool:
    answer = world.cloud.call("listTemplates", templatefilter="all", id=template["id"], listall=True)
    return bool(many(answer, "template"))


def names(world: World) -> list[str]:
    """Of all templates that CloudStack shows."""
    answer = world.cloud.call("listTemplates", templatefilter="all", listall=True)
    return sorted(str(item["name"]) for item in many(answer, "template"))


def files_of(world: World, template: Json) -> list[str]:
    return [path for path in world.secondary.files(FILES) if str(template["id"]) in path]


def file_of(world: World, template: Json) -> str:
    found = files_of(world, template)
    assert len(found) == 1, f"template {template['id']} has these files on secondary storage: {found}"
    return found[0]


def all_on_storpool(world: World, template: Json) -> list[Json]:
    """Every StorPool object, volume or snapshot, that carries its uuid and was not deleted."""
    return [
        item
        for item in [*world.storpool.volumes(), *world.storpool.snapshots()]
        if (item.get("tags") or {}).get("uuid") == template["id"] and not item.get("deleted")
    ]


def mirrors(world: World, template: Json) -> list[Json]:
    """StorPool snapshots that the template was made as."""
    return [item for item in all_on_storpool(world, template) if item["tags"].get("vc-policy") == "no"]


def mirror_of(world: World, template: Json) -> Json:
    """The one StorPool snapshot that the template was made as, with its tags, attached nowhere."""
    found = mirrors(world, template)
    assert len(found) == 1, f"template {template['id']} was made as {found}"
    tags = {key: value for key, value in found[0]["tags"].items() if value}
    assert tags == {"uuid": template["id"], "cs": "template", "vc-policy": "no"}, tags
    attached_nowhere(world, str(found[0]["globalId"]))
    return found[0]


def looks_right(world: World, template: Json, size: int) -> None:
    with world.check("CloudStack: ready, a qcow2 of the disk's size, of the account and OS type"):
        seen = (template["isready"], template["status"], template["format"], template["size"])
        assert seen == (True, "Download Complete", "QCOW2", size), template
        assert template["templatetype"] == "USER" and template["hypervisor"] == "KVM", template
        assert template["ostypeid"] == world.environment.os_type_id, template
        assert template["physicalsize"] > 0, template
    with world.check("a qcow2 of that size on secondary storage, and no other file of it"):
        found = world.secondary.size(file_of(world, template))
        assert found == size, f"{found} bytes"


def file_holds(world: World, template: Json, word: str, places: Sequence[int]) -> None:
    path = file_of(world, template)
    for place in places:
        seen = world.secondary.read(path, place, BLOCK)
        assert seen == pattern(word, place), f"{path} at {place}: {seen[:48]!r}, expected {word!r}"


def boots_with(world: World, template: Json, word: str, places: tuple[int, ...] = BEYOND) -> Json:
    """A VM from the template boots and has the word's bytes; ROOT starts from the template's one cached snapshot."""
    vm = deploy(world, str(template["id"]))
    root = root_volume(world, str(vm["id"]))
    with world.check("a VM from the template boots"):
        assert world.guest(str(vm["id"])).boot_id()
    with world.check("its disk has the template's size, and starts from the one cached snapshot"):
        (cached,) = template_snapshots(world, str(template["id"]))
        found = on_storpool(world, root)
        assert root["size"] == found["size"] == template["size"], root
        assert found["parentName"] == cached["name"], found
    with world.check("its guest reads the bytes of the template's moment"):
        guest_reads(world, vm, root, word, places)
    return vm


def collected(world: World, template: Json) -> None:
    """The background task removes its cached snapshots, and nothing of it is left on StorPool."""
    with setting(world, INTERVAL, "1", "86400"):
        world.wait_until("its cached snapshots are collected", lambda: not _cached(world, template), COLLECT_SECONDS)
    with world.check("nothing of it is on StorPool"):
        assert all_on_storpool(world, template) == [], all_on_storpool(world, template)


def _cached(world: World, template: Json) -> list[Json]:
    return template_snapshots(world, str(template["id"]))


def suspended_at_start(world: World, vm: Json) -> tuple[Json, Host]:
    """Start the VM, and stop its guest in its firmware, seconds before it could write to its disk."""
    name, found = str(vm["instancename"]), list[Host]()
    job = world.cloud.start("startVirtualMachine", id=vm["id"])

    def appeared() -> bool:
        for host in world.hosts:
            if host.domains().get(name) == "running":
                host.suspend(name)
                found.append(host)
        return bool(found)

    world.wait_until("the domain runs", appeared, 120)
    world.cloud.wait(job)
    return vm_by_id(world, str(vm["id"])), found[0]


def nothing_left(world: World, template: Json) -> None:
    with world.check("CloudStack does not show it"):
        assert not template_exists(world, template), template
    with world.check("no file of it is on secondary storage"):
        assert files_of(world, template) == [], files_of(world, template)
    with world.check("no object of it is on StorPool"):
        assert all_on_storpool(world, template) == [], all_on_storpool(world, template)


def objects(world: World) -> set[str]:
    """Global ids of everything on StorPool that was not deleted."""
    found = [*world.storpool.volumes(), *world.storpool.snapshots()]
    return {str(item["globalId"]) for item in found if not item.get("deleted")}


def refused_with(world: World, why: str, words: str, work: Callable[[], object]) -> None:
    """The work must end with an error that says the words, and change nothing, templates and their files neither."""
    templates, files = names(world), world.secondary.files("template")
    with refused(world, why, 431, 530, saying=words):
        work()
    with world.check(f"no template came or went: {why}"):
        assert names(world) == templates and world.secondary.files("template") == files
