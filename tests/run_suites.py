"""Every suite with its time budget: `python tests/run_suites.py [--nightly] [SUITE ...]`.

Suites: check (lint, format, types, import rules), unit, property, memory (the action table in the memory world), faults
(the fault matrix), mutants (patches that bring a weakness back), local (tests and the action table on real hosts; needs
root). Exit 1 when one fails, or when root could not run the local world.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LOGS = ROOT / "build" / "suites"
PROCESSES = 2
PATIENCE = 4
"""A suite is ended, and has failed, at this many times its budget."""
NIGHTLY_FACTOR = 8
"""Budgets with full counts are so much longer."""


WHY_LENGTH = 600


@dataclass(frozen=True)
class Count:
    passed: int
    failed: int
    skipped: int = 0
    why: tuple[str, ...] = ()
    """A line of each failure, for the end of the output: all that some CI shows."""

    def __add__(self, other: Count) -> Count:
        return Count(
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
            self.why + other.why,
        )


NONE = Count(0, 0)


def execute(name: str, argv: Sequence[str | Path], limit: float) -> bool:
    """Run with the output in the suite's log. Whether it ended well and in time."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{name}.log").open("a") as log:
        log.write(f"$ {' '.join(str(word) for word in argv)}\n")
        log.flush()
        try:
            done = subprocess.run(
                argv,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            log.write(f"ended after {limit:.0f} s\n")
            return False
    return done.returncode == 0


def check(limit: float) -> Count:
    commands: list[list[str | Path]] = [
        [BIN / "ruff", "check", "."],
        [BIN / "ruff", "format", "--check", "."],
        [BIN / "mypy"],
        [BIN / "lint-imports"],
    ]
    # One folder at a time: the folders are no packages, and several have a conftest.py.
    folders = sorted({path.parent for path in (ROOT / "tests").rglob("*.py")})
    commands += [[BIN / "mypy", *sorted(folder.glob("*.py"))] for folder in folders]
    good = [execute("check", argv, limit) for argv in commands]
    return Count(good.count(True), good.count(False))


def pytest(name: str, expression: str, limit: float, processes: int = 0) -> Count:
    """Counts from JUnit XML; a suite without a single test, or one that did not end by itself, counts as a failure.

    0 processes are this one alone: for tests that share the machine's only lab.
    """
    xml = LOGS / f"{name}.xml"
    xml.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pytest", "-q", "-m", expression, f"--junitxml={xml}", "--durations=10"]
    argv += ["-n", str(processes)] if processes else []
    ended_well = execute(name, argv, limit)
    if not xml.exists():
        return Count(0, 1)
    suite = ElementTree.parse(xml).getroot().find("testsuite")
    if suite is None:
        return Count(0, 1)
    tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    why = tuple(_line(case.get("name", ""), bad) for case in suite for bad in case if bad.tag in ("failure", "error"))
    if failed == 0 and (not ended_well or tests == 0):
        failed = 1
    return Count(max(0, tests - skipped - failed), failed, skipped, why)


def _line(name: str, bad: ElementTree.Element) -> str:
    return f"test {name}: {' '.join((bad.get('message') or bad.text or '').split())}"[:WHY_LENGTH]


LOCAL_CASES = """
1.happy 2.first-use-seeds 2.guest-boots 3.blank 4.hot 4.start-with-data 4.cut-start 5.hot 5.qemu-died 6.live
6.cut-destination 7.data-survives 8.detached 9.data 10.from-secondary 11.root 12.backed-up 13.root 14.root
15.live-grow 15.shrink 16.backed-up 17.unused 18.vm-live 18.to-nfs 18.storpool-live 19.moment 20.running
22.running 23.running bypass.used qos.deploy encryption.data pool.happy hosts.agent-restart multicluster.across
"""
"""Of the local world by day, on the distribution's kernel. Nightly runs every one, on the small kernel."""


def scenarios(name: str, world: str, limit: float, chosen: Sequence[str] = ()) -> Count:
    """Rows of the action table in one world. A skipped row has failed, and so has a world in which none passed."""
    result = LOGS / f"{name}.json"
    result.unlink(missing_ok=True)
    report = LOGS / f"report-{world}"
    argv: list[str | Path] = [BIN / "splab", "run", *chosen, "--world", world, "--json", result, "--report", report]
    ended_well = execute(name, argv, limit)
    try:
        rows = [row for row in json.loads(result.read_text())["rows"] if row["world"] == world]
    except (OSError, ValueError, KeyError, TypeError):
        return Count(0, 1)
    rows = [row for row in rows if row["outcome"] != "not built"]
    bad = [row for row in rows if row["outcome"] != "passed"]
    why = [
        f"row {row['row']} in {world}: {row['outcome']}: {' '.join(str(row['why']).split())}"[:WHY_LENGTH]
        for row in bad
    ]
    passed, failed = len(rows) - len(bad), len(bad)
    if failed == 0 and (not ended_well or passed == 0):
        failed, why = 1, [f"{world}: no row failed, but the run did not end well; see {LOGS / name}.log"]
    return Count(passed, failed, why=tuple(why))


def local(limit: float) -> Count:
    if os.geteuid() != 0:
        print("  local: left out, it needs root")
        return NONE
    take_abandoned_lab_down()
    tests = pytest("local", "local", limit)
    if tests.skipped:
        # Root on Linux can run all of it; what was skipped was not tested.
        tests = Count(tests.passed, tests.failed + tests.skipped, why=tests.why)
    chosen = () if os.environ.get("SPLAB_COUNTS") == "full" else LOCAL_CASES.split()
    return tests + scenarios("local-rows", "local", limit, chosen)


def take_abandoned_lab_down() -> None:
    """One that a killed session left on this disk, with nothing of it alive, would keep every test's own lab out."""
    from lab.local import abandoned, down

    if (state := abandoned()) is not None:
        print(f"  local: the lab of {state} has no process left; taking it down")
        down(state)


SHARE = 5
"""One in so many cases of the fault matrix is run, unless with full counts; the points of all are found."""


def faults(limit: float) -> Count:
    """The fault matrix: cases held and not held; with full counts all of them, on several schedules."""
    seeds = range(1, 6) if os.environ.get("SPLAB_COUNTS") == "full" else range(1, 2)
    return sum((faults_on(seed, limit) for seed in seeds), NONE)


def faults_on(seed: int, limit: float) -> Count:
    """Fewer points than the baseline fail it, too."""
    result = LOGS / "faults.json"
    result.unlink(missing_ok=True)
    every = 1 if os.environ.get("SPLAB_COUNTS") == "full" else SHARE
    argv: list[str | Path] = [BIN / "splab", "faults", "--seed", str(seed), "--every", str(every), "--json", result]
    ended_well = execute("faults", argv, limit)
    try:
        told = json.loads(result.read_text())
        held, failed = int(told["held"]), int(told["cases"]) - int(told["held"])
    except (OSError, ValueError, KeyError, TypeError):
        return Count(0, 1)
    if failed == 0 and (not ended_well or held == 0):
        failed = 1
    return Count(held, failed)


def mutants(limit: float) -> Count:
    """Patches that bring a weakness back, by the last line of their run: each must be noticed."""
    ended_well = execute("mutants", [sys.executable, ROOT / "tests" / "run_mutants.py"], limit)
    lines = (LOGS / "mutants.log").read_text().splitlines()
    told = re.fullmatch(r"(\d+) passed, (\d+) failed", lines[-1])
    count = Count(int(told[1]), int(told[2])) if told else Count(0, 1)
    return count if ended_well or count.failed else Count(0, 1)


def kernel(limit: float) -> Count:
    """The local world of a night runs on it: without KVM its guests boot with a quarter of the CPU time."""
    return Count(1, 0) if execute("kernel", [BIN / "splab", "lab", "kernel"], limit) else Count(0, 1)


def fresh(limit: float) -> Count:
    return Count(1, 0) if execute("fresh", ["make", "fresh"], limit) else Count(0, 1)


SUITES: dict[str, tuple[int, Callable[[float], Count]]] = {
    "check": (150, check),
    "unit": (480, lambda limit: pytest("unit", "not local and not hypothesis", limit, PROCESSES)),
    "property": (120, lambda limit: pytest("property", "hypothesis and not local", limit)),
    "memory": (120, lambda limit: scenarios("memory", "memory", limit)),
    "faults": (360, faults),
    "mutants": (360, mutants),
    "local": (1500, local),
}
NIGHTLY = {"kernel": (600, kernel), "fresh": (600, fresh)}


def tail(name: str) -> str:
    logs = sorted(LOGS.glob(f"{name}*.log"))
    return "\n".join(f"--- {log}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-60:]) for log in logs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", nargs="*", choices=[[], *SUITES, *NIGHTLY], metavar="SUITE")
    parser.add_argument(
        "--nightly", action="store_true", help="full counts, a small kernel, the set-up in an empty Debian"
    )
    options = parser.parse_args()
    suites = NIGHTLY | SUITES if options.nightly or set(options.suite) & set(NIGHTLY) else SUITES
    if options.nightly:
        os.environ["SPLAB_COUNTS"] = "full"
    for log in LOGS.glob("*.log"):
        log.unlink()
    total = NONE
    begun = time.monotonic()
    for name in options.suite or suites:
        budget, run = suites[name]
        if options.nightly:
            budget *= NIGHTLY_FACTOR
        print(f"{name} ...", flush=True)
        start = time.monotonic()
        count = run(budget * PATIENCE)
        seconds = time.monotonic() - start
        over = "  OVER ITS BUDGET" if seconds > budget else ""
        skipped = f", {count.skipped} skipped" if count.skipped else ""
        figures = f"{count.passed:5} passed, {count.failed} failed{skipped}"
        print(f"  {name:10}{seconds:6.0f} s of {budget} s  {figures}{over}", flush=True)
        if count.failed:
            print(tail(name), flush=True)
            count = count if count.why else replace(count, why=(f"{name}: see {LOGS / name}.log",))
        total += count
    for line in total.why:
        print(f"failed: {line}")
    print(f"total {time.monotonic() - begun:.0f} s")
    print(f"{total.passed} passed, {total.failed} failed")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
