"""Two runs never share a lab."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.worlds.local.venue import LocalVenue
from lab import claim
from lab.claim import Claim, InUse, holders
from lab.commands import lab
from lab.errors import LabError

HOLD = """import sys
from pathlib import Path
from lab.claim import Claim
held = Claim(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()"""


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)


def test_a_second_run_is_refused_with_the_name_of_the_first_and_its_death_frees_the_lab(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.touch()
    first = holder(path)
    try:
        with pytest.raises(InUse, match=f"process {first.pid} .*Claim"):
            Claim(path)
        with pytest.raises(InUse):
            LocalVenue(path).open(print)
        assert len(holders(path)) == 1
    finally:
        end(first)
    mine = Claim(path)
    mine.release()
    mine.release()
    assert holders(path) == []


def test_a_lab_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"none\.yaml.*No such file"):
        LocalVenue(tmp_path / "none.yaml").open(print)


def test_a_lab_that_a_run_uses_is_not_taken_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.lock"
    path.touch()
    monkeypatch.setattr(claim, "LOCAL", path)
    first = holder(path)
    try:
        done = CliRunner().invoke(lab, ["down", "--state", str(tmp_path / "none")])
    finally:
        end(first)
    assert done.exit_code == 1
    assert f"process {first.pid}" in done.output
