"""`splab explore` as people and scripts use it: sums, exit status, replay, and seeds shared out over processes."""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path
from typing import Any

import distributed
import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.driver.deletion import Deletion
from harness.explore import command, fleet, planted
from harness.explore.drawing import draw
from harness.explore.fleet import Budget
from harness.explore.run import run
from harness.explore.shard import Totals, run_share
from harness.spi.errors import Conflict

FIRST = 0
"""Seeds from here on are known to hold."""


def explore(*arguments: str | int | Path) -> Result:
    return CliRunner().invoke(main, ["explore", *map(str, arguments)])


def sums(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def without_cpu(totals: Totals) -> tuple[object, ...]:
    return (totals.runs, totals.actions, totals.calls, totals.faults_fired, totals.action_kinds, totals.failing)


def refuse(_deletion: Deletion, _item: object) -> None:
    raise Conflict("sabotaged")


def test_sums_of_all_runs_as_json(tmp_path: Path) -> None:
    file = tmp_path / "sums.json"
    result = explore("--runs", 10, "--first", FIRST, "--jobs", 1, "--json", file, "--report", tmp_path)
    assert result.exit_code == 0, result.output
    outcomes = [run(draw(number)) for number in range(FIRST, FIRST + 10)]
    found = sums(file)
    assert list(found) == [
        "runs",
        "seconds",
        "cpu_seconds",
        "jobs",
        "actions",
        "done",
        "calls",
        "faults_fired",
        "action_kinds",
        "points",
        "looks",
        "violations",
        "failing",
        "regressions_failed",
        "canary",
        "calibration",
    ]
    assert (found["runs"], found["jobs"], found["violations"], found["failing"]) == (10, 1, 0, [])
    assert found["actions"] == sum(outcome.actions for outcome in outcomes)
    assert found["done"] == sum(outcome.done for outcome in outcomes)
    assert 0 < found["looks"] == sum(outcome.looks for outcome in outcomes) < found["points"]
    assert found["calls"] == sum(outcome.calls for outcome in outcomes)
    assert found["faults_fired"] == sum(len(outcome.fired) for outcome in outcomes)
    assert found["action_kinds"] == sum(outcome.action_kinds for outcome in outcomes)
    assert 0 < found["cpu_seconds"] <= found["seconds"] + 1
    assert found["calibration"]["runs_per_core_minute"] == pytest.approx(600 / found["cpu_seconds"])


def test_a_failing_seed_is_shrunk_and_told_and_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Deletion, "delete", refuse)
    file = tmp_path / "sums.json"
    result = explore("--runs", 3, "--first", FIRST, "--jobs", 1, "--json", file, "--report", tmp_path)
    assert result.exit_code == 1
    seed = sums(file)["failing"][0]
    repeat = re.search(
        rf"^splab explore --seed {seed}    # at commit \S+\nviolated: (.+)$", result.output, re.MULTILINE
    )
    assert repeat, result.output
    written = tmp_path / "explore" / f"{seed.replace(':', '-')}.json"
    again = explore("--plan", written, "--report", tmp_path / "again")
    assert again.exit_code == 1
    assert again.output.splitlines()[0].startswith(f"splab explore --plan {written}    # at commit ")
    assert again.output.splitlines()[1].startswith("violated: ")
    shrunk = json.loads(written.read_bytes())["plan"]
    assert shrunk.get("faults", []) == []
    monkeypatch.undo()
    assert explore("--plan", written, "--report", tmp_path / "held").exit_code == 0


def test_a_canary_that_is_not_found_and_a_regression_make_the_sums_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sums.json"
    arguments = ("--runs", 1, "--first", FIRST, "--jobs", 1, "--json", file, "--report", tmp_path)
    assert explore(*arguments).exit_code == 0
    assert (sums(file)["regressions_failed"], sums(file)["canary"]) == (0, None)
    monkeypatch.setattr(command, "CANARY_RUNS", 1)
    assert explore(*arguments).exit_code == 0
    assert sums(file)["canary"]["found"] is True
    monkeypatch.setattr(planted, "WITHIN", 1)
    missed = explore(*arguments)
    assert missed.exit_code == 1 and "trust no green run" in missed.output
    assert sums(file)["canary"] == {"found": False, "seed": None, "violated": None}
    monkeypatch.setattr(command, "CANARY_RUNS", 2)
    monkeypatch.setattr(Deletion, "delete", refuse)
    assert explore(*arguments).exit_code == 1
    assert sums(file)["regressions_failed"] > 0


def test_one_seed_is_replayed_with_the_same_journal(tmp_path: Path) -> None:
    first, second = (explore("--seed", f"v1:cloud:{FIRST}", "--report", tmp_path) for _ in range(2))
    assert first.exit_code == 0, first.output
    assert first.output == second.output
    assert re.fullmatch(
        rf"splab explore --seed v1:cloud:{FIRST}: nothing violated; journal [0-9a-f]{{32}}\n", first.output
    )


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--seed", "v2:cloud:1"), "not a seed like v1:cloud:NUMBER"),
        (("--seed", "v1:cloud:x"), "not a number"),
        (("--seed", "v1:cloud:1", "--plan", __file__), "not both"),
        (("--plan", __file__), "not a plan"),
        (("--runs", "0"), "x>=1"),
        (("--jobs", "0"), "1<=x<=256"),
        (("--runs", "1", "--scheduler", "tcp://127.0.0.1:1"), "tcp://127.0.0.1:1"),
        (("--seed", "v1:cloud:1", "--runs", "5"), "--seed runs one plan, for which --runs means nothing"),
        (("--plan", __file__, "--first", "5", "--jobs", "1"), "for which --jobs, --first means nothing"),
        (("--scheduler", "tcp://127.0.0.1:1", "--jobs", "2"), "for which --jobs means nothing"),
        (("--json", "/proc/sums.json"), "cannot write /proc/sums.json"),
    ],
)
def test_bad_input_is_told(
    arguments: tuple[str, ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "CONNECT_SECONDS", 1)
    result = explore(*arguments, "--report", tmp_path)
    assert result.exit_code in (1, 2)
    assert why in result.output
    assert "Traceback" not in result.output


def test_processes_and_one_process_give_the_same_sums() -> None:
    alone = run_share(range(FIRST, FIRST + 24))
    assert gc.get_freeze_count() == 0, "the process's collector is not as it was"
    shared = fleet.explore(Budget(FIRST, 24, None), 2, None, lambda _totals: None)
    assert without_cpu(shared) == without_cpu(alone)


def test_a_dask_cluster_gives_the_same_sums() -> None:
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, scheduler_port=0
    ) as cluster:
        shared = fleet.explore(Budget(FIRST, 24, None), 1, cluster.scheduler_address, lambda _totals: None)
    assert without_cpu(shared) == without_cpu(run_share(range(FIRST, FIRST + 24)))


def test_time_ends_a_run_without_a_number_of_runs() -> None:
    seen: list[int] = []
    totals = fleet.explore(Budget(FIRST, None, 0.1), 1, None, lambda totals: seen.append(totals.runs))
    assert totals.runs == seen[-1] >= fleet.SHARE


def test_no_new_share_is_begun_after_too_many_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Deletion, "delete", refuse)
    monkeypatch.setattr(fleet, "SHARE", 2)
    totals = fleet.explore(Budget(FIRST, 100, None, most_failures=3), 1, None, lambda _totals: None)
    assert 3 <= len(totals.failing) <= 4
