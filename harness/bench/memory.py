"""Runs of the memory world, and the loop of plain Python that they are measured beside."""

from __future__ import annotations

import time
from collections.abc import Callable

from harness import checks
from harness.observers import Json
from harness.worlds.memory.world import MemoryWorld

LOOP = 20_000
"""Turns of the loop that is measured for comparison."""
QUIET_SECONDS = 1800.0


def nothing(world: MemoryWorld) -> None:
    """Only what comes before a scenario."""
    del world


def rest(world: MemoryWorld) -> None:
    """Half a virtual hour in which nobody asks for anything."""
    world.simulation.main.sleep(QUIET_SECONDS)


def life(world: MemoryWorld) -> None:
    """Template, VM, and a DATA volume that comes and goes."""
    vm = deploy(world, template(world))
    volume = data_volume(world, vm)
    world.cloud.call("detachVolume", id=volume)
    world.cloud.call("deleteVolume", id=volume)


def whole_life(world: MemoryWorld) -> None:
    """As `life`, then a stop, a start and the end of the VM, and the invariants."""
    vm = deploy(world, template(world))
    volume = data_volume(world, vm)
    world.cloud.call("detachVolume", id=volume)
    world.cloud.call("stopVirtualMachine", id=vm)
    world.cloud.call("startVirtualMachine", id=vm)
    world.cloud.call("deleteVolume", id=volume)
    world.cloud.call("destroyVirtualMachine", id=vm, expunge=True)
    assert not checks.violations(checks.take(world))


def template(world: MemoryWorld) -> str:
    env = world.environment
    answer = world.cloud.call(
        "registerTemplate",
        name="image",
        displaytext="image",
        format="QCOW2",
        hypervisor="KVM",
        url=env.image_url,
        zoneid=env.zone_id,
        ostypeid=env.os_type_id,
    )
    template_id = str(answer["template"][0]["id"])

    def ready() -> bool:
        listed: Json = world.cloud.call("listTemplates", templatefilter="all", id=template_id)
        return bool(listed["template"][0]["isready"])

    world.wait_until("the template is ready", ready)
    return template_id


def deploy(world: MemoryWorld, template_id: str) -> str:
    env = world.environment
    done = world.cloud.call(
        "deployVirtualMachine",
        serviceofferingid=env.service_offering_id,
        zoneid=env.zone_id,
        templateid=template_id,
        name="guest",
        hypervisor="KVM",
    )
    return str(done["virtualmachine"]["id"])


def data_volume(world: MemoryWorld, vm: str) -> str:
    env = world.environment
    offering = world.cloud.call(
        "createDiskOffering", name="data", displaytext="data", customized=True, tags=env.pools[0].tag
    )
    made = world.cloud.call(
        "createVolume", name="data", zoneid=env.zone_id, diskofferingid=str(offering["diskoffering"]["id"]), size=1
    )
    volume = str(made["volume"]["id"])
    world.cloud.call("attachVolume", id=volume, virtualmachineid=vm)
    return volume


BODIES: dict[str, Callable[[MemoryWorld], None]] = {
    "boot": nothing,
    "life": life,
    "whole life": whole_life,
    "30 quiet minutes": rest,
}


def run_seconds(body: Callable[[MemoryWorld], None], seed: int) -> float:
    began = time.process_time()
    MemoryWorld(seed).run(body)
    return time.process_time() - began


def loop_seconds() -> float:
    began = time.process_time()
    seen: dict[int, str] = {}
    for number in range(LOOP):
        seen[number % 64] = str(number)
    return time.process_time() - began
