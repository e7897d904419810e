"""Every row that is built holds in the memory world, for many seeds, and the same seed gives the same run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from harness.faults import calls
from harness.recording import Recorder
from harness.report.stream import Event
from harness.run import Verdict, judge
from harness.runtime.simulated import Strike
from harness.worlds.memory.world import MemoryWorld
from scenarios.registry import Case, load
from scenarios.table import RowId

FULL = os.environ.get("SPLAB_COUNTS") == "full"
SEEDS = 200 if FULL else 6
SCHEDULES = 100 if FULL else 4
"""Different ones that the seeds of a row must give."""
LONG = frozenset({"scale"})
"""Rows whose cases take seconds each; fewer seeds of them are run, but in the nightly run."""
CASES = load()
WHOLE = [case for case in CASES if FULL or case.row not in LONG]
ROWS = sorted({case.row for case in CASES}, key=str)


def of_row(row: RowId) -> list[Case]:
    return [case for case in CASES if case.row == row]


def judged(case: Case, seed: int, strike: Strike | None = None) -> tuple[Verdict, MemoryWorld]:
    world, verdict = MemoryWorld(seed, strike=strike, site=case.site), Verdict()
    recorder = Recorder("memory", case.id, _forget, lambda: 0.0)
    world.run(lambda inner: judge(case, inner, recorder, verdict))
    return verdict, world


def _forget(event: Event) -> None:
    del event


def wrong(verdict: Verdict) -> str:
    if verdict.error is not None:
        return f"{type(verdict.error).__name__}: {verdict.error}"
    return "; ".join([*verdict.violated, *verdict.left]) or ("" if verdict.finished else "did not finish")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("row", ROWS)
def test_a_row_passes_for_every_seed_on_many_schedules(row: RowId, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="harness")
    failed: list[str] = []
    schedules: set[str] = set()
    counted: dict[str, calls.Counts] = {}
    seeds = 2 if row in LONG and not FULL else SEEDS
    for seed in range(1, seeds + 1):
        digests: list[str] = []
        for case in of_row(row):
            counter = calls.Counter(on=True)
            verdict, world = judged(case, seed, counter.strike)
            counted.setdefault(case.id, counter.counts)
            digests.append(world.simulation.schedule_digest())
            if text := wrong(verdict):
                failed.append(f"splab run {case.id} --world memory --seed {seed}: {text[:500]}")
        schedules.add("".join(digests))
    assert not failed, f"{len(failed)} failures:\n" + "\n".join(failed[:10])
    assert len(schedules) >= min(seeds, SCHEDULES)
    # calls.json is of the first seed.
    assert calls.grown({"cases": counted}, calls.baseline()) == [], calls.WHAT_NEXT


def journals(hash_seed: str, seeds: Sequence[int]) -> str:
    """One line for each case and seed: sha256 of its whole journal, made in a process of its own."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    argv = [sys.executable, __file__, *map(str, seeds)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.timeout(900)
def test_the_same_seed_gives_the_same_journal_in_every_process() -> None:
    seeds = range(1, 21 if FULL else 3)
    first, second = journals("0", seeds), journals("4242", seeds)
    assert first.count("\n") == len(WHOLE) * len(seeds)
    assert first == second


def test_another_seed_gives_another_journal() -> None:
    case = of_row(4)[0]
    texts = {judged(case, seed)[1].simulation.journal.render() for seed in (1, 2, 3)}
    assert len(texts) == 3


def main() -> None:
    for seed in map(int, sys.argv[1:]):
        for case in WHOLE:
            _, world = judged(case, seed)
            text = world.simulation.journal.render()
            print(seed, case.id, len(text), hashlib.sha256(text.encode()).hexdigest(), world.simulation.digest())


if __name__ == "__main__":
    main()
