"""The fault matrix: each operation, struck at every point by every kind of fault that fits there, then judged at rest.

Points are found by running the operation without a fault. A case is the same run, with one fault at one point.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness import checks, tidy
from harness.faults.injector import Injector
from harness.faults.journal import shown, without_noise
from harness.faults.kinds import KINDS
from harness.faults.operation import REFUSALS, Operation, Subject
from harness.faults.operations import BY_ID, OPERATIONS
from harness.faults.plan import Fault, parse_fault
from harness.faults.points import Point
from harness.runtime.journal import Entry
from harness.runtime.messages import MessageFault
from harness.worlds.memory.safety import Safety
from harness.worlds.memory.world import MemoryWorld

REST_SECONDS = 7200.0
"""Virtual time in which the cloud must come to rest once faults are over."""
BEGIN_SECONDS = 30.0
"""In which a request that arrived has begun to show in records."""
STORY_ENTRIES = 120
SEED = 1
"""The schedule that points are counted on."""


@dataclass(frozen=True, slots=True)
class Case:
    """One operation and one fault, on the schedule of one seed; written `4.hot:answer-lost@7`."""

    operation: str
    fault: Fault
    seed: int = SEED

    def __str__(self) -> str:
        return f"{self.operation}:{self.fault}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a run without faults showed of an operation."""

    operation: str
    points: int
    cases: tuple[Case, ...]
    why: str = ""
    """Why the operation does not even work without faults."""


@dataclass(frozen=True, slots=True)
class Judged:
    """How one case ended."""

    case: str
    seed: int
    point: str
    """Where the fault struck."""
    outcome: str
    """`done` or `undone`; empty when it did not hold."""
    why: str = ""
    """Why it did not hold: the first cause, in a line."""

    @property
    def held(self) -> bool:
        return not self.why


class NotHeld(Exception):
    """The case did not hold; the text says why."""


@dataclass(slots=True)
class _Run:
    """One operation in one world, up to the last look."""

    operation: Operation
    injector: Injector
    safety: Safety | None = None
    unsafe: str = ""
    """The first moment at which a rule of safety was broken, whatever it led to."""
    told: str = ""
    """What the client was told."""
    journal: Sequence[Entry] = ()
    outcome: str = ""
    why: str = ""

    def __call__(self, world: MemoryWorld) -> None:
        self.journal = world.simulation.journal.entries
        try:
            self._run(world)
        except NotHeld as error:
            self.why = str(error)
        self.why = self.unsafe or self.why

    def strike(self, process: str, kind: str, detail: str) -> MessageFault | None:
        found = self.safety.violated() if self.safety is not None and not self.unsafe else None
        if found is not None:
            self.unsafe = f"before {Point(process, kind, detail)}: {': '.join(found)}"
        return self.injector.strike(process, kind, detail)

    def _run(self, world: MemoryWorld) -> None:
        before = tidy.inventory(world)
        subject = self.operation.prepare(world)
        subject.guests_ended = self.injector.ends_guests
        _rest(world, "before the operation")
        world.simulation.note("matrix", "request", self.operation.title)
        self.injector.armed = True
        refusal = self._request(world, subject)
        self.told = _said(refusal)
        self.injector.armed = False
        world.simulation.note("matrix", "told", self.told)
        if world.faults.disarm():
            raise NotHeld("the fault never struck: StorPool made no effect after it")
        _recovered(world)
        _rest(world, f"after the operation ({self.told})")
        self.outcome = self._judge(world, subject, refusal)
        _rest(world, f"after the operation was {self.outcome} and used")
        if left := tidy.tidy(world, before):
            raise NotHeld(f"it could not be removed: {left[0]}")
        _rest(world, "after clean-up")

    def _request(self, world: MemoryWorld, subject: Subject) -> Exception | None:
        """The error that the client was told, or None for a success."""
        try:
            self.operation.request(world, subject)
        except REFUSALS as error:
            return error
        except TimeoutError as error:
            raise NotHeld(f"the job never ended: {error}") from error
        return None

    def _judge(self, world: MemoryWorld, subject: Subject, refusal: Exception | None) -> str:
        try:
            self.operation.done(world, subject)
            return "done"
        except (AssertionError, *REFUSALS) as error:
            not_done = error
        if refusal is None:
            raise NotHeld(f"CloudStack called it a success, but {_line(not_done)}")
        try:
            self.operation.undone(world, subject)
        except (AssertionError, *REFUSALS) as error:
            raise NotHeld(f"{_line(refusal)}: neither done ({_line(not_done)}) nor undone ({_line(error)})") from error
        try:
            self.operation.request(world, subject)
            self.operation.done(world, subject)
        except (AssertionError, *REFUSALS) as error:
            raise NotHeld(f"it was undone, and made again it failed: {_line(error)}") from error
        return "undone"


def find(operation_id: str, seed: int = SEED) -> Found:
    """Run the operation without a fault; its points and cases."""
    operation = BY_ID[operation_id]
    injector = Injector(count_all=True)
    run = _execute(operation, injector, seed)
    if run.why or run.outcome != "done":
        why = run.why or f"without a fault it is {run.outcome} ({run.told})"
        return Found(operation.id, len(injector.points), (), why)
    cases = tuple(
        Case(operation.id, Fault(kind, number), seed)
        for kind in KINDS.values()
        if kind.name not in operation.without
        for number in range(1, injector.counts.get(kind.name, 0) + 1)
    )
    return Found(operation.id, len(injector.points), cases)


def judge(case: Case) -> Judged:
    """Run one case. An error that nobody expects is a case that did not hold, too."""
    injector = Injector([case.fault])
    why = outcome = ""
    try:
        run = _execute(BY_ID[case.operation], injector, case.seed)
        why, outcome = run.why, run.outcome
    except Exception as error:
        why = f"{type(error).__name__}: {_line(error)}"
    point = str(injector.fired[0].point) if injector.fired else ""
    if not why and not injector.fired:
        why = "the fault never struck"
    return Judged(str(case), case.seed, point, outcome if not why else "", why)


def tell(case: Case) -> str:
    """Run the case once more and tell it: where the fault struck, what the client was told, and what was done."""
    injector = Injector([case.fault])
    run = _Run(BY_ID[case.operation], injector)
    try:
        _live(run, case.seed)
    except Exception as error:
        run.why = f"{type(error).__name__}: {_line(error)}"
    entries = list(without_noise(run.journal))
    began = next((at for at, entry in enumerate(entries) if entry[1] == "matrix"), 0)
    told = [f"  {shown(entry)}" for entry in entries[began : began + STORY_ENTRIES]]
    left = len(entries) - began - STORY_ENTRIES
    return "\n".join(
        [
            f"{case}: {run.why or run.outcome}",
            *(f"struck: {fired}" for fired in injector.fired),
            f"the client was told: {run.told}",
            "what happened from the request on (virtual seconds):",
            *told,
            *([f"  and {left} entries more"] if left > 0 else []),
        ]
    )


def chosen(words: Sequence[str], seed: int = SEED) -> tuple[tuple[Operation, ...], tuple[Case, ...]]:
    """Operations of the rows, operations and single cases that `words` name; all operations without words.

    Raises `KeyError` for a word that names none, `ValueError` for a fault that cannot be read.
    """
    operations = [operation for operation in OPERATIONS if not words]
    cases: list[Case] = []
    for word in words:
        name, colon, fault = word.partition(":")
        if colon:
            cases.append(Case(BY_ID[name].id, parse_fault(fault), seed))
            continue
        found = [operation for operation in OPERATIONS if word in (operation.id, str(operation.row))]
        if not found:
            raise KeyError(word)
        operations += [operation for operation in found if operation not in operations]
    return tuple(operations), tuple(cases)


def quietly() -> None:
    """What production code logs while faults strike is of use only when a case is looked at."""
    logging.getLogger("harness").setLevel(logging.CRITICAL)


def _execute(operation: Operation, injector: Injector, seed: int) -> _Run:
    run = _Run(operation, injector)
    _live(run, seed)
    return run


def _live(run: _Run, seed: int) -> None:
    world = MemoryWorld(seed, strike=run.strike, site=run.operation.site)
    run.safety = Safety(tuple(world.processes.machines.values()), world.processes.watched)
    run.injector.aim(world.faults)
    world.run(run)


def _recovered(world: MemoryWorld) -> None:
    """Faults are over, every host is Up, and what came late has begun."""
    world.wait_until("faults are over", lambda: world.faults.over, REST_SECONDS)
    world.simulation.main.sleep(BEGIN_SECONDS)
    world.wait_until("every host is Up", lambda: _hosts_up(world), REST_SECONDS)


def _hosts_up(world: MemoryWorld) -> bool:
    hosts = world.cloud.call("listHosts", type="Routing")["host"]
    return all(host["state"] == "Up" for host in hosts)


def _rest(world: MemoryWorld, when: str) -> None:
    violated = checks.violations_at_rest(world, world.simulation.main.sleep, REST_SECONDS)
    if violated:
        more = f" and {len(violated) - 1} more" if len(violated) > 1 else ""
        raise NotHeld(f"{when}: {violated[0]}{more}")


def _said(refusal: Exception | None) -> str:
    return "a success" if refusal is None else _line(refusal)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:400]


def lines(judged: Sequence[Judged]) -> Iterator[str]:
    """What did not hold, and the command that shows it again."""
    for each in judged:
        if not each.held:
            chosen_seed = "" if each.seed == SEED else f" --seed {each.seed}"
            yield f"splab faults {each.case}{chosen_seed}: at {each.point or 'no point'}: {each.why}"
