"""Shrinking finds what is needed and nothing else, within its number of runs."""

from __future__ import annotations

import msgspec

from harness.explore.drawing import draw
from harness.explore.plan import Action, Plan
from harness.explore.planted import without_read_back
from harness.explore.run import run
from harness.explore.shrink import shrink
from harness.explore.violation import Violation

FAILURE = Violation("planted", "the pair is there")
PLAN = Plan(
    seed=1,
    vms=2,
    volumes=2,
    seeded=True,
    delete_after=900,
    clients=(
        (Action(kind="stop", vm=0), Action(kind="start", vm=0, pause=30.0)),
        (Action(kind="attach", vm=1, volume=0, write=True), Action(kind="detach", volume=0)),
        (Action(kind="create", volume=3), Action(kind="deploy", vm=3, template=1)),
    ),
    faults=("killed@7", "hang@3", "answer-lost@2", "transient@1"),
)


def needs_the_pair(plan: Plan) -> Violation | None:
    kinds = [action.kind for client in plan.clients for action in client]
    if "detach" in kinds and "answer-lost@2" in plan.faults:
        return FAILURE
    return Violation("another", "fails differently") if "hang@3" in plan.faults else None


def test_the_minimal_pair_is_found_and_a_failure_of_another_kind_is_not_followed() -> None:
    runs: list[Plan] = []

    def counted(plan: Plan) -> Violation | None:
        runs.append(plan)
        return needs_the_pair(plan)

    shrunk = shrink(PLAN, FAILURE.kind, counted)
    assert shrunk == Plan(seed=1, clients=((Action(kind="detach", volume=0),),), faults=("answer-lost@2",))
    assert len(runs) < 100


def test_runs_are_bounded() -> None:
    runs: list[Plan] = []

    def counted(plan: Plan) -> Violation | None:
        runs.append(plan)
        return needs_the_pair(plan)

    shrunk = shrink(PLAN, FAILURE.kind, counted, runs=5)
    assert len(runs) == 5
    assert needs_the_pair(shrunk) == FAILURE


def test_a_planted_defect_of_the_driver_shrinks_to_few_actions_and_no_fault_too_many() -> None:
    with without_read_back():
        number, violation = next(
            (number, found) for number in range(200) if (found := run(draw(number)).violation) is not None
        )
        shrunk = shrink(draw(number), violation.kind, lambda plan: run(plan).violation)
        assert run(shrunk).violation is not None
        for fault in shrunk.faults:
            others = tuple(other for other in shrunk.faults if other != fault)
            left = run(msgspec.structs.replace(shrunk, faults=others)).violation
            assert left is None or left.kind != violation.kind, f"{fault} need not strike"
    assert 1 <= len(shrunk.faults) <= 3
    # Actions that only bring a fault to its number stay: points are counted over the whole run.
    assert shrunk.actions <= 4
    assert run(shrunk).violation is None
