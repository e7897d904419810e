"""Runs cases in the memory world: a fresh cloud for each, all from one seed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.recording import Recorder
from harness.run import Body
from harness.runtime.journal import SCHEDULE
from harness.runtime.simulated import MAIN
from harness.worlds.memory.processes import CALLS
from harness.worlds.memory.world import MemoryWorld
from scenarios.registry import Case

HIDDEN = frozenset({SCHEDULE, "commit"})
"""Entries of the journal that say nothing of what was asked of whom."""
JOURNAL_ENTRIES = 1000
"""How many of the last entries of the simulation's journal become part of a case's timeline."""

TICK = 1e-8
"""Seconds between two entries of the journal in a timeline: most of a case happens at a few virtual instants, and only
the order of its steps tells what led to what."""


class MemoryVenue:
    """Needs nothing of the machine."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    @property
    def name(self) -> str:
        return "memory"

    def open(self, say: Callable[[str], None]) -> dict[str, str]:
        say(f"model hosts in virtual time, seed {self._seed}")
        return {}

    def run(self, case: Case, recorder: Recorder, body: Body) -> None:
        world = MemoryWorld(self._seed, site=case.site)
        simulation = world.simulation
        began = recorder.now()
        # Times of this case's timeline are virtual, so that they agree with the journal's.
        entries = simulation.journal.entries
        recorder.now = lambda: began + simulation.elapsed + len(entries) * TICK
        try:
            with logs_into(recorder):
                world.run(body)
        finally:
            shown = [(number, *entry) for number, entry in enumerate(entries, start=1) if not _hidden(*entry[1:])]
            for number, elapsed, process, kind, detail in shown[-JOURNAL_ENTRIES:]:
                recorder.timeline(process, f"{kind}: {detail}", began + elapsed + number * TICK)

    def case_properties(self, case: Case) -> dict[str, str]:
        del case
        return {"seed": str(self._seed), "hosts": "kvm1, kvm2 (models)"}

    def reproduce(self, case: Case) -> str:
        return f"splab run {case.id} --world memory --seed {self._seed}"

    def close(self) -> None:
        """Nothing outlives a case."""


def _hidden(process: str, kind: str, detail: str) -> bool:
    """Whether something else of the timeline tells it better.

    StorPool calls of the plugin are in its log with what was asked, and how it ended. What the scenario asks of the API
    is recorded with its parameters, and the looks for the invariants, which are not, would be two thirds of everything.
    """
    if process == MAIN:
        return kind in HIDDEN or kind == "answer" or detail.startswith("API request ")
    return kind in HIDDEN or detail.startswith("StorPool ")


class _Handler(logging.Handler):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__(logging.INFO)
        self._recorder = recorder

    def emit(self, record: logging.LogRecord) -> None:
        room, _, last = record.name.rpartition(".")
        self._recorder.timeline(f"{last} StorPool" if room == CALLS else f"log {last}", record.getMessage())


@contextmanager
def logs_into(recorder: Recorder) -> Iterator[None]:
    """What production code logs meanwhile becomes part of the case's timeline, and nothing reaches the terminal."""
    logger, handler = logging.getLogger("harness"), _Handler(recorder)
    propagates, logger.propagate = logger.propagate, False
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates
