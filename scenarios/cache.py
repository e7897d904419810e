"""The template cache: seed once, reuse, seed again when StorPool lost it, collect when unused. Seen from outside:
spec/action-table.md."""

from __future__ import annotations

from harness.observers import Json, World
from scenarios.idle import idle_boots
from scenarios.looks import template_snapshots
from scenarios.registry import scenario
from scenarios.row02_root_from_template import only_snapshot, starts_from
from scenarios.steps import (
    deploy,
    deploy_parameters,
    disk_offering,
    expunge,
    new_idle_template,
    one,
    root_volume,
    setting,
    template,
    template_by_id,
)
from scenarios.templates import INTERVAL, all_on_storpool, collected, files_of

ENABLED = "storage.template.cleanup.enabled"


def boots(world: World, vm: Json) -> None:
    with world.check("the guest boots"):
        assert world.guest(str(vm["id"])).boot_id()


def is_there(world: World, made: Json) -> None:
    with world.check("the template itself is as it was"):
        assert template_by_id(world, str(made["id"]))["isready"]
        assert len(files_of(world, made)) == 1


@scenario("cache", "collected", "a snapshot that no volume uses is collected, and the next deploy seeds again")
def gets_collected(world: World) -> None:
    made = new_idle_template(world)
    expunge(world, deploy(world, str(made["id"])))
    first = only_snapshot(world, str(made["id"]))
    collected(world, made)
    is_there(world, made)
    vm = deploy(world, str(made["id"]))
    with world.check("another snapshot, that the VM starts from"):
        again = only_snapshot(world, str(made["id"]))
        assert again["globalId"] != first["globalId"]
        starts_from(world, root_volume(world, str(vm["id"])), again)
    idle_boots(world, vm)


@scenario("cache", "used", "a snapshot that a volume uses is never collected")
def used(world: World) -> None:
    made, unused = new_idle_template(world), new_idle_template(world)
    vm = deploy(world, str(made["id"]))
    expunge(world, deploy(world, str(unused["id"])))
    before = only_snapshot(world, str(made["id"]))
    collected(world, unused)
    with world.check("the used one is there, and serves"):
        assert only_snapshot(world, str(made["id"]))["globalId"] == before["globalId"]
        starts_from(world, root_volume(world, str(deploy(world, str(made["id"]))["id"])), before)
    idle_boots(world, vm)


@scenario("cache", "off", "with the cleanup switched off nothing is collected")
def off(world: World) -> None:
    made, witness = new_idle_template(world), new_idle_template(world)
    expunge(world, deploy(world, str(made["id"])))
    with setting(world, ENABLED, "false", "true"), setting(world, INTERVAL, "1", "86400"):
        # Long enough for several rounds of the background task.
        for _ in range(2):
            expunge(world, deploy(world, str(witness["id"])))
        with world.check("it is there"):
            assert len(template_snapshots(world, str(made["id"]))) == 1
    collected(world, made)


@scenario("cache", "race", "deploys while the background task collects: each VM boots from the template's bytes")
def race(world: World) -> None:
    made = new_idle_template(world)
    with setting(world, INTERVAL, "1", "86400"):
        for _ in range(4):
            jobs = [
                world.cloud.start("deployVirtualMachine", **deploy_parameters(world, str(made["id"]))) for _ in range(2)
            ]
            vms = [one(world.cloud.wait(job), "virtualmachine") for job in jobs]
            idle_boots(world, *vms)
            for vm in vms:
                with world.check("ROOT starts from the one snapshot that is there"):
                    starts_from(world, root_volume(world, str(vm["id"])), only_snapshot(world, str(made["id"])))
            for vm in vms:
                expunge(world, vm)
    collected(world, made)


@scenario("cache", "lost", "StorPool has lost the snapshot: it is seeded again, once, with the same bytes")
def lost(world: World) -> None:
    made = template(world)
    first = deploy(world, str(made["id"]))
    boots(world, first)
    world.storpool.lose_snapshot("~" + str(only_snapshot(world, str(made["id"]))["globalId"]))
    jobs = [world.cloud.start("deployVirtualMachine", **deploy_parameters(world, str(made["id"]))) for _ in range(2)]
    vms = [one(world.cloud.wait(job), "virtualmachine") for job in jobs]
    again = only_snapshot(world, str(made["id"]))
    for vm in vms:
        starts_from(world, root_volume(world, str(vm["id"])), again)
        boots(world, vm)
    boots(world, first)


@scenario("cache", "pools", "each pool has a snapshot of its own, and one is collected without the other")
def pools(world: World) -> None:
    made = new_idle_template(world)
    other = world.environment.pools[1]
    offering = disk_offering(world, disksize=1, tags=other.tag)
    here = deploy(world, str(made["id"]))
    there = deploy(world, str(made["id"]), overridediskofferingid=offering)
    with world.check("one on each pool"):
        found = sorted(str(item["templateName"]) for item in template_snapshots(world, str(made["id"])))
        assert found == sorted(pool.storpool_template for pool in world.environment.pools[:2]), found
    expunge(world, there)

    def left() -> list[str]:
        return [str(item["templateName"]) for item in template_snapshots(world, str(made["id"]))]

    with setting(world, INTERVAL, "1", "86400"):
        world.wait_until("one is collected", lambda: len(left()) == 1, 300)
    with world.check("that of the pool where a VM uses it is there"):
        assert left() == [world.environment.pools[0].storpool_template], left()
    idle_boots(world, here)
    with world.check("nothing else of it is on StorPool"):
        assert len(all_on_storpool(world, made)) == 1
