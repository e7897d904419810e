"""No operation needs more StorPool calls than is written in harness/faults/calls.json, which knows all cases, too.

Cases are counted where they run anyway: tests/scenarios/test_memory_rows.py.
"""

from __future__ import annotations

import subprocess
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
    assert calls.grown({"operations": calls.of_operations()}, known) == [], calls.WHAT_NEXT
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


RISEN = {"operations": {"4.hot": {"Volume": 3, "VolumesReassignWait": 2}}, "cases": {}}


def git(directory: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(directory), *identity, *arguments], check=True, capture_output=True, timeout=60)


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory with a changelog and a baseline, in which two calls are made more often now."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(calls, "FILE", tmp_path / "calls.json")
    monkeypatch.setattr(calls, "CHANGELOG", tmp_path / "CHANGELOG.md")
    monkeypatch.setattr(calls, "measure", lambda: RISEN)
    calls.write({"operations": {"4.hot": {"Volume": 1}}, "cases": {}})
    calls.CHANGELOG.write_text("- `Volume` and `VolumesReassignWait` are called more often, as was told long ago.\n")
    return tmp_path


def refusal() -> str:
    before = calls.FILE.read_text()
    told = CliRunner().invoke(main, ["calls", "--write"])
    assert told.exit_code == 1 and calls.FILE.read_text() == before
    assert "Error: calls.json is left as it was" in told.output
    return told.output.partition("Error: ")[2]


def test_a_rise_is_written_only_when_a_new_line_of_the_changelog_names_its_call(project: Path) -> None:
    git(project, "init")
    git(project, "add", ".")
    git(project, "commit", "-m", "before")
    said = refusal()
    assert "4.hot: Volume is called 3 times, in calls.json it is 1" in said
    assert "4.hot: VolumesReassignWait is called 2 times, in calls.json it is 0" in said
    assert calls.WHAT_NEXT in said
    with calls.CHANGELOG.open("a") as file:
        file.write("- An attach looks first: `Volume`.\n")
    said = refusal()
    assert "Volume is" not in said and "VolumesReassignWait is called" in said
    with calls.CHANGELOG.open("a") as file:
        file.write("- And reassigns once more (`VolumesReassignWait`).\n")
    assert CliRunner().invoke(main, ["calls", "--write"]).exit_code == 0
    assert calls.baseline() == RISEN
    git(project, "commit", "-a", "-m", "after")
    assert CliRunner().invoke(main, ["calls", "--write"]).exit_code == 0, "nothing rises, so nothing need be told"


def test_where_nobody_sees_what_is_new_in_the_changelog_no_count_rises(project: Path) -> None:
    said = refusal()
    assert "in a git clone" in said and "ot a git repository" in said, said
    git(project, "init")
    assert "in a git clone" in refusal(), "nothing is committed"
    (project / "other").write_text("")
    git(project, "add", "other")
    git(project, "commit", "-m", "without a changelog")
    assert CliRunner().invoke(main, ["calls", "--write"]).exit_code == 0, "all of its lines are new"
    calls.write({"operations": {"4.hot": {}}, "cases": {}})
    calls.CHANGELOG.unlink()
    assert "in a git clone" in refusal()
    calls.write(RISEN)
    assert CliRunner().invoke(main, ["calls", "--write"]).exit_code == 0, "nothing rises"


def test_the_help_and_a_failure_say_what_a_rise_needs(project: Path) -> None:
    assert project == calls.FILE.parent
    assert "CHANGELOG.md" in CliRunner().invoke(main, ["calls", "--help"]).output
    told = CliRunner().invoke(main, ["calls"])
    assert told.exit_code == 1 and calls.WHAT_NEXT in told.output
