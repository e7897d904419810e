"""`splab run --json`: the shape that design section 7 fixes."""

from __future__ import annotations

import msgspec

from harness.report.result import CaseResult, Result, RowResult
from harness.report.stream import Fault
from scenarios.table import RowId


class CaseJson(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    outcome: str
    checks: list[str]
    """Names of the checks that were made."""


class FaultJson(msgspec.Struct, frozen=True, kw_only=True):
    case: str
    operation: str
    step: str
    victim: str
    asked: str
    recovery: list[str]
    operation_outcome: str
    """`done`, `undone ...`, or empty when neither could be said."""
    outcome: str
    seconds: float


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


class ResultJson(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    rows: list[RowJson]
    invariants: InvariantsJson
    faults: list[FaultJson] = []
    """Left out when nothing was struck."""


def to_json(result: Result) -> bytes:
    """The document as indented JSON."""
    document = ResultJson(
        rows=[_row(row) for row in result.rows()],
        invariants=InvariantsJson(checked=result.invariants_checked, violated=result.violated),
        faults=[_fault(case, fault) for case in result.cases for fault in case.faults],
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


def _fault(case: CaseResult, fault: Fault) -> FaultJson:
    return FaultJson(
        case=case.id,
        operation=fault.operation,
        step=fault.step,
        victim=fault.victim,
        asked=fault.asked,
        recovery=fault.recovery,
        operation_outcome=fault.outcome,
        outcome=case.outcome,
        seconds=round(case.seconds, 3),
    )


def _case(case: CaseResult) -> CaseJson:
    return CaseJson(id=case.id, outcome=case.outcome, checks=[check.name for check in case.checks])
