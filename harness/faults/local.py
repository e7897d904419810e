"""`splab faults --world local`: real processes killed at every message of an operation, on a local lab of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from harness.report.result import Outcome, Result
from harness.report.session import properties, record
from harness.worlds.local.steps.kills import local_kills
from harness.worlds.local.venue import why_not


def strike(words: Sequence[str], full: bool, report: Path, json_file: Path | None) -> int:
    """The exit code: 0 when every case held."""
    reason = why_not(None)
    if reason is not None:
        raise click.ClickException(f"the local world cannot be run here: {reason}")
    try:
        result = record(
            Console(highlight=False),
            report,
            lambda listen: local_kills(listen, words, full=full, properties=properties()),
        )
    except KeyError as error:
        raise click.UsageError(
            f"nothing is called {error.args[0]!r}; rows are 2, 4, 7 and 8, cases are like 2.deploy.07.agent"
        ) from error
    if json_file is not None:
        json_file.write_text(json.dumps(summary(result), indent=1) + "\n")
    return 0 if result.passed else 1


def summary(result: Result) -> dict[str, Any]:
    """The result as JSON, in the form of the matrix (design section 7); points are the steps that were struck."""
    per_row: dict[str, dict[str, Any]] = {}
    steps: dict[str, set[tuple[str, str]]] = {}
    for case in result.cases:
        own = per_row.setdefault(str(case.row), {"points": 0, "cases": 0, "held": 0})
        struck = steps.setdefault(str(case.row), set())
        struck.update((fault.operation, fault.step) for fault in case.faults)
        own["points"] = len(struck)
        own["cases"] += 1
        own["held"] += case.outcome is Outcome.PASSED
    return {
        "rows": len(per_row),
        "points": sum(own["points"] for own in per_row.values()),
        "cases": len(result.cases),
        "held": sum(own["held"] for own in per_row.values()),
        "per_row": per_row,
        "not_held": [f"{case.reproduce}: {case.why}" for case in result.cases if case.outcome is not Outcome.PASSED],
    }
