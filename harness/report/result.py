"""What a stream of events adds up to: rows x worlds, with their cases."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.report.stream import (
    CaseEnded,
    CaseStarted,
    Check,
    Event,
    Evidence,
    Fault,
    Measured,
    Note,
    SuiteEnded,
    SuiteStarted,
    Timeline,
    WorldFailed,
)
from scenarios.table import BY_ID, Row, RowId


class Outcome(enum.StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_BUILT = "not built"


@dataclass(slots=True)
class CaseResult:
    id: str
    row: RowId
    world: str
    title: str
    outcome: Outcome = Outcome.FAILED
    seconds: float = 0.0
    why: str = "did not end: the run was cut short"
    detail: str = ""
    reproduce: str = ""
    properties: dict[str, str] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    timeline: list[Timeline] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    violated: list[str] = field(default_factory=list)
    started_at: float = 0.0


@dataclass(slots=True)
class RowResult:
    row: Row
    world: str
    cases: list[CaseResult]
    missing: int = 0
    """Scenarios of the row that never started."""
    why_missing: str = ""
    built: bool = True
    existing: int = 0
    """How many scenarios the row has, where only some of them were chosen."""

    @property
    def outcome(self) -> Outcome:
        """Passed only if every chosen scenario of the row ran and passed; `why` tells when not all were chosen."""
        outcomes = {case.outcome for case in self.cases}
        if not self.built:
            return Outcome.NOT_BUILT
        if Outcome.FAILED in outcomes:
            return Outcome.FAILED
        if self.missing or Outcome.SKIPPED in outcomes or not outcomes:
            return Outcome.SKIPPED
        return Outcome.PASSED

    @property
    def seconds(self) -> float:
        return sum(case.seconds for case in self.cases)

    @property
    def why(self) -> str:
        for wanted in (Outcome.FAILED, Outcome.SKIPPED):
            for case in self.cases:
                if case.outcome == wanted:
                    return f"{case.id}: {case.why}"
        if not self.built:
            return "no scenario of this row exists yet"
        if self.missing:
            return self.why_missing
        return f"{len(self.cases)} of {self.existing} cases were chosen" if self.existing else ""


@dataclass(slots=True)
class Result:
    """The whole run."""

    properties: dict[str, str] = field(default_factory=dict)
    worlds: list[str] = field(default_factory=list)
    chosen: list[RowId] = field(default_factory=list)
    expected: dict[str, list[str]] = field(default_factory=dict)
    """Row -> scenarios that must run, so that one that never ran is noticed."""
    existing: dict[str, int] = field(default_factory=dict)
    """Row -> how many scenarios it has, where more than were chosen."""
    cases: list[CaseResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    broken: dict[str, WorldFailed] = field(default_factory=dict)
    invariants_checked: int = 0
    violated: list[str] = field(default_factory=list)
    seconds: float = 0.0
    ended: bool = False

    def row(self, row_id: RowId, world: str) -> RowResult:
        cases = [case for case in self.cases if case.row == row_id and case.world == world]
        names = self.expected.get(str(row_id), [])
        missing = len(set(names) - {case.id for case in cases})
        broken = self.broken.get(world)
        why = broken.why if broken else "the run was cut short"
        return RowResult(BY_ID[row_id], world, cases, missing, why, bool(names), self.existing.get(str(row_id), 0))

    def rows(self) -> list[RowResult]:
        """Every chosen row in every world, in the order of the table."""
        return [self.row(row_id, world) for row_id in BY_ID if row_id in self.chosen for world in self.worlds]

    @property
    def passed(self) -> bool:
        """Every chosen row that is built passed, in every world."""
        built = [row for row in self.rows() if row.built]
        return not self.broken and not self.violated and all(row.outcome == Outcome.PASSED for row in built)


def collect(events: Iterable[Event]) -> Result:
    """Add up a stream."""
    result = Result()
    cases: dict[tuple[str, str], CaseResult] = {}
    for event in events:
        match event:
            case SuiteStarted():
                result.properties, result.chosen, result.worlds = event.properties, event.rows, event.worlds
                result.expected, result.existing = event.cases, event.existing
            case Note():
                result.notes.append(event.text)
            case CaseStarted():
                found = CaseResult(event.case, event.row, event.world, event.title, properties=event.properties)
                found.started_at = event.at
                cases[event.world, event.case] = found
                result.cases.append(found)
            case Check() | Timeline() | Evidence() | Fault():
                _add(cases[event.world, event.case], event)
            case Measured():
                result.measured.append(event)
            case CaseEnded():
                _end(result, cases[event.world, event.case], event)
            case WorldFailed():
                result.broken[event.world] = event
            case SuiteEnded():
                result.seconds, result.ended = event.seconds, True
    return result


def _add(case: CaseResult, event: Check | Timeline | Evidence | Fault) -> None:
    match event:
        case Check():
            case.checks.append(event)
        case Timeline():
            case.timeline.append(event)
        case Evidence():
            case.evidence.append(event)
        case Fault():
            case.faults.append(event)


def _end(result: Result, case: CaseResult, event: CaseEnded) -> None:
    case.outcome, case.seconds = Outcome(event.outcome), event.seconds
    case.why, case.detail, case.reproduce = event.why, event.detail, event.reproduce
    case.violated = event.invariants_violated
    case.timeline.sort(key=lambda entry: entry.at)
    result.invariants_checked += event.invariants_checked
    result.violated += [f"{case.world} {case.id}: {text}" for text in event.invariants_violated]
