"""Plans: the same seed gives the same plan everywhere, within bounds, and as plain data."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from harness.explore.drawing import draw, parse_seed, seed_text
from harness.explore.plan import MAX_ACTIONS, MAX_CLIENTS, MAX_FAULTS, Action, Plan, check, decode, encode
from harness.faults import KINDS

SEEDS = range(2000)


def test_a_plan_survives_json_and_stays_within_bounds() -> None:
    for number in SEEDS:
        plan = draw(number)
        assert decode(encode(plan)) == plan
        assert check(plan) is plan
        assert 1 <= len(plan.clients) <= MAX_CLIENTS
        assert 1 <= plan.actions <= MAX_ACTIONS
        assert 1 <= len(plan.faults) <= MAX_FAULTS


def test_every_kind_of_action_and_most_kinds_of_faults_are_drawn() -> None:
    actions: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for number in SEEDS:
        plan = draw(number)
        actions.update(action.kind for client in plan.clients for action in client)
        faults.update(fault.partition("@")[0] for fault in plan.faults)
    assert len(actions) == 22
    assert set(faults) == set(KINDS) - {"secondary-full"}
    assert min(actions.values()) > 20
    assert min(faults.values()) > 20


def test_the_same_seed_gives_the_same_plan_in_another_process() -> None:
    program = "from harness.explore.drawing import draw\nfor n in range(50): print(draw(n))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert outputs == {"".join(f"{draw(number)}\n" for number in range(50))}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"seed": 1, "clinets": []}', "clinets"),
        ('{"seed": -1}', ">= 0"),
        ('{"seed": 1, "faults": ["killed@0"]}', "killed@0"),
        ('{"seed": 1, "faults": ["meteor@1"]}', "meteor"),
        ('{"seed": 1, "clients": [[{"kind": "explode"}]]}', "explode"),
        ('{"seed": 1, "clients": [[{"kind": "attach", "vm": 0}]]}', "volume is missing"),
        ('{"seed": 1, "clients": [[{"kind": "create", "vm": 0, "volume": 1}]]}', "no VM"),
        ('{"seed": 1, "clients": [[{"kind": "stop", "vm": 16}]]}', "<= 15"),
        ('{"seed": 1, "clients": [[], [], [], [], []]}', "5 clients"),
    ],
)
def test_what_is_no_plan_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode(text)


def test_too_many_actions_or_faults_are_refused() -> None:
    action = Action(kind="stop", vm=0)
    with pytest.raises(ValueError, match="33 actions"):
        check(Plan(seed=1, clients=((action,) * 33,)))
    with pytest.raises(ValueError, match="17 faults"):
        check(Plan(seed=1, faults=("killed@1",) * 17))


def test_seeds_are_text_with_a_version_a_scenario_and_a_number() -> None:
    assert parse_seed(seed_text(42)) == 42
    for wrong in ("42", "v2:cloud:42", "v1:lab:42", "v1:cloud:", "v1:cloud:-1", "v1:cloud:1:2", f"v1:cloud:{1 << 63}"):
        with pytest.raises(ValueError, match=wrong):
            parse_seed(wrong)
