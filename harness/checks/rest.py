"""Waiting until a cloud is at rest: every invariant holds."""

from __future__ import annotations

from collections.abc import Callable

from harness.checks.invariants import Violation, violations
from harness.checks.picture import take
from harness.observers import World

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


def violations_at_rest(world: World, sleep: Callable[[float], None], seconds: float) -> list[Violation]:
    """What does not hold after `seconds` in the world's own time; empty as soon as everything holds.

    Each look reads the whole cloud, so the pauses between them, spent in `sleep`, grow up to a minute.
    """
    pause, left = FIRST_PAUSE, seconds
    while True:
        try:
            found = violations(take(world))
        except ConnectionError as error:
            found = [Violation("the cloud can be looked at", "CloudStack's API", str(error))]
        if not found or left <= 0:
            return found
        sleep(min(pause, left))
        left -= pause
        pause = min(LONGEST_PAUSE, 2 * pause)
