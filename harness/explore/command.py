"""`splab explore`: runs regressions and then seeds, shrinks what fails, and tells how to repeat it."""

from __future__ import annotations

import logging
import os
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from harness.explore import fleet, planted, regressions, story
from harness.explore.drawing import draw, parse_seed, seed_text
from harness.explore.plan import Plan
from harness.explore.regressions import Regression
from harness.explore.run import Evidence, Outcome, run
from harness.explore.shard import Totals, calibrate
from harness.explore.shrink import shrink
from harness.explore.story import Failure
from harness.explore.violation import Violation
from harness.report.session import writable
from harness.revision import commit

DEFAULT_RUNS = 1000
CANARY_RUNS = 1000
CANARY_SECONDS = 30.0
"""From so many runs, or seconds, on the canary is sent first."""
SHRUNK = 3
"""So many failing seeds are shrunk, of different kinds of violation."""


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the planted defect was found, by which seed, and what was violated."""

    found: bool
    seed: str | None = None
    violated: str | None = None


class Checked(NamedTuple):
    """What was run before the seeds; None of what was not."""

    regressions_failed: int | None = None
    canary: Canary | None = None


@click.command()
@click.option("--runs", type=click.IntRange(min=1), help=f"How many seeds. Default {DEFAULT_RUNS}, without --seconds.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Run seeds for so long.")
@click.option("--jobs", type=click.IntRange(1, 256), default=os.cpu_count() or 1, help="Processes; default: the cores.")
@click.option("--scheduler", metavar="URL", help="Run on the workers of this Dask scheduler instead.")
@click.option("--first", type=click.IntRange(min=0), help="Number of the first seed; default: one not used before.")
@click.option("--seed", help="Run this one seed, like v1:cloud:42, and tell its story if it fails.")
@click.option("--plan", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Run the plan of this file.")
@click.option("--report", type=click.Path(path_type=Path, file_okay=False), default=Path("reports"), show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write sums to this file.")
def explore(
    runs: int | None,
    seconds: float | None,
    jobs: int,
    scheduler: str | None,
    first: int | None,
    seed: str | None,
    plan: Path | None,
    report: Path,
    json_file: Path | None,
) -> None:
    """Explore the plugin under concurrent clients and faults: a seed is one cloud, one schedule, one swarm of faults.

    Exit status 0 only when nothing was violated.
    """
    _check_options()
    writable(json_file)
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    logging.getLogger("harness").setLevel(logging.CRITICAL)
    if seed is not None or plan is not None:
        sys.exit(_one(console, seed, plan, report / "explore", json_file))
    if runs is None and seconds is None:
        runs = DEFAULT_RUNS
    chosen = time.time_ns() // 1_000_000 if first is None else first
    budget = fleet.Budget(chosen, runs, seconds)
    began = time.monotonic()
    regressed = _regressions(console, report / "explore")
    canary = _canary(console) if (runs or 0) >= CANARY_RUNS or (seconds or 0) >= CANARY_SECONDS else None
    totals = _seeds(console, budget, jobs, scheduler)
    _show(console, totals)
    if json_file is not None:
        _write_json(json_file, totals, time.monotonic() - began, jobs, Checked(regressed, canary))
    _failures(console, totals, report / "explore")
    missed = canary is not None and not canary.found
    sys.exit(1 if regressed or missed or totals.failing else 0)


def _check_options() -> None:
    """Raises `UsageError` for options that mean nothing together."""
    context = click.get_current_context()
    given = {
        name: f"--{name}"
        for name in ("seed", "plan", "runs", "seconds", "jobs", "scheduler", "first")
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    if "seed" in given and "plan" in given:
        raise click.UsageError("give --seed or --plan, not both")
    one = given.pop("seed", None) or given.pop("plan", None)
    if one is not None and given:
        raise click.UsageError(f"{one} runs one plan, for which {', '.join(given.values())} means nothing")
    if "scheduler" in given and "jobs" in given:
        raise click.UsageError("--scheduler runs on the workers of Dask, for which --jobs means nothing")


def summary(totals: Totals, seconds: float, jobs: int, checked: Checked) -> dict[str, object]:
    """As `--json` writes it: sums over the runs, and how fast this machine's Python is."""
    loops = statistics.median(totals.loops_per_second or [calibrate()])
    per_minute = 60 * totals.runs / totals.cpu_seconds if totals.cpu_seconds else 0.0
    return {
        "runs": totals.runs,
        "seconds": seconds,
        "cpu_seconds": totals.cpu_seconds,
        "jobs": jobs,
        "actions": totals.actions,
        "done": totals.done,
        "calls": totals.calls,
        "faults_fired": totals.faults_fired,
        "action_kinds": totals.action_kinds,
        "points": totals.points,
        "looks": totals.looks,
        "violations": len(totals.failing),
        "failing": [seed_text(number) for number, _ in totals.failing],
        "regressions_failed": checked.regressions_failed,
        "canary": checked.canary,
        "calibration": {
            "loops_per_core_second": loops,
            "runs_per_core_minute": per_minute,
            "runs_per_million_loops": per_minute / 60 / loops * 1e6,
        },
    }


