"""One self-contained HTML page: the action table, and every case with its checks, timeline and evidence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import jinja2

from harness.report.result import CaseResult, Outcome, Result, RowResult
from harness.report.stream import Measured
from scenarios.table import ROWS, Row

BUDGET = 2_000_000
"""Bytes that a page may have."""


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of a case is shown."""

    timeline: int
    """Entries, from its beginning."""
    evidence: int
    """Characters of each piece; with 0 no piece is shown."""


WHOLE, *SHORTER = (
    Detail(2000, 64 * 1024),
    Detail(400, 16 * 1024),
    Detail(150, 4 * 1024),
    Detail(60, 1500),
    Detail(30, 500),
    Detail(0, 0),
)
STEPS = (
    (WHOLE, WHOLE),
    *((WHOLE, others) for others in SHORTER),
    *((failed, SHORTER[-1]) for failed in SHORTER),
)
"""Of failed cases and of others, tried in this order until the page fits its budget: failed ones are the last to lose
anything."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Outcome of a row in a world; `row` is None where the row was not chosen."""

    world: str
    row: RowResult | None

    @property
    def outcome(self) -> str:
        return self.row.outcome.value if self.row else "not chosen"

    @property
    def mark(self) -> str:
        """CSS class."""
        return self.outcome.replace(" ", "-")


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure of a benchmark, drawn as wide as it is beside its target or its baseline."""

    figure: Measured

    @property
    def share(self) -> float | None:
        """Of the bar's width that the ratio takes, where the mark of its target stands in the middle."""
        if self.figure.ratio is None or not self.mark:
            return None
        return min(1.0, self.figure.ratio / self.mark / 2)

    @property
    def mark(self) -> float:
        """The ratio in the middle."""
        return self.figure.target or 1.0

    @property
    def outcome(self) -> str:
        """CSS class."""
        return {None: "not-built", True: "passed", False: "failed"}[self.figure.met]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the action table."""

    row: Row
    cells: tuple[Cell, ...]


def to_html(result: Result) -> str:
    """The page; at most `BUDGET` bytes, for which timelines and evidence of passed cases are shortened first."""
    page = ""
    for failed, others in STEPS:
        page = _render(result, failed, others)
        if len(page.encode()) <= BUDGET:
            break
    return page


def _render(result: Result, failed: Detail, others: Detail) -> str:
    def detail(case: CaseResult) -> Detail:
        return failed if case.outcome == Outcome.FAILED else others

    return _template().render(
        result=result,
        lines=_lines(result),
        rows=[row for row in result.rows() if row.cases],
        totals=_totals(result),
        measured=[Bar(measured) for measured in result.measured],
        faults=[(case, fault) for case in result.cases for fault in case.faults],
        shorter=(failed, others) != STEPS[0],
        Outcome=Outcome,
        timeline_of=lambda case: case.timeline[: detail(case).timeline],
        evidence_of=lambda case: _evidence(case, detail(case).evidence),
        anchor=lambda case: f"{case.world}-{case.id}",
    )


def _evidence(case: CaseResult, limit: int) -> list[tuple[str, str]]:
    """Title and text of each piece."""
    cut = "\n... (cut here)"
    return [
        (item.title, item.text if len(item.text) <= limit else item.text[:limit] + cut)
        for item in case.evidence
        if limit
    ]


def _lines(result: Result) -> list[Line]:
    worlds = result.worlds or ["-"]
    return [
        Line(
            row,
            tuple(Cell(world, result.row(row.id, world) if row.id in result.chosen else None) for world in worlds),
        )
        for row in ROWS
    ]


def _totals(result: Result) -> dict[str, int]:
    counted = {outcome.value: 0 for outcome in Outcome}
    for row in result.rows():
        counted[row.outcome.value] += 1
    return counted


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")
