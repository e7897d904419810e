"""Every step of a deploy, an attach and a delete hit by a kill, on real parts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.report.result import Outcome, Result
from harness.report.stream import STREAM_NAME, StreamWriter
from harness.report.write import write_views
from harness.worlds.local.steps.kills import local_kills
from harness.worlds.local.steps.strike import AGAIN, DONE, UNDONE
from harness.worlds.local.steps.victims import VICTIMS
from lab.local import down

FULL = os.environ.get("SPLAB_COUNTS") == "full"
WANTED = {"deploy": 20, "attach-new": 2, "delete-vm": 4} | ({"attach-used": 6, "delete-volume": 2} if FULL else {})
"""Operations, and how many steps each has at least."""
REPORT = Path(__file__).parents[2] / "build/suites/report-kills"

pytestmark = [pytest.mark.local, pytest.mark.timeout(3600 if FULL else 1200)]


@pytest.fixture
def own_lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of it is left afterwards, whatever happened."""
    if os.geteuid() != 0:
        pytest.skip("needs root: the local lab makes namespaces, loop devices and guests")
    state = Path("/var/lib/splab-test")
    monkeypatch.setenv("SPLAB_STATE", str(state))
    down(state)
    yield
    down(state)


@pytest.mark.usefixtures("own_lab")
def test_every_step_of_deploy_attach_and_delete_is_hit_by_a_kill_and_recovers() -> None:
    REPORT.mkdir(parents=True, exist_ok=True)
    stream = StreamWriter(REPORT / STREAM_NAME)
    try:
        local_kills(stream, () if FULL else tuple(WANTED), full=FULL)
    finally:
        stream.close()
    result = write_views(REPORT)
    failed = [f"{case.id}: {case.why}" for case in result.cases if case.outcome is not Outcome.PASSED]
    assert result.passed and result.ended and not failed, (failed, result.broken)
    assert_struck(result)


def assert_struck(result: Result) -> None:
    """Both halves of every exchange of each operation were hit, each victim many times, and each case tells of it."""
    faults = [fault for case in result.cases for fault in case.faults]
    assert len(faults) == len(result.cases)
    steps = {(fault.operation, fault.step) for fault in faults}
    for operation, least in WANTED.items():
        own = {step for name, step in steps if name == operation}
        assert len(own) >= least, f"{operation} has {len(own)} steps: {sorted(own)}"
        assert {step.replace(", answer", ", request") for step in own} <= own
    killed = Counter(fault.victim for fault in faults)
    assert set(killed) == set(VICTIMS) and min(killed.values()) >= 4, killed
    assert all(fault.asked and fault.outcome for fault in faults)
    assert {fault.outcome for fault in faults} >= {DONE, UNDONE + AGAIN}
    assert sum(bool(fault.recovery) for fault in faults) > len(faults) // 2
