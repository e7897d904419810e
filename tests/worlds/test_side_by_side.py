"""Cases shared among several labs: how they are cut into batches, and what becomes of them when a worker ends."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.stream import CaseEnded, Event, Note, WorldFailed
from harness.worlds.local import side_by_side
from harness.worlds.local.side_by_side import BATCH, Shared, SideBySide, batches
from lab.claim import Claim
from lab.errors import LabError
from lab.local.container import Container
from lab.local.layout import State
from scenarios import registry
from scenarios.registry import Case

CASES = registry.load()
WORKER = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"event": "note", "text": "local: at work"}), flush=True)
    for case in json.loads(line)["cases"]:
        if case in sys.argv[1:]:
            sys.exit("Traceback\\nkilled at " + case)
        print(json.dumps({"event": "case-end", "world": "local", "case": case, "outcome": "passed", "seconds": 1}))
    print(flush=True)
"""
"""A worker that does nothing for a case, and dies at those that it is told of."""


@dataclass(frozen=True, slots=True)
class FakeContainer:
    state: State
    deadly: tuple[str, ...] = ()

    def start(self, argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        del argv
        log.parent.mkdir()
        with log.open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-c", WORKER, *self.deadly],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )


@given(st.lists(st.sampled_from(CASES), unique=True))
def test_every_case_is_in_one_batch_of_one_site_and_one_lab_has_all_of_a_further_site(cases: list[Case]) -> None:
    found = batches(cases)
    assert sorted(case.id for batch in found for case in batch) == sorted(case.id for case in cases)
    assert all(len({case.site for case in batch}) == 1 for batch in found)
    sites = [batch[0].site for batch in found if batch[0].site]
    assert len(sites) == len(set(sites))
    assert all(len(batch) <= BATCH and len({case.row for case in batch}) == 1 for batch in found if not batch[0].site)
    assert [len(batch) for batch in found] == sorted(map(len, found), reverse=True)


def work(tmp_path: Path, *deadly: tuple[str, ...]) -> list[Event]:
    told: list[Event] = []
    shared = Shared(told.append, time.monotonic(), batches(CASES))
    shared.work([FakeContainer(State(tmp_path / f"lab{n}"), dies) for n, dies in enumerate(deadly, 1)])
    return told


def passed(told: list[Event]) -> list[str]:
    return sorted(event.case for event in told if isinstance(event, CaseEnded))


def test_all_labs_together_run_every_case_once(tmp_path: Path) -> None:
    told = work(tmp_path, (), ())
    assert passed(told) == sorted(case.id for case in CASES)
    assert {event.text for event in told if isinstance(event, Note)} == {"lab1: at work", "lab2: at work"}
    assert not [event for event in told if isinstance(event, WorldFailed)]


def test_a_worker_that_ends_amid_a_case_is_told_of_and_the_others_go_on(tmp_path: Path) -> None:
    every = tuple(case.id for case in CASES)
    told = work(tmp_path, every, ())
    (failed,) = [event for event in told if isinstance(event, WorldFailed)]
    assert failed.world == "local" and "lab1" in failed.why and "killed at" in failed.why
    assert len(failed.why.splitlines()) == 1, "the rest is detail"
    rest = passed(told)
    assert len(set(every) - set(rest)) in {len(batch) for batch in batches(CASES)}, "more than one batch was lost"


def test_a_lab_that_somebody_brought_up_meanwhile_is_not_taken_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    claimed = tmp_path / "claimed"
    claimed.touch()

    def make(*_: object) -> list[Container]:
        raise LabError("the local lab is up")

    down: list[object] = []
    told: list[Event] = []
    monkeypatch.setattr(side_by_side, "claim_local", lambda: Claim(claimed))
    monkeypatch.setattr("lab.local.container.make", make)
    monkeypatch.setattr(side_by_side, "down", down.append)
    SideBySide(2).run_all(CASES, told.append, time.monotonic())
    assert [event.why for event in told if isinstance(event, WorldFailed)] == [
        "world local cannot be used: the local lab is up"
    ]
    assert not down


def test_when_all_workers_end_the_rest_is_not_run_and_nobody_waits_for_it(tmp_path: Path) -> None:
    every = tuple(case.id for case in CASES)
    told = work(tmp_path, every, every)
    assert not passed(told)
    assert len([event for event in told if isinstance(event, WorldFailed)]) == 2
