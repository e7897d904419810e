"""What explored clouds begin with, made once a process: templates, used ones if asked for, and a disk offering."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

from harness.worlds.memory.prepared import Prepared
from harness.worlds.memory.world import MemoryWorld, prepare
from scenarios import steps

TEMPLATES = 2
SETTLE_SECONDS = 3600.0
SETTINGS = {"primary.storage.download.wait": "600"}
"""Shorter than CloudStack's default of three hours, so that runs do not idle away their virtual time."""
COMPARING = {
    "storpool.volume.tags.checkup": "1500",
    "storpool.snapshot.tags.checkup": "1500",
    "storpool.orphans.grace": "900",
}
"""Instead of the default of a day, so that the driver compares, and heals, within the bounds of a run."""


@dataclass(frozen=True, slots=True)
class Beginning:
    cloud: Prepared
    templates: tuple[str, ...]
    """Ids, by the plan's number."""
    disk_offering: str


@functools.cache
def beginning(*, seeded: bool, compares: bool) -> Beginning:
    """With `seeded` the first template was used before, so that its snapshot is on the pool.

    Without `compares` the driver compares once a day, CloudStack's default: it heals nothing within a run's bounds.
    """
    templates: list[str] = []
    offerings: list[str] = []

    def make(world: MemoryWorld) -> None:
        for name, value in (SETTINGS | (COMPARING if compares else {})).items():
            world.cloud.call("updateConfiguration", name=name, value=value)
        templates.extend(str(steps.template(world, f"template{number}")["id"]) for number in range(TEMPLATES))
        offerings.append(steps.disk_offering(world))
        if seeded:
            steps.expunge(world, steps.deploy(world, templates[0]))
        world.wait_until("the driver has nothing open", lambda: not world.management.open_operations(), SETTLE_SECONDS)

    cloud = prepare(make)
    return Beginning(cloud, tuple(templates), offerings[0])


def every() -> None:
    """Make every beginning there is, before anything is made defective."""
    for seeded, compares in itertools.product((False, True), repeat=2):
        beginning(seeded=seeded, compares=compares)
