"""No operation needs more StorPool calls than is written in harness/faults/calls.json, which knows all cases, too.

Cases are counted where they run anyway: tests/scenarios/test_memory_rows.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.driver.driver import StorPoolDriver
from harness.faults import calls
from harness.faults.operations import BY_ID
from harness.spi.objects import DataObject
from scenarios.registry import load


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="harness")


@pytest.mark.timeout(300)
def test_no_operation_needs_more_storpool_calls_than_its_baseline_and_everything_has_one() -> None:
    known = calls.baseline()
    assert calls.grown({"operations": calls.of_operations()}, known) == [], "look at it; if it has to be so: make calls"
    assert set(known["operations"]) == set(BY_ID)
    assert set(known["cases"]) == {case.id for case in load()}


def test_a_call_that_is_made_more_often_than_before_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    delete = StorPoolDriver.delete

    def look_first(driver: StorPoolDriver, item: DataObject) -> None:
        driver.reconcile_volumes()
        delete(driver, item)

    monkeypatch.setattr(StorPoolDriver, "delete", look_first)
    found = {"operations": {"8.delete": calls.of_operation(BY_ID["8.delete"])}}
    assert any("8.delete: VolumesList is called 1 times" in line for line in calls.grown(found, calls.baseline()))


def test_fewer_calls_are_no_growth_and_what_is_not_known_is_told() -> None:
    known = {"cases": {"a": {"Volume": 2}}}
    assert calls.grown({"cases": {"a": {"Volume": 1}}}, known) == []
    assert "no baseline" in calls.grown({"cases": {"b": {}}}, known)[0]


def test_the_command_says_what_has_grown_and_writes_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(calls, "FILE", tmp_path / "calls.json")
    monkeypatch.setattr(calls, "measure", lambda: {"operations": {"a": {"Volume": 1}}, "cases": {}})
    told = CliRunner().invoke(main, ["calls"])
    assert told.exit_code == 1 and "a has no baseline" in told.output and not calls.FILE.exists()
    assert CliRunner().invoke(main, ["calls", "--write"]).exit_code == 0
    assert calls.baseline() == {"operations": {"a": {"Volume": 1}}, "cases": {}}
    assert CliRunner().invoke(main, ["calls"]).exit_code == 0
