"""A world that starts from a prepared cloud is the world that a boot gives, and goes on as that one does."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import msgspec
import pytest

from harness import checks
from harness.bench.memory import deploy, template, whole_life
from harness.cloudstack.api.dispatch import COMMANDS
from harness.observers import Json
from harness.worlds.memory.processes import MANAGEMENT, agent_of
from harness.worlds.memory.world import PREPARING_SEED, MemoryWorld, prepare
from simulator.blocks.memory import PAGE, MemoryBlocks
from simulator.ports import Links

SPACE = re.compile(r", '(?:disksizeused|physicalsize)': \d+")
UNTOLD = {"listapis", "listtags", "listresourcedetails", "liststorageproviders", "listcapacity"}
"""The first tells nothing of the cloud, the others want an object."""
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def everything(world: MemoryWorld) -> Json:
    """All that the observers show."""
    told: Json = {
        "calls": dict(world.storpool.calls()),
        "elapsed": world.simulation.elapsed,
        "environment": dataclasses.asdict(world.environment),
    }
    for name, command in COMMANDS.items():
        if name.startswith("list") and name not in UNTOLD:
            parameters = {"templatefilter": "all"} if name == "listtemplates" else {"listall": True}
            told[name] = world.cloud.call(command.name, **parameters)
    for pool in told["liststoragepools"]["storagepool"]:
        # A server asks StorPool again after its start.
        pool.pop("disksizeused", None)
    for volume in told["listvolumes"].get("volume", []):
        volume.pop("physicalsize", None)
    told["picture"] = SPACE.sub("", repr(checks.take(world)))
    return told


def without_ids(told: Json) -> str:
    """Ids are numbered by their first appearance."""
    numbers: dict[str, int] = {}
    text = msgspec.json.encode(told, order="deterministic").decode()
    return UUID.sub(lambda found: f"id {numbers.setdefault(found[0], len(numbers))}", text)


def test_a_prepared_world_shows_what_a_boot_of_the_same_seed_shows() -> None:
    booted = MemoryWorld(PREPARING_SEED, start=None).run(everything)
    assert len(booted["listhosts"]["host"]) == 2
    assert MemoryWorld(7).run(everything) == booted


@pytest.mark.parametrize("seed", range(4))
def test_a_boot_of_any_seed_shows_the_same_but_for_ids(seed: int) -> None:
    assert without_ids(MemoryWorld(seed, start=None).run(everything)) == without_ids(MemoryWorld(seed).run(everything))


def through_deaths(world: MemoryWorld) -> Json:
    whole_life(world)
    # Long enough that pings and everything that was put off have been.
    world.simulation.main.sleep(1000)
    for process in (*world.processes.names, MANAGEMENT):
        world.kill(process)
        world.start(process)
    assert not checks.violations(checks.take(world))
    told = everything(world)
    # How often somebody had to look, and how long a guest took, is the schedule's.
    for host in told["listhosts"]["host"]:
        del host["lastpinged"]
    return {name: told[name] for name in ("listvolumes", "listtemplates", "listhosts", "liststoragepools")}


@pytest.mark.parametrize("seed", range(3))
def test_both_live_and_start_again_alike(seed: int) -> None:
    booted = MemoryWorld(seed, start=None).run(through_deaths)
    assert without_ids(MemoryWorld(seed).run(through_deaths)) == without_ids(booted)


def test_a_cloud_with_a_template_can_be_prepared_and_each_world_has_its_own_copy() -> None:
    made = prepare(lambda world: (template(world), None)[1])
    seen: list[str] = []

    def use(world: MemoryWorld) -> None:
        (listed,) = world.cloud.call("listTemplates", templatefilter="all")["template"]
        assert listed["isready"]
        seen.append(str(listed["id"]))
        vm = deploy(world, str(listed["id"]))
        assert world.guest(vm).boot_id()
        world.cloud.call("destroyVirtualMachine", id=vm, expunge=True)
        world.cloud.call("deleteTemplate", id=listed["id"])
        assert world.cloud.call("listTemplates", templatefilter="all") == {}

    for seed in (1, 2):
        MemoryWorld(seed, start=lambda: made).run(use)
    assert seen[0] == seen[1]


def test_copied_blocks_share_nothing_that_changes() -> None:
    blocks = MemoryBlocks(1 << 20)
    blocks.create(1, 3 * PAGE)
    blocks.write(1, 0, b"a" * PAGE)
    blocks.clone(1, 2, 3 * PAGE)
    blocks.create(3, 3 * PAGE)
    blocks.attach(2, Links(1, ("name",), ("id",)), read_only=False)
    blocks.open(2, 1)
    copy = blocks.copy()
    blocks.write(1, 0, b"b" * PAGE)
    blocks.write(3, 0, b"d" * PAGE)
    blocks.release(2, 1)
    blocks.detach(2, 1, force=False)
    blocks.delete(2)
    assert copy.read(1, 0, 1) + copy.read(2, 0, 1) == b"aa"
    assert copy.read(3, 0, PAGE) == bytes(PAGE)
    assert copy.opened(2) and copy.links(1) == {"name": 2}
    copy.write(2, PAGE, b"c" * PAGE)
    assert copy.read(1, PAGE, 1) + copy.read(2, 0, 1) == b"\0a"
    assert blocks.read(1, 0, 1) == b"b" and blocks.objects() == [1, 3]
    assert copy.capacity()[1] == (1 << 20) - 2 * PAGE


def test_a_cloud_with_a_running_vm_can_be_prepared_and_each_world_has_its_own_guest() -> None:
    shown: list[Json] = []

    def make(world: MemoryWorld) -> None:
        deploy(world, template(world))
        world.wait_until("nothing is open", lambda: not world.management.open_operations(), 3600)
        shown.append(everything(world))

    made = prepare(make)
    boots: list[str] = []

    def use(world: MemoryWorld) -> None:
        told = everything(world)
        assert {**told, "calls": None} == {**shown[0], "calls": None}
        (vm,) = told["listvirtualmachines"]["virtualmachine"]
        guest = world.guest(vm["id"])
        boots.append(guest.boot_id())
        (serial,) = guest.disks()
        assert guest.read(serial, 8192, 4) == bytes(4)
        guest.write(serial, 8192, b"mine")
        world.cloud.call("stopVirtualMachine", id=vm["id"])
        world.cloud.call("startVirtualMachine", id=vm["id"])
        assert guest.boot_id() != boots[-1] and guest.read(serial, 8192, 4) == b"mine"
        world.cloud.call("destroyVirtualMachine", id=vm["id"], expunge=True)
        assert not checks.violations(checks.take(world))

    for seed in (1, 2):
        MemoryWorld(seed, start=lambda: made).run(use)
    assert boots[0] == boots[1]


def with_open_operation(world: MemoryWorld) -> None:
    deploy(world, template(world))


def with_host_away(world: MemoryWorld) -> None:
    world.kill(agent_of(world.hosts[0].name))
    world.simulation.main.sleep(600)


@pytest.mark.parametrize(
    ("body", "words"), [(with_open_operation, "create-volume is open"), (with_host_away, "is Down")]
)
def test_a_cloud_that_is_not_at_rest_is_not_kept(body: Callable[[MemoryWorld], None], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        prepare(body)
