"""Defects that are planted on purpose, to see that exploration finds them: each shows only when a fault strikes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.driver.creation import Creation
from harness.explore.beginnings import every
from harness.explore.drawing import draw
from harness.explore.run import run
from harness.explore.violation import Violation

WITHIN = 200
"""Seeds in which the canary must be found."""


@contextmanager
def without_read_back() -> Iterator[None]:
    """The driver does not look for what a request made whose answer was lost."""
    # Made once a process, and not by a driver with a defect.
    every()
    with _replaced(Creation, "find", lambda _creation: None):
        yield


@contextmanager
def _replaced(owner: type, method: str, by: Callable[..., object]) -> Iterator[None]:
    real = getattr(owner, method)
    setattr(owner, method, by)
    try:
        yield
    finally:
        setattr(owner, method, real)


def canary() -> tuple[int, Violation] | None:
    """The first seed that finds the planted defect, and how; None when `WITHIN` seeds do not.

    A seed that fails without the defect too has not found it.
    """
    for number in range(WITHIN):
        with without_read_back():
            violation = run(draw(number)).violation
        if violation is not None and run(draw(number)).violation is None:
            return number, violation
    return None
