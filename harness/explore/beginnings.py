"""What explored clouds begin with, made once a process: templates, used ones if asked for, and a disk offering."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from harness.worlds.memory.prepared import Prepared
from harness.worlds.memory.world import MemoryWorld, prepare
from scenarios import steps

TEMPLATES = 2
SETTLE_SECONDS = 3600.0
DOWNLOAD_SECONDS = 600
"""How long an agent may copy an image."""


@dataclass(frozen=True, slots=True)
class Beginning:
    cloud: Prepared
    templates: tuple[str, ...]
    """Ids, by the plan's number."""
    disk_offering: str


@functools.cache
def beginning(*, seeded: bool) -> Beginning:
    """With `seeded` the first template was used before, so that its snapshot is on the pool."""
    templates: list[str] = []
    offerings: list[str] = []

    def make(world: MemoryWorld) -> None:
        # Three hours, the default, only make lost answers last longer.
        world.cloud.call("updateConfiguration", name="primary.storage.download.wait", value=str(DOWNLOAD_SECONDS))
        templates.extend(str(steps.template(world, f"template{number}")["id"]) for number in range(TEMPLATES))
        offerings.append(steps.disk_offering(world))
        if seeded:
            steps.expunge(world, steps.deploy(world, templates[0]))
        world.wait_until("the driver has nothing open", lambda: not world.management.open_operations(), SETTLE_SECONDS)

    cloud = prepare(make)
    return Beginning(cloud, tuple(templates), offerings[0])
