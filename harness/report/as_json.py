"""`splab run --json`: the shape that design section 7 fixes."""

from __future__ import annotations

import msgspec

from harness.report.result import CaseResult, Result, RowResult
from scenarios.table import RowId


class CaseJson(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    outcome: str
    checks: list[str]
    """Names of the checks that were made."""


class RowJson(msgspec.Struct, frozen=True, kw_only=True):
    row: RowId
    world: str
    title: str
    outcome: str
    seconds: float
    why: str
    cases: list[CaseJson]


class InvariantsJson(msgspec.Struct, frozen=True, kw_only=True):
    checked: int
    violated: list[str]


class ResultJson(msgspec.Struct, frozen=True, kw_only=True):
    rows: list[RowJson]
    invariants: InvariantsJson


def to_json(result: Result) -> bytes:
    """The document as indented JSON."""
    document = ResultJson(
        rows=[_row(row) for row in result.rows()],
        invariants=InvariantsJson(checked=result.invariants_checked, violated=result.violated),
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _row(row: RowResult) -> RowJson:
    return RowJson(
        row=row.row.id,
        world=row.world,
        title=row.row.title,
        outcome=row.outcome,
        seconds=round(row.seconds, 3),
        why=row.why,
        cases=[_case(case) for case in row.cases],
    )


def _case(case: CaseResult) -> CaseJson:
    return CaseJson(id=case.id, outcome=case.outcome, checks=[check.name for check in case.checks])