def _one(console: Console, seed: str | None, plan_file: Path | None, report: Path, json_file: Path | None) -> int:
    """Run one plan, tell its story if it fails; the exit status."""
    try:
        number = None if seed is None else parse_seed(seed)
        plan = draw(number) if number is not None else story.read(plan_file or Path())
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    began, cpu = time.monotonic(), time.process_time()
    outcome = run(plan, digest=True)
    totals = _totals(plan.seed, outcome, time.process_time() - cpu)
    command = story.command_of(plan.seed) if plan_file is None else f"splab explore --plan {plan_file}"
    if outcome.violation is None:
        console.print(f"{command}: nothing violated; journal {outcome.digest}")
    else:
        _tell(console, plan, outcome.violation, report, command, shrinks=plan_file is None)
    if json_file is not None:
        _write_json(json_file, totals, time.monotonic() - began, 1, Checked())
    return 0 if outcome.violation is None else 1


def _totals(number: int, outcome: Outcome, cpu_seconds: float) -> Totals:
    return Totals(
        runs=1,
        cpu_seconds=cpu_seconds,
        actions=outcome.actions,
        done=outcome.done,
        calls=outcome.calls,
        faults_fired=len(outcome.fired),
        action_kinds=outcome.action_kinds,
        points=outcome.points,
        looks=outcome.looks,
        failing=[] if outcome.violation is None else [(number, outcome.violation)],
        loops_per_second=[calibrate()],
    )


def _canary(console: Console) -> Canary:
    found = planted.canary()
    if found is None:
        console.print(f"canary: {planted.WITHIN} seeds did not find a driver without read-back; trust no green run")
        return Canary(found=False)
    number, violation = found
    console.print(f"canary: a driver without read-back is found by seed {number}: {violation.kind}", markup=False)
    return Canary(found=True, seed=seed_text(number), violated=violation.kind)


def _regressions(console: Console, report: Path) -> int:
    """How many of the kept plans fail again."""
    failed = 0
    kept = regressions.load()
    for number, regression in enumerate(kept, start=1):
        outcome = run(regression.plan)
        if outcome.violation is not None:
            failed += 1
            _regressed(console, number, regression, outcome.violation, report)
    console.print(f"regressions: {len(kept)} kept plans run, {failed or 'none'} fail{'' if failed > 1 else 's'}")
    return failed


def _regressed(console: Console, number: int, regression: Regression, violation: Violation, report: Path) -> None:
    command = f"splab explore --plan {report / f'regression-{number}.json'}"
    failure = Failure(
        seed=f"regression-{number}",
        commit=commit(),
        violation=violation,
        plan=regression.plan,
        drawn=regression.plan,
    )
    _print(console, failure, report, command)
    console.print(f"a plan that failed at {regression.commit} ({regression.violated}) fails again", markup=False)


def _seeds(console: Console, budget: fleet.Budget, jobs: int, scheduler: str | None) -> Totals:
    columns = (
        TextColumn("{task.completed:.0f} runs"),
        BarColumn(),
        TextColumn("{task.fields[failing]} failing"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("seeds", total=budget.runs, failing=0)
        try:
            return fleet.explore(
                budget,
                jobs,
                scheduler,
                lambda totals: progress.update(bar, completed=totals.runs, failing=len(totals.failing)),
            )
        except (ValueError, OSError) as error:
            raise click.ClickException(str(error)) from error


def _show(console: Console, totals: Totals) -> None:
    if not totals.runs:
        return
    runs = totals.runs
    per_minute = 60 * runs / totals.cpu_seconds if totals.cpu_seconds else 0.0
    console.print(
        f"{runs} runs: {totals.actions} actions, {totals.done} of them a success to CloudStack, {totals.calls} StorPool"
        f" calls until the cloud was at rest, {totals.faults_fired} faults; a run {totals.actions / runs:.1f} actions"
        f" ({totals.done / runs:.1f} a success) of {totals.action_kinds / runs:.1f} kinds, {totals.calls / runs:.1f}"
        f" calls, {totals.faults_fired / runs:.1f} faults"
    )
    console.print(
        f"{per_minute:.0f} runs a core-minute; {totals.points} points passed with safety checked, {totals.looks} looks"
        f" at what was touched; {len(totals.failing)} failing"
    )


def _failures(console: Console, totals: Totals, report: Path) -> None:
    """Shrink and tell one seed of each kind of violation, and name the others."""
    kinds: dict[str, int] = {}
    for number, violation in totals.failing:
        if violation.kind not in kinds and len(kinds) < SHRUNK:
            kinds[violation.kind] = number
            _tell(console, draw(number), violation, report, story.command_of(number), shrinks=True)
        else:
            console.print(f"{story.command_of(number)}    # {violation.kind}", markup=False)


def _tell(console: Console, plan: Plan, violation: Violation, report: Path, command: str, *, shrinks: bool) -> None:
    shrunk = shrink(plan, violation.kind, lambda smaller: run(smaller).violation) if shrinks else plan
    failure = Failure(
        seed=seed_text(plan.seed),
        commit=commit(),
        violation=run(shrunk).violation or violation,
        plan=shrunk,
        drawn=plan,
    )
    _print(console, failure, report, command)


def _print(console: Console, failure: Failure, report: Path, command: str) -> None:
    evidence = Evidence()
    outcome = run(failure.plan, evidence=evidence)
    text = story.tell(failure, outcome, evidence, command)
    console.print(text, markup=False)
    console.print(f"the shrunk plan: splab explore --plan {story.write(failure, text, report)}", markup=False)


def _write_json(path: Path, totals: Totals, seconds: float, jobs: int, checked: Checked) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(summary(totals, seconds, jobs, checked))) + b"\n")
