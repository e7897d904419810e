"""Asking CloudStack's API of an explored cloud: few polls, and patience while a management server starts again."""

from __future__ import annotations

from harness.explore.violation import Violation, ViolationFound
from harness.observers import CloudApiError, Json
from harness.worlds.memory.world import MemoryWorld

JOB_SECONDS = 7200.0
"""A job that has not ended after this never does."""
REACH_SECONDS = 3600.0
"""A management server that does not answer for so long is not coming back."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 120.0


class JobFailed(Exception):
    """CloudStack said that the job failed."""


def wait(world: MemoryWorld, job_id: str, what: str) -> Json:
    """The job's result. Raises `JobFailed`, and `ViolationFound` when it does not end.

    A job takes next to no virtual time unless something is wrong, so the pauses between polls grow.
    """
    main = world.simulation.main
    deadline = main.monotonic() + JOB_SECONDS
    pause = FIRST_PAUSE
    while True:
        main.sleep(pause)
        try:
            return world.cloud.wait(job_id, 0)
        except TimeoutError:
            pause = min(LONGEST_PAUSE, 2 * pause)
        except CloudApiError as error:
            raise JobFailed(str(error)) from error
        if main.monotonic() >= deadline:
            raise ViolationFound(Violation("a job never ends", f"{what}: not in {JOB_SECONDS:g} s"))


def listed(world: MemoryWorld, command: str, key: str, **parameters: str | bool) -> list[Json]:
    """What a list command shows; tried again while no management server answers."""
    main = world.simulation.main
    deadline = main.monotonic() + REACH_SECONDS
    pause = FIRST_PAUSE
    while True:
        try:
            found: list[Json] = world.cloud.call(command, listall=True, **parameters).get(key, [])
            return found
        except ConnectionError as error:
            if main.monotonic() >= deadline:
                text = f"CloudStack's API did not answer for {REACH_SECONDS:g} s: {error}"
                raise ViolationFound(Violation("the API is away", text)) from error
        main.sleep(pause)
        pause = min(LONGEST_PAUSE, 2 * pause)
