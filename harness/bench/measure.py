"""How figures come about: two things measured in turns, so that a busy minute of the machine falls on both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.report.stream import Listener, Measured, Note

Pair = tuple[float, float]
"""What one turn gave: value and baseline."""


class Missing(Exception):
    """This machine lacks something that a measurement needs; the text names it and what supplies it."""


class BenchError(Exception):
    """A measurement failed; says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured: in seconds for the shape of it, or in minutes for figures."""

    turns: int
    seconds: float
    """Of one sample of a rate."""
    volumes: int
    snapshots: int
    extents: int
    fio_seconds: int
    disk_mib: int
    """Size of the disk that fio writes to."""


FULL = Effort(turns=9, seconds=1.0, volumes=10_000, snapshots=20_000, extents=200_000, fio_seconds=5, disk_mib=1024)
QUICK = Effort(turns=2, seconds=0.05, volumes=50, snapshots=100, extents=500, fio_seconds=1, disk_mib=16)


class Bench:
    """What a leg is handed: how much to measure, where it may write, and who hears of the figures."""

    def __init__(self, effort: Effort, directory: Path, listen: Listener, began: float) -> None:
        self.effort = effort
        self.directory = directory
        """Empty, on a disk, and removed afterwards."""
        self._listen = listen
        self._began = began

    def note(self, text: str) -> None:
        self._listen(Note(at=time.monotonic() - self._began, text=text))

    def compared(
        self,
        leg: str,
        name: str,
        unit: str,
        against: str,
        pairs: Sequence[Pair],
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """A figure whose target, if it has one, is for its ratio to the baseline."""
        ratios = [value / baseline for value, baseline in pairs]
        ratio = statistics.median(ratios)
        self._listen(
            Measured(
                at=time.monotonic() - self._began,
                leg=leg,
                name=name,
                unit=unit,
                value=statistics.median(value for value, _ in pairs),
                baseline=statistics.median(baseline for _, baseline in pairs),
                against=against,
                ratio=ratio,
                spread=quartiles(ratios),
                bound=_bound(at_least, at_most),
                target=at_least if at_least is not None else at_most,
                met=_met(ratio, at_least, at_most),
                samples=list(pairs),
            )
        )

    def alone(
        self,
        leg: str,
        name: str,
        unit: str,
        values: Sequence[float],
        *,
        value: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """A figure that has nothing beside it; `value` where it is not the median."""
        shown = statistics.median(values) if value is None else value
        self._listen(
            Measured(
                at=time.monotonic() - self._began,
                leg=leg,
                name=name,
                unit=unit,
                value=shown,
                spread=quartiles(values),
                bound=_bound(None, at_most),
                target=at_most,
                met=_met(shown, None, at_most),
                samples=[(each, None) for each in values],
            )
        )


def _bound(at_least: float | None, at_most: float | None) -> str:
    return "at least" if at_least is not None else "at most" if at_most is not None else ""


def _met(figure: float, at_least: float | None, at_most: float | None) -> bool | None:
    if at_least is not None:
        return figure >= at_least
    return figure <= at_most if at_most is not None else None


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank; `share` in per cent."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share) // 100) - 1)]


def in_turns(turns: int, value: Callable[[], float], baseline: Callable[[], float]) -> list[Pair]:
    """A B B A A B ...: neither is always the first after the other."""
    pairs = []
    for turn in range(turns):
        if turn % 2:
            second = baseline()
            pairs.append((value(), second))
        else:
            first = value()
            pairs.append((first, baseline()))
    return pairs


def seconds(work: Callable[[], object]) -> float:
    """That it took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
