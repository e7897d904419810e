"""The runner: chosen scenarios in chosen worlds, judged, written down as one stream of events."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from harness import checks, tidy
from harness.observers import World
from harness.recording import Recorder, RecordingWorld
from harness.report.result import Outcome
from harness.report.stream import (
    CaseEnded,
    CaseStarted,
    Listener,
    Note,
    SuiteEnded,
    SuiteStarted,
    WorldFailed,
)
from scenarios.registry import Case
from scenarios.table import ROWS, RowId

REST_SECONDS = 60.0
"""How long background work may go on after a case until the cloud must be at rest."""
READY_SECONDS = 10.0
"""How long a case waits for the world it is given to be at rest."""

Body = Callable[[World], None]


class Venue(Protocol):
    """Where scenarios can be run: a way to come by a `World` for one case after the other."""

    @property
    def name(self) -> str:
        """`memory`, `local` or the lab's name."""
        ...

    def open(self, say: Callable[[str], None]) -> dict[str, str]:
        """Set up, saying what is being done; the properties of what is there (kernel, libvirt, QEMU, lab)."""
        ...

    def run(self, case: Case, recorder: Recorder, body: Body) -> None:
        """Call `body` with a world for this case. May add to the recorder what the world itself wrote down."""
        ...

    def case_properties(self, case: Case) -> dict[str, str]:
        """Seed, hosts."""
        ...

    def reproduce(self, case: Case) -> str:
        """The one command that runs this case again."""
        ...

    def close(self) -> None:
        """Tear down; raises when something is left."""
        ...


@runtime_checkable
class Venues(Protocol):
    """Several venues of one world, in which cases are run side by side."""

    @property
    def name(self) -> str: ...

    def run_all(self, cases: Sequence[Case], listen: Listener, began: float) -> None:
        """Run every case in one of them; never raises an `Exception`. `began`: see `Runner`."""
        ...


@dataclass(frozen=True, slots=True)
class Selection:
    """What the user chose."""

    rows: tuple[RowId, ...]
    cases: tuple[Case, ...]
    unbuilt: tuple[RowId, ...] = ()
    """Rows that the user named and that no scenario exists for."""
    existing: dict[str, int] = field(default_factory=dict)
    """Row -> how many cases it has, where more than were chosen."""

    def by_row(self) -> dict[str, list[str]]:
        return {str(row): [case.id for case in self.cases if case.row == row] for row in self.rows}


def select(cases: Sequence[Case], words: Sequence[str]) -> Selection:
    """All rows without `words`; else the rows and cases that they name. Raises `KeyError` for an unknown one."""
    if not words:
        return Selection(tuple(row.id for row in ROWS), tuple(cases))
    rows: set[RowId] = set()
    chosen: set[str] = set()
    known: dict[str, list[Case]] = {str(row.id): [case for case in cases if case.row == row.id] for row in ROWS}
    for case in cases:
        known[case.id] = [case]
    by_text: dict[str, RowId] = {str(row.id): row.id for row in ROWS}
    for word in words:
        found = known[word]
        chosen |= {case.id for case in found}
        rows |= {case.row for case in found} or {by_text[word]}
    in_order = tuple(row.id for row in ROWS if row.id in rows)
    picked = tuple(case for case in cases if case.id in chosen)
    chosen_of = Counter(case.row for case in picked)
    existing = {str(row): len(known[str(row)]) for row in in_order if chosen_of[row] < len(known[str(row)])}
    return Selection(in_order, picked, tuple(row for row in in_order if not chosen_of[row]), existing)


@dataclass(slots=True)
class Verdict:
    """What came out of one case."""

    error: BaseException | None = None
    checked: int = 0
    violated: list[str] = field(default_factory=list)
    reported: set[checks.Violation] = field(default_factory=set)
    """Violations that a case of this world has failed for; no later case fails for them again."""
    left: list[str] = field(default_factory=list)
    """Objects of the case that could not be removed."""
    finished: bool = False
    """Whether the body ran to its end, well or badly."""


def judge(case: Case, world: World, recorder: Recorder, verdict: Verdict) -> None:
    """Run one scenario in `world`, hold the cloud to its invariants, remove what was made, and again.

    The world must be at rest before, but for what an earlier case has already failed for.
    """
    before = tidy.inventory(world)
    _rest(world, "before the scenario", verdict, READY_SECONDS)
    if verdict.violated:
        recorder.failed = verdict.finished = True
        return
    seen = RecordingWorld(world, recorder)
    try:
        case.run(seen)
    except Exception as error:
        verdict.error = error
    if world.real:
        _evidence(world, recorder)
    if verdict.error is None:
        _rest(world, "after the scenario", verdict)
    recorder.timeline("splab", "the scenario is over; what it made is removed")
    try:
        verdict.left = tidy.tidy(seen, before)
    except Exception as error:
        verdict.left = [f"clean-up ended early: {type(error).__name__}: {error}"]
    if not verdict.violated:
        _rest(world, "after clean-up", verdict)
    recorder.failed = bool(verdict.error or verdict.violated or verdict.left)
    verdict.finished = True


