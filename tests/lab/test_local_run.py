"""`splab run` on the local world, as a whole: what it tells of a case, and what a killed run leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.report.result import CaseResult, Outcome, collect
from harness.report.stream import STREAM_NAME, read_stream
from lab.local.cgroup import processes
from lab.local.machines import folder_of

pytestmark = [pytest.mark.local, pytest.mark.timeout(400)]

Listing = dict[str, set[str]]
REPOSITORY = Path(__file__).parents[2]


def splab(state: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "SPLAB_STATE": str(state), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, "-m", "harness.cli", *arguments], env=environment, cwd=REPOSITORY)


def wait(what: str, condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def runs_a_guest() -> bool:
    for process in processes(folder_of("")) if folder_of("").exists() else []:
        try:
            # libvirt also starts QEMUs without a guest, to see what they can do.
            if b"\0-name\0guest=" in Path(f"/proc/{process}/cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


def ssh_masters() -> set[str]:
    done = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True, timeout=30)
    return {line for line in done.stdout.splitlines() if line.startswith("ssh: ") and "splab-ssh" in line}


def left_over(before: Listing, after: Listing) -> Listing:
    """What is there now and was not before; what other work of this machine took away meanwhile does not count."""
    return {kind: after[kind] - before[kind] for kind in after if after[kind] - before[kind]}


@pytest.mark.parametrize("chosen", [("4.hot",), ("4.hot", "2.guest-boots", "--labs", "2")], ids=["one lab", "two labs"])
def test_a_killed_run_is_taken_down_with_its_guest_agents_and_stand_in(
    chosen: tuple[str, ...], state_directory: Path, listing: Callable[[str], Listing], tmp_path: Path
) -> None:
    about = str(state_directory)
    before, masters = listing(about), ssh_masters()
    run = splab(state_directory, "run", *chosen, "--world", "local", "--report", str(tmp_path))
    try:
        wait("a guest runs", lambda: runs_a_guest() or run.poll() is not None, 120)
        assert run.poll() is None, "the run ended before it could be killed"
        words = "\n".join(sorted(listing(about)["processes"] - before["processes"]))
        for name in ("harness.agent.main", "harness.worlds.management", "harness.cloudstack.secondary", "guest="):
            assert name in words, f"{name} does not run: {words}"
        for other in (("run", "4.hot", "--world", "local", "--report", str(tmp_path / "other")), ("lab", "down")):
            assert splab(state_directory, *other).wait(60) == 1, f"{other} was not refused while a run uses the lab"
        after = "\n".join(sorted(listing(about)["processes"] - before["processes"]))
        assert "harness.worlds.management" in after and "harness.agent.main" in after and run.poll() is None
    finally:
        run.kill()
        run.wait(20)
    assert splab(state_directory, "lab", "down").wait(120) == 0
    # The kernel lets namespaces go a moment after their last process.
    wait("nothing is left", lambda: not left_over(before, listing(about)), 20)
    assert ssh_masters() <= masters
    assert not state_directory.exists()


def test_two_labs_at_once_share_the_cases_and_leave_nothing(
    state_directory: Path, listing: Callable[[str], Listing], tmp_path: Path
) -> None:
    about = str(state_directory)
    before = listing(about)
    run = splab(
        state_directory,
        "run",
        "3.allocated",
        "8.detached",
        "--labs",
        "2",
        "--world",
        "local",
        "--report",
        str(tmp_path),
    )
    try:
        ended = run.wait(300)
    finally:
        run.kill()
        run.wait(20)
    result = collect(read_stream(tmp_path / STREAM_NAME))
    assert [case.why for case in result.cases if case.outcome is not Outcome.PASSED] == []
    assert (ended, sorted(case.id for case in result.cases)) == (0, ["3.allocated", "8.detached"])
    up = [note for note in result.notes if note.endswith("filling the zone: pools, offering, hosts")]
    assert sorted(note.split(":")[0] for note in up) == ["lab1", "lab2"]
    wait("nothing is left", lambda: not left_over(before, listing(about)), 20)
    assert not state_directory.exists()


def test_the_timeline_tells_api_agent_storpool_and_libvirt_work_in_order(state_directory: Path, tmp_path: Path) -> None:
    run = splab(state_directory, "run", "4.hot", "--world", "local", "--report", str(tmp_path))
    try:
        assert run.wait(200) == 0
    finally:
        run.kill()
        run.wait(20)
    case = only_case(tmp_path)
    assert case.outcome is Outcome.PASSED
    expected = (
        ("CloudStack", "attachVolume "),
        ("management agents", "to kvm"),
        ("kvm", "POST MultiCluster/VolumesReassignWait"),
        ("kvm", "attach disk /dev/storpool-byid/"),
        ("management agents", "from kvm"),
        ("management StorPool", "POST MultiCluster/VolumeUpdate"),
        ("CloudStack", "list"),
    )
    told = [(entry.source, entry.text) for entry in case.timeline]
    position = 0
    for source, text in expected:
        rest = enumerate(told[position:], start=position)
        found = next((n for n, entry in rest if entry[0].startswith(source) and entry[1].startswith(text)), None)
        assert found is not None, f"{source}: {text!r} does not follow: {told[position : position + 40]}"
        position = found


def only_case(report: Path) -> CaseResult:
    (case,) = [case for row in collect(read_stream(report / STREAM_NAME)).rows() for case in row.cases]
    return case
