"""The matrix finds points by itself, judges honestly, and tells how to see a case again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.driver.driver import StorPoolDriver
from harness.faults import baseline, matrix, operations
from harness.faults.kinds import KINDS
from harness.faults.matrix import Case
from harness.faults.plan import parse_fault


def case(text: str) -> Case:
    (found,) = matrix.chosen([text])[1]
    return found


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="harness")


def test_every_kind_of_fault_fits_a_point_of_an_operation_and_no_operation_has_fewer_points_than_its_baseline() -> None:
    found = [matrix.find(operation.id) for operation in operations.OPERATIONS]
    assert [each.why for each in found if each.why] == []
    struck = {each.fault.kind.name for one in found for each in one.cases}
    assert struck == set(KINDS)
    assert baseline.fallen({each.operation: each.points for each in found}) == []
    assert set(baseline.load()) == set(operations.BY_ID)


def test_fewer_points_than_the_baseline_are_told() -> None:
    known = baseline.load()["4.hot"]
    assert baseline.fallen({"4.hot": known}) == [] == baseline.fallen({"4.hot": known + 1})
    assert "4.hot" in baseline.fallen({"4.hot": known - 1})[0]
    assert "missing" in baseline.fallen({"no.such": 5})[0]


def test_a_case_struck_at_a_point_that_the_run_does_not_reach_has_not_held() -> None:
    judged = matrix.judge(Case("8.delete", parse_fault("refused@999")))
    assert not judged.held and judged.why == "the fault never struck"


def test_a_success_that_was_none_and_a_leak_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StorPoolDriver, "delete", lambda *_: None)
    judged = matrix.judge(case("8.delete:answer-late@1"))
    assert not judged.held and "every StorPool volume has its record" in judged.why
    assert matrix.find("8.delete").why


def test_an_operation_that_is_neither_done_nor_undone_has_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(*_: object) -> None:
        raise AssertionError("seen otherwise")

    broken = replace(operations.BY_ID["4.hot"], done=both, undone=both)
    monkeypatch.setitem(operations.BY_ID, "4.hot", broken)
    assert "neither done" in matrix.judge(case("4.hot:device-missing@1")).why
    assert "called it a success" in matrix.judge(case("4.hot:answer-late@4")).why


def test_an_error_that_nobody_expects_is_a_case_that_did_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(operations.BY_ID, "4.hot", replace(operations.BY_ID["4.hot"], request=bug))
    judged = matrix.judge(case("4.hot:refused@1"))
    assert not judged.held and "ZeroDivisionError" in judged.why


def faults(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["faults", *map(str, words)], terminal_width=200)


def test_the_command_writes_what_the_contract_says(tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    done = faults("8.delete", "4.hot:answer-lost@2", "--jobs", "2", "--json", out)
    assert done.exit_code == 0, done.output
    told = json.loads(out.read_text())
    assert {"rows", "points", "cases", "held", "per_row", "not_held"} <= told.keys()
    assert told["rows"] == 2 and told["held"] == told["cases"] > 50 and told["not_held"] == []
    assert told["per_row"]["8"]["operations"]["8.delete"]["points"] == told["points"] >= baseline.load()["8.delete"]
    assert f"{told['held']} of {told['cases']} cases held" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["24"], "no operation of '24'"),
        (["4.hot:no@1"], "no kind of fault 'no'"),
        (["4.no:hang@1"], "no operation of '4.no'"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(words: list[str], said: str) -> None:
    done = faults(*words)
    assert done.exit_code == 2 and said in done.output


def test_a_case_that_does_not_hold_is_told_with_the_command_that_shows_it_again() -> None:
    done = faults("8.delete:refused@999", "--jobs", "1")
    assert done.exit_code == 1
    assert "splab faults 8.delete:refused@999: at no point: the fault never struck" in done.output


def test_a_single_case_is_told_with_what_struck_and_what_was_done() -> None:
    done = faults("4.hot:answer-lost@3", "--jobs", "1")
    assert done.exit_code == 0, done.output
    story = done.output.partition("4.hot:answer-lost@3: ")[2]
    struck, _, told = story.partition("the client was told: ")
    assert "struck: answer-lost@3 (management: answer AttachCommand to kvm1)" in struck
    assert "management send AttachCommand to kvm1" in told and "agent-kvm1 send StorPool VolumesReassignWait" in told