def _rest(world: World, when: str, verdict: Verdict, seconds: float = REST_SECONDS) -> None:
    """Wait until the invariants hold, but for violations already reported; else note and report those that do not."""
    found: list[checks.Violation] = []

    def holds() -> bool:
        found[:] = [v for v in checks.violations(checks.take(world)) if v not in verdict.reported]
        return not found

    verdict.checked += len(checks.INVARIANTS)
    try:
        world.wait_until(f"the invariants hold {when}", holds, seconds)
    except TimeoutError:
        verdict.violated += [f"{when}: {violation}" for violation in found]
        verdict.reported.update(found)


def _evidence(world: World, recorder: Recorder) -> None:
    """What hosts show at the end of a case. Failing to look is noted, and is not the case's failure."""
    for host in world.hosts:
        try:
            sizes = [f"{gid}  {host.device_size(f'/dev/storpool-byid/{gid}')} bytes" for gid in host.devices()]
            recorder.evidence(f"{host.name}: /dev/storpool-byid", "\n".join(sizes) or "empty")
            for name, state in host.domains().items():
                recorder.evidence(f"{host.name}: domain {name} ({state})", host.domain_xml(name))
        except Exception as error:
            recorder.evidence(f"{host.name}: could not be looked at", f"{type(error).__name__}: {error}")


class Runner:
    """Runs a selection in venues, one after the other, and reports every step to `listen`."""

    def __init__(self, listen: Listener, monotonic: Callable[[], float], began: float | None = None) -> None:
        """`began`: when the run began by `monotonic`, if that was earlier than now."""
        self._listen = listen
        self._monotonic = monotonic
        self._began = monotonic() if began is None else began

    def now(self) -> float:
        """Seconds since the run began."""
        return self._monotonic() - self._began

    def run(self, selection: Selection, venues: Sequence[Venue | Venues], properties: dict[str, str]) -> None:
        """An error of one world never keeps the others from being run."""
        names = [venue.name for venue in venues]
        self._listen(
            SuiteStarted(
                at=self.now(),
                properties=properties,
                rows=list(selection.rows),
                worlds=names,
                cases=selection.by_row(),
                existing=selection.existing,
            )
        )
        for venue in venues:
            if isinstance(venue, Venues):
                venue.run_all(selection.cases, self._listen, self._began)
            else:
                self.world(selection.cases, venue)
        self._listen(SuiteEnded(at=self.now(), seconds=self.now()))

    def note(self, text: str) -> None:
        self._listen(Note(at=self.now(), text=text))

    def world(self, cases: Iterable[Case], venue: Venue) -> None:
        """Run the cases, which may come while it goes on; the venue is opened before the first and closed at last."""
        try:
            for name, value in venue.open(lambda text: self.note(f"{venue.name}: {text}")).items():
                self.note(f"{venue.name}: {name} {value}")
            reported: set[checks.Violation] = set()
            for case in cases:
                self._case(case, venue, reported)
        except Exception as error:
            self._broken(venue, "cannot be used", error)
        finally:
            try:
                venue.close()
            except Exception as error:
                self._broken(venue, "was not torn down", error)

    def _broken(self, venue: Venue, what: str, error: Exception) -> None:
        why = f"world {venue.name} {what}: {error}"
        detail = "".join(traceback.format_exception(error))
        self._listen(WorldFailed(at=self.now(), world=venue.name, why=why, detail=detail))

    def _case(self, case: Case, venue: Venue, reported: set[checks.Violation]) -> None:
        began = self.now()
        self._listen(
            CaseStarted(
                at=began,
                world=venue.name,
                row=case.row,
                case=case.id,
                title=case.title,
                properties=venue.case_properties(case),
            )
        )
        recorder = Recorder(venue.name, case.id, self._listen, self.now)
        verdict = Verdict(reported=reported)
        try:
            venue.run(case, recorder, lambda world: judge(case, world, recorder, verdict))
        except Exception as error:
            verdict.error = verdict.error or error
        if not verdict.finished and verdict.error is None:
            verdict.error = RuntimeError("the world came to its end before the scenario did")
        self._listen(self._ended(case, venue, recorder, verdict, began))

    def _ended(self, case: Case, venue: Venue, recorder: Recorder, verdict: Verdict, began: float) -> CaseEnded:
        why = _why(recorder, verdict)
        error = verdict.error
        detail = "".join(traceback.format_exception(error)) if error is not None else "\n".join(verdict.violated)
        return CaseEnded(
            at=self.now(),
            world=venue.name,
            case=case.id,
            outcome=(Outcome.FAILED if why else Outcome.PASSED).value,
            seconds=self.now() - began,
            why=why,
            detail=detail if why else "",
            reproduce=venue.reproduce(case) if why else "",
            invariants_checked=verdict.checked,
            invariants_violated=verdict.violated,
        )


def _why(recorder: Recorder, verdict: Verdict) -> str:
    """The first cause of a failure, in a line; empty when the case passed."""
    if verdict.error is not None:
        text = f"{type(verdict.error).__name__}: {verdict.error}" if str(verdict.error) else repr(verdict.error)
        where = f"check {recorder.failed_check!r}: " if recorder.failed_check else ""
        return (where + text).splitlines()[0]
    if verdict.violated:
        return f"invariant violated {verdict.violated[0]}"
    if verdict.left:
        return f"clean-up: {verdict.left[0]}"
    return ""
