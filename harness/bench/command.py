"""`splab bench`: figures of this machine beside baselines of this machine."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
from rich.console import Console

from harness.bench import api, attach, boot, explore, io
from harness.bench.fio_parser import FioError
from harness.bench.http_client import BadAnswer
from harness.bench.measure import FULL, QUICK, Bench, BenchError, Missing
from harness.report.result import Result
from harness.report.session import properties, record, writable
from harness.report.stream import Listener, Note, SuiteEnded, SuiteStarted
from lab.errors import LabError
from simulator.ports import BlocksError, JournalError

LEGS: dict[str, Callable[[Bench], None]] = {
    "attach": attach.measure,
    "io": io.measure,
    "api": api.measure,
    "boot": boot.measure,
    "explore": explore.measure,
}
_FAILURES = (BenchError, BadAnswer, FioError, BlocksError, JournalError, LabError, OSError, subprocess.SubprocessError)


_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)


class BenchJson(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` writes it."""

    on: dict[str, str]
    measurements: list[msgspec.Raw]
    """`harness.report.stream.Measured`, all fields."""
    left_out: list[str]
    failed: list[str]


@click.command()
@click.argument("leg", nargs=-1, type=click.Choice(list(LEGS)))
@click.option("--quick", is_flag=True, help="Seconds, for the shape of it: figures mean nothing. Or SPLAB_BENCH=quick.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False, writable=True),
    default=Path("/var/tmp"),
    show_default=True,
    help="The disk to measure on; what is written there is removed again.",
)
@click.option("--report", type=_FOLDER, default=Path("reports/bench"), show_default=True)
@click.option("--json", "json_file", type=_FILE, help="Write the figures to this file.")
def bench(leg: tuple[str, ...], quick: bool, directory: Path, report: Path, json_file: Path | None) -> None:
    """Measure attaching, I/O, the API, boots and runs in memory, each in turns with a baseline; all by default.

    Exit status 0 whether targets are met or missed; 1 when a measurement failed, or a leg that was named cannot be run.
    """
    writable(json_file)
    logging.getLogger("harness").setLevel(logging.CRITICAL)
    quick = quick or os.environ.get("SPLAB_BENCH") == "quick"
    run = _Run(leg, directory, quick)
    result = record(Console(highlight=False), report, run)
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(run.summary(result))) + b"\n")
    sys.exit(1 if run.failed or (leg and run.left_out) else 0)


class _Run:
    """One run of some legs, into one stream."""

    def __init__(self, legs: tuple[str, ...], directory: Path, quick: bool) -> None:
        self._directory = directory
        self._legs = [name for name in LEGS if name in legs or not legs]
        self._effort = QUICK if quick else FULL
        self._began = time.monotonic()
        self.left_out: list[str] = []
        self.failed: list[str] = []

    def __call__(self, listen: Listener) -> None:
        directory = Path(tempfile.mkdtemp(prefix="splab-bench-", dir=self._directory))
        try:
            listen(SuiteStarted(properties=_about(directory), rows=[], worlds=[], cases={}))
            for name in self._legs:
                place = directory / name
                place.mkdir()
                self._measure(name, Bench(self._effort, place, listen, self._began), listen)
        finally:
            shutil.rmtree(directory)
        listen(SuiteEnded(at=self._seconds(), seconds=self._seconds()))

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _measure(self, name: str, bench: Bench, listen: Listener) -> None:
        try:
            LEGS[name](bench)
        except Missing as missing:
            self.left_out.append(f"{name} needs {missing}")
            listen(Note(at=self._seconds(), text=f"left out: {self.left_out[-1]}"))
        except _FAILURES as error:
            self.failed.append(f"{name}: {type(error).__name__}: {error}")
            listen(Note(at=self._seconds(), text=f"failed: {self.failed[-1]}"))

    def summary(self, result: Result) -> BenchJson:
        figures = []
        for measured in result.measured:
            fields = msgspec.to_builtins(measured)
            del fields["event"], fields["at"]
            figures.append(msgspec.Raw(msgspec.json.encode(fields)))
        return BenchJson(on=result.properties, measurements=figures, left_out=self.left_out, failed=self.failed)


def _about(directory: Path) -> dict[str, str]:
    """What was measured on."""
    device = directory.stat().st_dev
    kinds = [line.split(" - ")[1].split()[0] for line in _mounts() if line.split()[2] == _number(device)]
    return properties() | {
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "file system": kinds[-1] if kinds else "unknown",
        "directory": str(directory.parent),
    }


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"
