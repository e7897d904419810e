"""`splab` as a user meets it: exit codes, what is printed, what is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from scenarios import registry
from scenarios.registry import load

SMALL = "8.allocated"


@pytest.fixture
def no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("SPLAB_LAB", raising=False)


def splab(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], terminal_width=200)


def test_a_run_ends_with_the_table_the_report_and_exit_code_0(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = splab("run", SMALL, "--world", "memory", "--seed", "5", "--report", tmp_path / "r", "--json", out)
    assert done.exit_code == 0, done.output
    assert "delete DATA volume" in done.output and str(tmp_path / "r/index.html") in done.output
    document = json.loads(out.read_text())
    assert [(row["row"], row["world"], row["outcome"]) for row in document["rows"]] == [(8, "memory", "passed")]
    assert document["rows"][0]["cases"][0]["checks"]
    of_all = f"1 of {sum(case.row == 8 for case in load())} cases"
    assert of_all in done.output and of_all in document["rows"][0]["why"]
    assert document["invariants"]["checked"] > 0 and document["invariants"]["violated"] == []
    assert {path.name for path in (tmp_path / "r").iterdir()} == {
        "index.html",
        "junit.xml",
        "results.json",
        "results.jsonl",
    }


def test_a_whole_row_says_nothing_of_chosen_cases(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = splab("run", "3", "--world", "memory", "--report", tmp_path / "r", "--json", out)
    assert done.exit_code == 0 and " cases" not in done.output, done.output
    assert [row["why"] for row in json.loads(out.read_text())["rows"]] == [""]


def test_a_memory_case_on_the_page_has_what_was_asked_of_storpool_and_agents(tmp_path: Path) -> None:
    done = splab("run", "4.start", "--world", "memory", "--report", tmp_path)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "index.html").read_text()
    assert "VolumesReassignWait" in page and "StartCommand" in page and "deployVirtualMachine" in page


@pytest.mark.usefixtures("no_root")
def test_without_root_one_line_says_so_and_memory_is_run(tmp_path: Path) -> None:
    done = splab("run", SMALL, "--report", tmp_path)
    assert done.exit_code == 0, done.output
    assert sum("must be root" in line for line in done.output.splitlines()) == 1
    assert "passed" in done.output
    assert splab("run", SMALL, "--world", "local", "--report", tmp_path).exit_code == 1


def test_a_row_that_is_not_built_fails_when_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = tuple(case for case in load() if case.row != "pool")
    monkeypatch.setattr(registry, "load", lambda: built)
    done = splab("run", "pool", SMALL, "--world", "memory", "--report", tmp_path)
    assert done.exit_code == 1
    assert "row pool was asked for" in done.output


@pytest.mark.parametrize("row", ["24", "4.no-such-case", "--", "../../etc/passwd"])
def test_an_unknown_row_is_a_usage_error_and_runs_nothing(row: str, tmp_path: Path) -> None:
    done = splab("run", "--world", "memory", "--report", tmp_path / "r", "--", row)
    assert done.exit_code == 2
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("stream", "named"), [(None, "no result stream"), ("", "no run"), ("{bad\n", "line 1")])
def test_a_directory_without_the_results_of_a_run_has_no_report(stream: str | None, named: str, tmp_path: Path) -> None:
    if stream is not None:
        (tmp_path / "results.jsonl").write_text(stream)
    done = splab("report", tmp_path)
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
    assert named in done.output


@pytest.mark.parametrize("option", ["--report", "--json"])
def test_a_place_that_cannot_be_written_is_told_before_anything_runs(option: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file/below"
    done = splab("run", SMALL, "--world", "memory", "--report", tmp_path / "r", option, place)
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
    assert str(place) in done.output and "passed" not in done.output


@pytest.mark.parametrize(("text", "named"), [("colour: blue", "colour"), ("][", "cannot read"), (None, "No such file")])
def test_a_lab_file_that_is_not_one_is_told_before_anything_runs(text: str | None, named: str, tmp_path: Path) -> None:
    lab = tmp_path / "lab.yaml"
    if text is not None:
        lab.write_text(text)
    done = splab("run", SMALL, "--lab", lab, "--report", tmp_path / "r")
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
    assert str(lab) in done.output and named in done.output
    assert not (tmp_path / "r").exists()


def test_the_simulator_is_only_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[list[str]] = []

    def execv(path: str, argv: list[str]) -> None:
        assert path == argv[0]
        executed.append(argv[1:])

    monkeypatch.setattr(os, "execv", execv)
    splab("simulator", "--listen", "127.0.0.1:0", "--help")
    assert executed == [["--listen", "127.0.0.1:0", "--help"]]
