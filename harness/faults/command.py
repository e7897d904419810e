"""`splab faults`: runs the fault matrix in several processes and says what did not hold."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from harness.faults import baseline, matrix
from harness.faults.matrix import Found, Judged
from harness.faults.operations import BY_ID
from harness.report.session import writable

STORIES = 3
"""Single cases that are told in full."""


@click.command()
@click.argument("row", nargs=-1)
@click.option("--world", type=click.Choice(["memory", "local"]), default="memory", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=matrix.SEED, show_default=True, help="Of the schedule.")
@click.option("--jobs", type=click.IntRange(1, 256), default=os.cpu_count() or 1, help="Processes; default: the cores.")
@click.option(
    "--every", type=click.IntRange(min=1), default=1, show_default=True, help="Strike every N-th case only; in memory."
)
@click.option("--full", is_flag=True, help="Local: every victim at every step, not one.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("reports/faults"),
    show_default=True,
    help="Local: where the report goes.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the result as JSON to this file.")
def faults(
    row: tuple[str, ...],
    world: str,
    seed: int,
    jobs: int,
    every: int,
    full: bool,
    report: Path,
    json_file: Path | None,
) -> None:
    """Strike each operation at every point by every fault that fits, and judge it at rest.

    ROW is a row of the action table, an operation such as 4.hot, or one case such as 4.hot:answer-lost@2; all by
    default. Exits with 0 only when every case held and no operation has fewer points than its baseline. On the local
    lab (root; it brings one up for itself) processes are killed at every message; cases are like 2.deploy.07.agent.
    """
    writable(json_file)
    if world == "local":
        from harness.faults.local import strike

        sys.exit(strike(row, full, report, json_file))
    try:
        operations, cases = matrix.chosen(row, seed)
    except KeyError as error:
        known = ", ".join(BY_ID)
        raise click.UsageError(f"no operation of {error.args[0]!r}; the matrix has {known}") from error
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    console = Console(highlight=False)
    with multiprocessing.get_context("spawn").Pool(jobs, matrix.quietly) as pool, _progress(console) as progress:
        found = pool.starmap(matrix.find, [(operation.id, seed) for operation in operations], chunksize=1)
        todo = [*cases, *[case for each in found for case in each.cases][::every]]
        task = progress.add_task("cases", total=len(todo))
        judged = []
        for each in pool.imap(matrix.judge, todo, chunksize=8):
            judged.append(each)
            progress.advance(task)
    # Another schedule may pass a background task more or less.
    fallen = baseline.fallen({each.operation: each.points for each in found}) if seed == matrix.SEED else []
    result = summary(found, judged, fallen)
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1) + "\n")
    console.print(_table(result))
    for text in result["not_held"]:
        console.print(text, style="red", markup=False, soft_wrap=True)
    for case in cases[:STORIES]:
        console.print(matrix.tell(case), markup=False, soft_wrap=True)
    for text in fallen:
        console.print(text, style="red", markup=False, soft_wrap=True)
    console.print(f"{result['held']} of {result['cases']} cases held, at {result['points']} points")
    sys.exit(0 if result["held"] == result["cases"] and not result["not_held"] and not fallen else 1)


def summary(found: Sequence[Found], judged: Sequence[Judged], fallen: Sequence[str]) -> dict[str, Any]:
    """The result as JSON (design section 7); single cases count, but bring no points of their own."""
    per_row: dict[str, dict[str, Any]] = {}
    for each in judged:
        row, operation = _places(per_row, each.case.partition(":")[0])
        for place in (row, operation):
            place["cases"] += 1
            place["held"] += each.held
        operation["done"] += each.outcome == "done"
        operation["undone"] += each.outcome == "undone"
    for one in found:
        for place in _places(per_row, one.operation):
            place["points"] += one.points
    broken = [f"splab faults {one.operation}: without a fault: {one.why}" for one in found if one.why]
    return {
        "rows": len(per_row),
        "points": sum(one.points for one in found),
        "cases": len(judged),
        "held": sum(each.held for each in judged),
        "per_row": per_row,
        "not_held": [*broken, *matrix.lines(judged)],
        "points_fallen": list(fallen),
    }


def _places(per_row: dict[str, dict[str, Any]], operation: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The counters of the operation's row, and its own."""
    row = per_row.setdefault(operation.partition(".")[0], {"points": 0, "cases": 0, "held": 0, "operations": {}})
    own = row["operations"].setdefault(
        operation, {"title": BY_ID[operation].title, "points": 0, "cases": 0, "held": 0, "done": 0, "undone": 0}
    )
    return row, own


def _table(result: dict[str, Any]) -> Table:
    table = Table(title="Fault matrix", title_justify="left")
    for name in ("operation", "", "points", "cases", "held", "done", "undone"):
        table.add_column(name, justify="left" if name in ("operation", "") else "right")
    for row in result["per_row"].values():
        for name, own in row["operations"].items():
            figures = [str(own[key]) for key in ("points", "cases", "held", "done", "undone")]
            table.add_row(name, own["title"], *figures, style="" if own["held"] == own["cases"] else "red")
    return table


def _progress(console: Console) -> Progress:
    return Progress(console=console, transient=True, disable=not console.is_terminal)
