"""A share of the seeds, run in one process; results are plain data that can go over a wire."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Iterator, Sequence

import msgspec

from harness.explore.drawing import draw
from harness.explore.run import Outcome, run
from harness.explore.violation import Violation

CALIBRATION_LOOPS = 20_000


class Totals(msgspec.Struct, kw_only=True):
    """Sums over runs."""

    runs: int = 0
    cpu_seconds: float = 0.0
    actions: int = 0
    done: int = 0
    calls: int = 0
    faults_fired: int = 0
    action_kinds: int = 0
    points: int = 0
    looks: int = 0
    failing: list[tuple[int, Violation]] = []
    """Numbers of seeds, and how each failed."""
    loops_per_second: list[float] = []
    """What `calibrate` measured, once a share."""

    def add(self, other: Totals) -> None:
        self.runs += other.runs
        self.cpu_seconds += other.cpu_seconds
        self.actions += other.actions
        self.done += other.done
        self.calls += other.calls
        self.faults_fired += other.faults_fired
        self.action_kinds += other.action_kinds
        self.points += other.points
        self.looks += other.looks
        self.failing = sorted([*self.failing, *other.failing], key=lambda found: found[0])
        self.loops_per_second = [*self.loops_per_second, *other.loops_per_second]


def run_share(numbers: Sequence[int]) -> Totals:
    """Run these seeds."""
    # What production code logs while faults strike is of use only when a run is looked at.
    logging.getLogger("harness").setLevel(logging.CRITICAL)
    totals = Totals(loops_per_second=[calibrate()])
    began = time.process_time()
    with _collecting_later():
        for number in numbers:
            _add(totals, number, run(draw(number)))
    totals.cpu_seconds = time.process_time() - began
    return totals


def _add(totals: Totals, number: int, outcome: Outcome) -> None:
    totals.runs += 1
    totals.actions += outcome.actions
    totals.done += outcome.done
    totals.calls += outcome.calls
    totals.faults_fired += len(outcome.fired)
    totals.action_kinds += outcome.action_kinds
    totals.points += outcome.points
    totals.looks += outcome.looks
    if outcome.violation is not None:
        totals.failing.append((number, outcome.violation))


@contextlib.contextmanager
def _collecting_later() -> Iterator[None]:
    """The garbage of a share is collected at its end: looking for it again and again meanwhile costs a tenth."""
    enabled = gc.isenabled()
    gc.disable()
    # What is there already need not be looked through at the end.
    gc.freeze()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
            gc.collect()
        gc.unfreeze()


def calibrate() -> float:
    """How many rounds of a fixed loop of plain Python this process does in a second of its CPU time."""
    began = time.process_time()
    table: dict[int, str] = {}
    total = 0
    for number in range(CALIBRATION_LOOPS):
        total += number * number % 7
        table[number % 64] = f"{number}:{total}"
    return CALIBRATION_LOOPS / max(time.process_time() - began, 1e-9)
