"""What explored clouds begin with, made once a process: templates, used ones if asked for, and disk offerings."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

from harness.worlds.memory.prepared import Prepared
from harness.worlds.memory.world import MemoryWorld, prepare
from scenarios import steps
from scenarios.offerings import of_tier

TEMPLATES = 2
SETTLE_SECONDS = 3600.0
SETTINGS = {"primary.storage.download.wait": "600", "backup.snapshot.wait": "600"}
"""Shorter than CloudStack's defaults of hours, so that runs do not idle away their virtual time."""
LIMIT, TIER = 700, "gold"
"""Of the disk offerings beside the plain one."""
COMPARING = {
    "storpool.volume.tags.checkup": "1500",
    "storpool.snapshot.tags.checkup": "1500",
    "storpool.orphans.grace": "900",
}
"""Instead of the default of a day, so that the driver compares, and heals, within the bounds of a run."""


@dataclass(frozen=True, slots=True)
class Made:
    """A VM or volume that was there before the clients began."""

    name: str
    id: str
    instance_name: str = ""
    """Of a VM."""


@dataclass(frozen=True, slots=True)
class Beginning:
    cloud: Prepared
    templates: tuple[str, ...]
    """Ids, by the plan's number."""
    disk_offerings: tuple[str, ...]
    """A plain one, one with a limit and one with a tier, all of customised size."""
    vms: tuple[Made, ...]
    """They run, from the first template."""
    volumes: tuple[Made, ...]
    """Nobody has them attached; 1 GiB of the plain offering."""


@functools.cache
def beginning(*, seeded: bool, compares: bool, vms: int, volumes: int) -> Beginning:
    """With `seeded` the first template was used before, so that its snapshot is on the pool.

    Without `compares` the driver compares once a day, CloudStack's default: it heals nothing within a run's bounds.
    """
    templates: list[str] = []
    offerings: list[str] = []
    made: list[Made] = []

    def make(world: MemoryWorld) -> None:
        for name, value in (SETTINGS | (COMPARING if compares else {})).items():
            world.cloud.call("updateConfiguration", name=name, value=value)
        templates.extend(str(steps.template(world, f"template{number}")["id"]) for number in range(TEMPLATES))
        offerings.append(steps.disk_offering(world))
        offerings.append(steps.disk_offering(world, miniops=100, maxiops=LIMIT))
        offerings.append(of_tier(world, TIER))
        if seeded:
            steps.expunge(world, steps.deploy(world, templates[0]))
        made.extend(_vm(world, templates[0], f"vm{slot}") for slot in range(vms))
        made.extend(_volume(world, offerings[0], f"volume{slot}") for slot in range(volumes))
        world.wait_until("the driver has nothing open", lambda: not world.management.open_operations(), SETTLE_SECONDS)

    cloud = prepare(make)
    return Beginning(cloud, tuple(templates), tuple(offerings), tuple(made[:vms]), tuple(made[vms:]))


def _vm(world: MemoryWorld, template: str, name: str) -> Made:
    shown = steps.deploy(world, template, name=name, displayname=name)
    return Made(name, str(shown["id"]), str(shown["instancename"]))


def _volume(world: MemoryWorld, offering: str, name: str) -> Made:
    zone = world.environment.zone_id
    answer = world.cloud.call("createVolume", name=name, zoneid=zone, diskofferingid=offering, size=1)
    return Made(name, str(answer["volume"]["id"]))


def every() -> None:
    """Make every beginning there is, before anything is made defective."""
    for seeded, compares, vms, volumes in itertools.product((False, True), (False, True), range(3), range(3)):
        beginning(seeded=seeded, compares=compares, vms=vms, volumes=volumes)
