"""`splab bench` in its quick mode: the shape of what it says, and what it leaves. Nothing here looks at the clock."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.bench import http_client
from harness.bench.http_client import BadAnswer, drive
from harness.bench.measure import Missing, in_turns, percentile, quartiles
from harness.bench.rig import request, require_devices, simulator

ROOT = Path(__file__).parents[2]
SECONDS = 200.0
TARGETS = {
    "api": {
        "reads of one volume, 1 connection": ("at least", 0.5),
        "reads of one volume, 8 connections": ("at least", 0.5),
        "durable creates in memory, 1 connection": ("at least", 0.5),
        "durable creates in memory, 8 connections, as syncs": ("at least", 1.0),
        "VolumesList in process": ("at least", 0.5),
        "VolumesList over HTTP": ("at least", 0.5),
        "start-up from the journal": ("at most", 3.0),
        "memory with 50 volumes and 100 snapshots": ("at most", 300 << 20),
    },
    "attach": {"attach and detach": ("at most", 5.0), "snapshot of a sparse volume of 1 TiB": ("at most", 1.5)},
    "io": {
        "4 KiB randread on a volume never snapshotted": ("at least", 0.95),
        "4 KiB randwrite on a volume never snapshotted": ("at least", 0.95),
    },
    "boot": {},
    "explore": {},
}
WITH_DEVICES = {"durable creates on btrfs, 1 connection": ("at least", 0.5)}


def has_devices() -> bool:
    try:
        require_devices()
    except Missing:
        return False
    return True


def bench(place: Path, *words: str, path: str | None = None) -> tuple[int, str, dict[str, Any]]:
    """(exit status, what was printed, JSON)."""
    directory, result = place / "disk", place / "figures.json"
    directory.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "harness.cli",
            "bench",
            *words,
            f"--directory={directory}",
            f"--json={result}",
            f"--report={place / 'report'}",
        ],
        cwd=ROOT,
        env=os.environ | {"SPLAB_BENCH": "quick"} | ({} if path is None else {"PATH": path}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert list(directory.iterdir()) == []
    behind = [file.read_text() for file in Path("/sys/block").glob("loop*/loop/backing_file")]
    assert [file for file in behind if str(place) in file] == []
    return done.returncode, done.stdout, json.loads(result.read_text())


@pytest.mark.parametrize(
    "leg",
    ["api", "explore", *(pytest.param(leg, marks=pytest.mark.local) for leg in ("attach", "boot", "io"))],
)
def test_a_leg_says_what_was_measured_on_what_and_against_what(tmp_path: Path, leg: str) -> None:
    status, printed, told = bench(tmp_path, leg)
    assert (status, told["failed"], told["left_out"]) == (0, [], []), printed
    assert {"kernel", "cores", "python", "commit", "file system"} <= set(told["on"])
    figures = {figure["name"]: figure for figure in told["measurements"]}
    # Of boots there is one more where the small kernel was built.
    assert len(figures) == len(told["measurements"]) > (0 if leg == "boot" else 2)
    assert {
        name: (figure["bound"], figure["target"]) for name, figure in figures.items() if figure["target"] is not None
    } == TARGETS[leg] | (WITH_DEVICES if leg == "api" and has_devices() else {})
    for figure in figures.values():
        assert figure["leg"] == leg and figure["unit"] and figure["value"] >= 0 and figure["samples"]
        values, baselines = zip(*figure["samples"], strict=True)
        judged = figure["value"]
        if figure["baseline"] is None:
            assert set(baselines) == {None} and figure["ratio"] is None
        else:
            judged = figure["ratio"]
            assert figure["against"] and figure["baseline"] == statistics.median(baselines) > 0
            assert figure["value"] == statistics.median(values) > 0
            ratios = [value / baseline for value, baseline in figure["samples"]]
            assert judged == pytest.approx(statistics.median(ratios))
            assert min(ratios) <= figure["spread"][0] <= judged <= figure["spread"][1] <= max(ratios)
        expected = {"at least": judged >= (figure["target"] or 0), "at most": judged <= (figure["target"] or 0)}
        assert figure["met"] == expected.get(figure["bound"])
    page = (tmp_path / "report" / "index.html").read_text()
    assert all(name in page for name in figures) and "Action table" not in page


@pytest.mark.local
def test_a_measurement_that_fails_is_named_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    broken = tools / "fio"
    broken.write_text("#!/bin/sh\necho no such engine >&2\nexit 1\n")
    broken.chmod(0o755)
    status, _, told = bench(tmp_path, "io", path=f"{tools}:{os.environ['PATH']}")
    [why] = told["failed"]
    assert status == 1 and why.startswith("io: FioError: fio on /dev/loop") and "no such engine" in why


@pytest.mark.local
def test_a_guest_that_does_not_boot_is_named(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    broken = tools / "qemu-system-x86_64"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    status, _, told = bench(tmp_path, "boot", path=f"{tools}:{os.environ['PATH']}")
    [why] = told["failed"]
    assert status == 1 and why.startswith("boot: BenchError: a guest of /") and "was not ready" in why


@pytest.mark.local
def test_a_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    status, printed, told = bench(tmp_path, "io", path=str(tmp_path))
    assert (status, told["left_out"]) == (1, ["io needs fio (apt install fio)"]) and told["left_out"][0] in printed


def test_the_client_counts_answers_and_takes_nothing_but_a_success_for_one() -> None:
    with simulator("--blocks", "memory") as running:
        drove = drive(running.port, request("GET", "VolumesList"), 3, 0.05)
        metrics = running.raw(b"GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n").decode()
        assert f'splab_calls_total{{call="VolumesList"}} {drove.answers}.0' in metrics and drove.answers >= 3
        with pytest.raises(BadAnswer, match="objectDoesNotExist"):
            drive(running.port, request("GET", "Volume/none"), 1, 0.05)
        with pytest.raises(BadAnswer, match="objectDoesNotExist"):
            http_client.apart(running.port, request("GET", "Volume/none"), 1, 0.05)


def test_turns_alternate_and_each_gives_its_own_pair() -> None:
    order: list[str] = []

    def take(name: str, number: float) -> float:
        order.append(name)
        return number + len(order)

    pairs = in_turns(3, lambda: take("a", 100), lambda: take("b", 200))
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert pairs == [(101, 202), (104, 203), (105, 206)]


def test_percentiles_are_samples_and_quartiles_lie_between_them() -> None:
    values = [float(value) for value in range(1, 21)]
    assert (percentile(values, 95), percentile(values, 100), percentile([7.0], 95)) == (19.0, 20.0, 7.0)
    assert quartiles(values) == (5.75, 15.25) and quartiles([3.0]) == (3.0, 3.0)
