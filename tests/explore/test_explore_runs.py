"""Explored runs: the same every time, bounded, without a violation, and red when the plugin or a check is sabotaged."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest

from harness.cloudstack.orchestration.attachment import AttachmentManager
from harness.cloudstack.orchestration.resize import ResizeManager
from harness.cloudstack.orchestration.vm import VmManager
from harness.driver.creation import Creation
from harness.driver.deletion import Deletion
from harness.driver.operations import Operation
from harness.driver.resizing import Resizing
from harness.driver.reverting import SnapshotReverting
from harness.driver.tags import TagUpdates
from harness.driver.volumes import VolumeCreation
from harness.explore import planted, regressions
from harness.explore.drawing import draw, seed_text
from harness.explore.plan import Action, Plan
from harness.explore.run import run
from harness.spi.driver import ResizePayload
from harness.spi.errors import Conflict
from harness.spi.objects import VolumeObject
from harness.worlds.memory.model_guest import ModelGuest

FULL = os.environ.get("SPLAB_COUNTS") == "full"
COUNT = 20_000 if FULL else 300
FIRST = datetime.datetime.now(datetime.UTC).date().toordinal() * COUNT if FULL else 0
"""Each night has seeds of its own; a day's are the same on every machine."""
SAME = 12

PROGRAM = f"""
import logging
logging.disable(logging.CRITICAL)
from harness.explore.drawing import draw
from harness.explore.run import run
for number in range({SAME}):
    outcome = run(draw(number), digest=True)
    print(number, outcome.digest, outcome.calls, outcome.virtual_seconds, outcome.fired, outcome.violation)
"""


def test_one_seed_is_one_run_whatever_the_hash_seed_and_whatever_ran_before() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len({line.split()[1] for line in outputs[0].splitlines()}) == SAME
    for number in (3, 7, 3):
        outcome = run(draw(number), digest=True)
        assert f"{number} {outcome.digest} " in outputs[0]


@pytest.mark.timeout(3600 if FULL else 300)
def test_seeds_run_without_a_violation(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"seeds {seed_text(FIRST)} to {seed_text(FIRST + COUNT - 1)}")
    kinds = faults = calls = 0
    for number in range(FIRST, FIRST + COUNT):
        outcome = run(draw(number))
        assert outcome.violation is None, f"splab explore --seed {seed_text(number)}: {outcome.violation}"
        kinds += outcome.action_kinds
        faults += len(outcome.fired)
        calls += outcome.calls
    assert kinds >= 4 * COUNT, f"{kinds / COUNT} kinds of action a run"
    assert faults >= 2 * COUNT, f"{faults / COUNT} faults a run"
    assert calls >= 15 * COUNT, f"{calls / COUNT} StorPool calls a run"


def test_plans_that_failed_once_hold() -> None:
    kept = regressions.load()
    assert kept, "there are kept plans"
    for regression in kept:
        found = run(regression.plan).violation
        assert found is None, f"{regression.seed} of {regression.commit} fails again: {found}"


def test_the_canary_is_found() -> None:
    assert planted.canary() is not None
    assert Creation.find.__name__ == "find", "the planted defect is taken out again"


def test_removing_any_action_leaves_a_plan_that_runs() -> None:
    plan = next(plan for number in range(1000) if (plan := draw(number)).actions >= 6)
    for client, actions in enumerate(plan.clients):
        for at in range(len(actions)):
            fewer = (*plan.clients[:client], actions[:at] + actions[at + 1 :], *plan.clients[client + 1 :])
            outcome = run(Plan(seed=plan.seed, vms=plan.vms, volumes=plan.volumes, clients=fewer))
            assert outcome.violation is None, outcome.violation


def stop_that_does_nothing(patch: pytest.MonkeyPatch) -> None:
    real = VmManager._stop

    def stop(self: VmManager, vm_id: int, event: object, forced: bool) -> object:
        agents = self._context.agents
        patch.setattr(type(agents), "send", lambda *_arguments: None)
        try:
            return real(self, vm_id, event, forced)  # type: ignore[arg-type]  # passed on as it came
        finally:
            patch.undo()

    patch.setattr(VmManager, "_stop", stop)


