"""The runner of mutants tells one that was noticed from those that were not, and leaves nothing behind."""

from __future__ import annotations

import difflib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "tests" / "run_mutants.py"
FILE = "harness/driver/driver.py"
TEXT = (ROOT / FILE).read_text()
METHOD = "    def delete(self, item: DataObject) -> None:\n"
SECONDS = 240


def write(directory: Path, name: str, added: str, text: str = TEXT) -> None:
    """A patch that begins deleting with one line more."""
    before = text.splitlines(keepends=True)
    at = before.index(METHOD) + 1
    after = [*before[:at], f"        {added}\n", *before[at:]]
    head = f"title: {name}\nweakness: none\nkills: 8.delete:answer-late\nbecause: belongs to no record\n\n"
    diff = difflib.unified_diff(before, after, f"a/{FILE}", f"b/{FILE}")
    (directory / f"{name}.patch").write_text(head + "".join(diff))


def run(patches: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, RUNNER, "--patches", patches, *names],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_only_what_is_noticed_for_the_expected_reason_is_killed(tmp_path: Path) -> None:
    write(tmp_path, "deletes-nothing", "return")
    write(tmp_path, "changes-nothing", "# nothing")
    write(tmp_path, "raises", "raise RuntimeError(item)")
    write(tmp_path, "cannot-be-read", ")")
    write(tmp_path, "too-old", "return", text=TEXT.replace("self._motion.copy(", "self._motion.copied("))
    done = run(tmp_path)
    told = {line.split()[0]: line for line in done.stdout.splitlines() if "  none " in line}
    assert len(told) == 5, done.stdout + done.stderr
    assert "8.delete without a fault  belongs to no record" in told["deletes-nothing"]
    assert "NOT KILLED" in told["changes-nothing"] and "cases hold (8.delete:answer-late)" in told["changes-nothing"]
    assert "NOT KILLED" in told["raises"] and "for another reason: " in told["raises"]
    assert "NOT KILLED" in told["cannot-be-read"] and "SyntaxError" in told["cannot-be-read"]
    assert "NOT KILLED" in told["too-old"] and "it does not apply any more (" in told["too-old"]
    assert done.stdout.endswith("\n1 passed, 4 failed\n") and done.returncode == 1


def test_a_mutant_that_exploration_notices_is_killed_and_others_are_not_run(tmp_path: Path) -> None:
    text = (ROOT / "tests" / "mutants" / "lost-create-is-a-failure.patch").read_text()
    (tmp_path / "explored.patch").write_text(re.sub("(?m)^kills:.*", "kills: explore:120", text))
    write(tmp_path, "changes-nothing", "# nothing")
    done = run(tmp_path, "explored")
    assert "  v1:cloud:" in done.stdout, done.stdout + done.stderr
    assert done.stdout.endswith("\n1 passed, 0 failed\n") and done.returncode == 0


def test_bad_headers_and_unknown_names_are_told(tmp_path: Path) -> None:
    assert "there is no NAME.patch" in run(tmp_path).stderr
    write(tmp_path, "good", "return")
    assert "there is no mutant bad" in run(tmp_path, "bad").stderr
    text = (tmp_path / "good.patch").read_text()
    for old, new, why in (
        ("because: belongs to no record\n", "", "because missing"),
        ("because: belongs to no record", "because: .*", "a crash would count"),
        ("weakness:", "weaknes:", "before the diff come"),
        ("--- ", "", "there is no diff"),
    ):
        (tmp_path / "good.patch").write_text(text.replace(old, new))
        done = run(tmp_path)
        assert why in done.stderr and done.returncode == 1, done.stderr


def test_an_interrupted_run_leaves_no_process_and_no_directory(tmp_path: Path) -> None:
    patches, temporary = tmp_path / "patches", tmp_path / "temporary"
    patches.mkdir()
    temporary.mkdir()
    write(patches, "changes-nothing", "# nothing")
    environment = {**os.environ, "TMPDIR": str(temporary)}
    runner = subprocess.Popen([sys.executable, RUNNER, "--patches", patches], env=environment)
    try:
        deadline = time.monotonic() + SECONDS
        while not working_in(temporary) and time.monotonic() < deadline and runner.poll() is None:
            time.sleep(0.01)
        assert working_in(temporary)
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(SECONDS) == 130
    finally:
        runner.kill()
        runner.wait()
    assert list(temporary.iterdir()) == []
    assert working_in(temporary) == []


def working_in(directory: Path) -> list[str]:
    """Processes whose working directory is below this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(directory):
                found.append(process.name)
        except OSError:
            continue
    return found
