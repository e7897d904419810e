"""Direct download: a host fetches a template straight to primary storage. Seen from outside: spec/action-table.md."""

from __future__ import annotations

import hashlib
from functools import partial

from harness.observers import Json, World
from scenarios.idle import idle_boots
from scenarios.looks import fails, template_snapshots
from scenarios.registry import scenario
from scenarios.row02_root_from_template import only_snapshot, starts_from, suspended_at_birth
from scenarios.steps import deploy, deploy_parameters, expunge, one, root_volume, template_by_id
from scenarios.templates import all_on_storpool, delete, files_of, names, nothing_left, objects, refused_with


def register(world: World, **parameters: str | bool) -> Json:
    """A template that hosts fetch themselves."""
    env = world.environment
    name = world.name("direct")
    chosen: dict[str, str | bool] = {
        "name": name,
        "displaytext": name,
        "format": "QCOW2",
        "hypervisor": "KVM",
        "url": env.image_url,
        "zoneid": env.zone_id,
        "ostypeid": env.os_type_id,
        "directdownload": True,
    }
    answer = world.cloud.call("registerTemplate", **{**chosen, **parameters})
    return template_by_id(world, str(one(answer, "template")["id"]))


def register_idle(world: World) -> Json:
    """The same, of an image with no system."""
    return register(world, url=world.environment.idle_image_url or world.environment.image_url)


def boots(world: World, vm: Json) -> None:
    with world.check("the guest boots"):
        assert world.guest(str(vm["id"])).boot_id()


@scenario("direct-download", "first-use", "a host fetches the template at its first use; nothing on secondary storage")
def first_use(world: World) -> None:
    made = register(world)
    with world.check("ready at once, of the image's size, past secondary storage"):
        assert made["isready"] and made["directdownload"], made
        assert (made["status"], made["size"]) == ("Bypassed Secondary Storage", world.environment.image_size), made
        assert files_of(world, made) == [], files_of(world, made)
        assert all_on_storpool(world, made) == []
    vm, host = suspended_at_birth(world, str(made["id"]))
    root = root_volume(world, str(vm["id"]))
    with world.check("one StorPool snapshot with its tags, and no volume of the seeding"):
        snapshot = only_snapshot(world, str(made["id"]))
        tags = {key: value for key, value in snapshot["tags"].items() if value}
        assert tags == {"cs": "template", "uuid": made["id"]}, tags
        assert len(all_on_storpool(world, made)) == 1
        starts_from(world, root, snapshot)
    with world.check("the ROOT volume has the image's bytes"):
        content = host.read_device(str(root["path"]), 0, world.environment.image_size)
        assert hashlib.sha256(content).hexdigest() == world.environment.image_sha256
    host.resume(str(vm["instancename"]))
    boots(world, vm)
    with world.check("nothing on secondary storage"):
        assert files_of(world, made) == [], files_of(world, made)


@scenario("direct-download", "two-at-once", "two VMs at once fetch it once; later ones copy nothing")
def two_at_once(world: World) -> None:
    made = register_idle(world)
    jobs = [world.cloud.start("deployVirtualMachine", **deploy_parameters(world, str(made["id"]))) for _ in range(2)]
    vms = [one(world.cloud.wait(job), "virtualmachine") for job in jobs]
    vms.append(deploy(world, str(made["id"])))
    snapshot = only_snapshot(world, str(made["id"]))
    for vm in vms:
        starts_from(world, root_volume(world, str(vm["id"])), snapshot)
    idle_boots(world, *vms)


@scenario("direct-download", "lost", "StorPool has lost the snapshot: a host fetches it again")
def lost(world: World) -> None:
    made = register_idle(world)
    expunge(world, deploy(world, str(made["id"])))
    world.storpool.lose_snapshot("~" + str(only_snapshot(world, str(made["id"]))["globalId"]))
    vm = deploy(world, str(made["id"]))
    starts_from(world, root_volume(world, str(vm["id"])), only_snapshot(world, str(made["id"])))
    idle_boots(world, vm)


@scenario("direct-download", "deleted", "deleted, nothing of it is left")
def deleted(world: World) -> None:
    made = register_idle(world)
    expunge(world, deploy(world, str(made["id"])))
    delete(world, made)
    nothing_left(world, made)


@scenario("direct-download", "checksum", "an image with another checksum is refused when it is fetched; nothing stays")
def checksum(world: World) -> None:
    made = register(world, checksum="{SHA-256}" + "0" * 64)
    before = objects(world)
    error = fails(lambda: deploy(world, str(made["id"])))
    with world.check("the error tells the checksums"):
        assert "sha256" in error.text and "0" * 64 in error.text, error.text
    with world.check("nothing stays on StorPool"):
        world.wait_until("nothing of it is on StorPool", lambda: objects(world) <= before, 120)
        assert template_snapshots(world, str(made["id"])) == []


@scenario("direct-download", "refusals", "what hosts cannot fetch is refused when it is registered")
def refusals(world: World) -> None:
    url = world.environment.image_url
    known = names(world)
    for why, words, parameters in (
        ("a URL with nothing there", "404", {"url": url + ".missing"}),
        ("a file of a host", "Unsupported scheme", {"url": "file:///etc/passwd.qcow2"}),
        ("another format", "Unsupported format", {"format": "RAW"}),
    ):
        refused_with(world, why, words, partial(register, world, **parameters))
    with world.check("no template was made"):
        assert names(world) == known