def lost_write(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ModelGuest, "write", lambda _self, _serial, _offset, _data: None)


def deletion_that_does_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Deletion, "delete", lambda _self, _item: None)


def detach_that_is_refused(patch: pytest.MonkeyPatch) -> None:
    def refuse(_self: AttachmentManager, _row: object) -> None:
        raise Conflict("sabotaged")

    patch.setattr(AttachmentManager, "release", refuse)


def revert_that_does_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SnapshotReverting, "revert", lambda _self, snapshot: snapshot.size)


def snapshot_of_nothing(patch: pytest.MonkeyPatch) -> None:
    """What is made of it is empty."""
    real = VolumeCreation.create

    def create(self: VolumeCreation, volume: VolumeObject, *_: object, **__: object) -> VolumeObject:
        return real(self, volume)

    patch.setattr(VolumeCreation, "create", create)


def offering_that_does_not_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TagUpdates, "mend", lambda *_: None)
    real = Resizing.resize

    def resize(self: Resizing, volume: VolumeObject, payload: ResizePayload) -> VolumeObject:
        return real(self, volume, msgspec.structs.replace(payload, disk_offering_id=None))

    patch.setattr(Resizing, "resize", resize)


def resize_that_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ResizeManager, "change", lambda *_: None)


def operations_that_stay_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Operation, "done", lambda _self: None)


SNAPSHOT = Action(kind="snapshot", volume=0, snapshot=0)
DEPLOY = Action(kind="deploy", vm=0, write=True)
ATTACH = (Action(kind="create", volume=0), Action(kind="attach", vm=0, volume=0, write=True))
SABOTAGES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], tuple[Action, ...], str]] = {
    "a stop that does nothing": (
        stop_that_does_nothing,
        (DEPLOY, Action(kind="stop", vm=0)),
        "acknowledged, but not so",
    ),
    "a write that is lost": (lost_write, (DEPLOY, *ATTACH), "contents"),
    "a deletion that does nothing": (
        deletion_that_does_nothing,
        (DEPLOY, *ATTACH, Action(kind="detach", volume=0), Action(kind="delete", volume=0)),
        "acknowledged, but not so",
    ),
    "a revert that does nothing": (
        revert_that_does_nothing,
        (
            *(DEPLOY, *ATTACH, SNAPSHOT, Action(kind="detach", volume=0)),
            *(ATTACH[1], Action(kind="detach", volume=0), Action(kind="revert", snapshot=0)),
        ),
        "contents",
    ),
    "a snapshot of nothing": (
        snapshot_of_nothing,
        (DEPLOY, *ATTACH, SNAPSHOT, Action(kind="clone", volume=1, snapshot=0)),
        "contents",
    ),
    "an offering that does not count": (
        offering_that_does_not_count,
        (DEPLOY, *ATTACH, Action(kind="change-offering", volume=0, size=1, offering=1)),
        "what its offering says",
    ),
    "a resize that is forgotten": (
        resize_that_is_forgotten,
        (DEPLOY, *ATTACH, Action(kind="resize", volume=0, size=2)),
        "what was acknowledged",
    ),
    "a VM that cannot be removed": (detach_that_is_refused, (DEPLOY, *ATTACH), "what is at rest can be removed"),
    "operations that stay open": (operations_that_stay_open, (DEPLOY,), "the driver closes its operations"),
}


@pytest.mark.parametrize("sabotage", SABOTAGES)
def test_a_sabotage_is_seen_by_its_check(sabotage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    break_it, actions, kind = SABOTAGES[sabotage]
    plan = Plan(seed=1, clients=(actions,))
    assert run(plan).violation is None
    break_it(monkeypatch)
    found = run(plan).violation
    assert found is not None and found.kind == kind, found
