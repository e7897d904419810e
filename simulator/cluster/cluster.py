"""The state machine: calls, the passing of time and the outcomes of effects go in; records, work and answers come out.

A change with effects is prepared, its effects are done, then it is committed or aborted; queries see what is committed.
While it is on its way nobody else may touch its objects and names: such calls are parked and planned again afterwards,
in the order of their coming.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from simulator.api.errors import Refused, busy
from simulator.api.schema.answers import Ok
from simulator.cluster import background, limits
from simulator.cluster.background import Companion
from simulator.cluster.effects import Attach, Cause, Delete, Detach, Effect, Failure
from simulator.cluster.plan import Call, Handler, Hold, Plan, Wait
from simulator.cluster.records import (
    Aborted,
    Applied,
    Committed,
    JournalRecord,
    Object,
    Prepared,
)
from simulator.cluster.remote import client_title
from simulator.cluster.state import State
from simulator.cluster.summary import links
from simulator.ports import Links
from simulator.settings import Settings

PARKED = 0
"""Holder, in place of a change, of what only parked calls wait for."""
RETRY_SECONDS = 1.0
"""First pause before a late deletion is tried again; doubled each time up to `RETRY_LONGEST`."""
RETRY_LONGEST = 60.0


@dataclass(frozen=True, slots=True)
class Work:
    """Effects to be carried out in order; `Cluster.done` is told of the outcome under `change`."""

    change: int
    effects: tuple[Effect, ...]


@dataclass(slots=True)
class Output:
    """To be done in this order: records made durable, answers given, work begun."""

    records: list[JournalRecord] = field(default_factory=list)
    answers: list[tuple[int, object]] = field(default_factory=list)
    """Number of the call, and its data or `Refused`."""
    work: list[Work] = field(default_factory=list)


@dataclass(slots=True)
class _Asked:
    number: int
    handler: Handler
    arguments: tuple[object, ...]
    now: float


@dataclass(slots=True)
class _Pending:
    number: int
    plan: Plan
    now: float


@dataclass(slots=True)
class _Waiting:
    answer: Ok
    wait: Wait


@dataclass(slots=True)
class _Late:
    effect: Delete
    now: float
    pause: float = RETRY_SECONDS
    again_at: float | None = None
    """None while it is being done."""


class Cluster:
    """One StorPool cluster. Call numbers are the caller's; 0 is nobody's."""

    def __init__(self, state: State, settings: Settings, companions: tuple[Companion, ...] = ()) -> None:
        self.state = state
        self._settings = settings
        self._companions = companions
        self._last_change = 0
        self._pending: dict[int, _Pending] = {}
        self._late: dict[int, _Late] = {}
        self._held: dict[int | str, int] = {}
        self._earliest: float | None = None
        self._earliest_as_of = -1
        """`State.watch_changes` when `_earliest` was found."""
        self._used: dict[int | str, int] = {}
        self._parked: list[_Asked] = []
        self._holding: dict[int, _Asked] = {}
        self._waiting: dict[int, _Waiting] = {}

    @property
    def quiet(self) -> bool:
        """Whether no prepared change is open, so that the journal may be compacted."""
        return not self._pending

    @property
    def idle(self) -> bool:
        """Whether no work is under way, not even a late deletion."""
        return not self._pending and all(late.again_at is not None for late in self._late.values())

    # Inputs.

    def call(self, number: int, handler: Handler, call: Call, *body: object) -> Output:
        output = Output()
        self._ask(_Asked(number, handler, (call, *body), call.now), output)
        return output

    def done(self, change: int, failure: Failure | None) -> Output:
        """The work of a change has been done, or undone after a failure."""
        output = Output()
        late = self._late.get(change)
        if late is not None:
            self._late_done(change, late, failure)
            return output
        pending = self._pending.pop(change)
        if failure is None:
            output.records.append(Committed(change))
            self._commit(pending.number, pending.plan, pending.now, output)
        else:
            output.records.append(Aborted(change))
            if pending.number:
                output.answers.append((pending.number, self._refusal(failure)))
            elif pending.plan.failed is not None:
                pending.plan.failed(self._refusal(failure))
        self._release(change, pending.plan.touches)
        for use in pending.plan.uses:
            self._used[use] -= 1
            if not self._used[use]:
                del self._used[use]
        self._unpark(output)
        return output

    def tick(self, call: Call) -> Output:
        """Whatever is due at `call.now`."""
        output = Output()
        for plan in background.due_plans(call):
            if not self._is_held_up(plan):
                self._carry_out(0, plan, call.now, output)
        for plan in chain.from_iterable(companion.due_plans(call) for companion in self._companions):
            if not self._is_held_up(plan) and self._leaving(plan) is None:
                self._carry_out(0, plan, call.now, output)
        for change, late in self._late.items():
            if late.again_at is not None and late.again_at <= call.now:
                late.again_at, late.now = None, call.now
                output.work.append(Work(change, (late.effect,)))
        for number, waiting in list(self._waiting.items()):
            if waiting.wait.deadline is not None and waiting.wait.deadline <= call.now:
                del self._waiting[number]
                output.answers.append((number, self._timed_out(waiting)))
        return output

    def cancel(self, number: int) -> None:
        """Nobody waits for this answer any more."""
        self._holding.pop(number, None)
        self._waiting.pop(number, None)

    def due_at(self) -> float | None:
        """Unix seconds at which `tick` has something to do."""
        times = [late.again_at for late in self._late.values() if late.again_at is not None]
        times += [waiting.wait.deadline for waiting in self._waiting.values() if waiting.wait.deadline is not None]
        if self._earliest_as_of != self.state.watch_changes:
            self._earliest = background.earliest(self.state, self._settings)
            self._earliest_as_of = self.state.watch_changes
        if self._earliest is not None:
            times.append(self._earliest)
        for companion in self._companions:
            due = companion.due_at(self.state, self._settings)
            if due is not None:
                times.append(due)
        return min(times, default=None)

    # Plans.

    def _ask(self, asked: _Asked, output: Output) -> None:
        try:
            outcome = asked.handler(*asked.arguments)
            if isinstance(outcome, Plan) and (leaving := self._leaving(outcome)) is not None:
                raise busy(f"'{leaving.shown_name}' is moving to cluster {leaving.leaving_to}")
        except Refused as refused:
            output.answers.append((asked.number, refused))
            return
        if isinstance(outcome, Hold):
            self._holding[asked.number] = asked
        elif not isinstance(outcome, Plan):
            output.answers.append((asked.number, outcome))
        elif self._is_held_up(outcome):
            self._parked.append(asked)
            for touched in outcome.touches:
                if touched != "":
                    self._held.setdefault(touched, PARKED)
        else:
            self._carry_out(asked.number, outcome, asked.now, output)

    def _leaving(self, plan: Plan) -> Object | None:
        """What the plan needs and another cluster takes over."""
        leaving = self.state.leaving
        if not leaving or plan.moves:
            return None
        needed = next((needed for needed in (*plan.touches, *plan.uses) if needed in leaving), None)
        return None if needed is None else self.state.objects[int(needed)]

    def _is_held_up(self, plan: Plan) -> bool:
        held, used = self._held, self._used
        if not held and not used:
            return False
        return any(touched in held or touched in used for touched in plan.touches) or any(
            use in held for use in plan.uses
        )

    def _carry_out(self, number: int, plan: Plan, now: float, output: Output) -> None:
        plan.effects.extend(limits.changes(self.state, self._settings, plan.events))
        if not plan.effects:
            if plan.events:
                output.records.append(Applied(plan.events))
            self._commit(number, plan, now, output)
            return
        self._last_change += 1
        change = self._last_change
        self.state.next_serial += plan.serials
        for touched in plan.touches:
            if touched != "":
                self._held[touched] = change
        for use in plan.uses:
            self._used[use] = self._used.get(use, 0) + 1
        self._pending[change] = _Pending(number, plan, now)
        output.records.append(Prepared(change, plan.events, self.state.next_serial, plan.forward))
        output.work.append(Work(change, tuple(plan.effects)))

    def _commit(self, number: int, plan: Plan, now: float, output: Output) -> None:
        if plan.events:
            self.state.commit(plan.events)
        answer = plan.answer
        answer.generation = self.state.generation
        if plan.wait is not None and not self._all_running(plan.wait.clients):
            self._waiting[number] = _Waiting(answer, plan.wait)
        elif number:
            output.answers.append((number, answer))
        for late in plan.late:
            self._last_change += 1
            self._late[self._last_change] = _Late(late, now)
            output.work.append(Work(self._last_change, (late,)))
        if self._waiting or self._holding:
            self._answer_ready(output)

    def _release(self, holder: int, touches: Iterable[int | str]) -> None:
        for touched in touches:
            if self._held.get(touched) == holder:
                del self._held[touched]

    def _unpark(self, output: Output) -> None:
        """Plan the parked calls again; one that is still held up lets no later call for the same things pass."""
        if not self._parked:
            return
        self._release(PARKED, tuple(self._held))
        parked, self._parked = self._parked, []
        for asked in parked:
            self._ask(asked, output)

    # Answers.

    def _all_running(self, clients: tuple[int, ...]) -> bool:
        return all(self.state.runs(client) for client in clients)

    def _answer_ready(self, output: Output) -> None:
        for number, waiting in list(self._waiting.items()):
            if self._all_running(waiting.wait.clients):
                del self._waiting[number]
                output.answers.append((number, waiting.answer))
        holding, self._holding = self._holding, {}
        for asked in holding.values():
            self._ask(asked, output)

    def _timed_out(self, waiting: _Waiting) -> object:
        if self._settings.attach_timeout_result == "success":
            return waiting.answer
        missing = [client_title(self.state, client) for client in waiting.wait.clients if not self.state.runs(client)]
        return Refused("timeout", f"Attached, but client {', '.join(missing)} did not report the new configuration")

    def _refusal(self, failure: Failure) -> Refused:
        effect = failure.effect
        if failure.cause is Cause.BUSY and isinstance(effect, Detach):
            return self._open_at(effect.name, effect.client)
        if failure.cause is Cause.BUSY and isinstance(effect, Attach):
            name = effect.links.names[0] if effect.links.names else "~" + effect.links.by_id[0]
            return self._open_at(name, effect.links.client)
        if failure.cause is Cause.BUSY:
            return Refused("busy", failure.text)
        if failure.cause is Cause.SPACE:
            return Refused("insufficientResources", f"Not enough free space: {failure.text}")
        return Refused("internalError", failure.text)

    def _open_at(self, name: str, client: int) -> Refused:
        return Refused(
            self._settings.open_device_error, f"'{name}' is open at client {client_title(self.state, client)}"
        )

    def _late_done(self, change: int, late: _Late, failure: Failure | None) -> None:
        if failure is None:
            del self._late[change]
            return
        late.again_at = late.now + late.pause
        late.pause = min(late.pause * 2, RETRY_LONGEST)


def replay(records: Iterable[JournalRecord]) -> tuple[State, list[JournalRecord]]:
    """The state that the records lead to, and the records that settle what was interrupted: append them.

    An interrupted change is discarded; one whose effect cannot be undone is completed.
    """
    state = State()
    open_changes: dict[int, Prepared] = {}
    for record in records:
        if isinstance(record, Applied):
            state.commit(record.events)
        elif isinstance(record, Prepared):
            open_changes[record.change] = record
            state.next_serial = max(state.next_serial, record.next_serial)
        elif isinstance(record, Committed):
            events = open_changes.pop(record.change).events
            if events:
                state.commit(events)
        elif isinstance(record, Aborted):
            del open_changes[record.change]
        else:
            state = State.restore(record)
    settling: list[JournalRecord] = []
    for change, prepared in open_changes.items():
        if prepared.forward:
            state.commit(prepared.events)
            settling.append(Committed(change))
        else:
            settling.append(Aborted(change))
    return state, settling


def contents(state: State) -> tuple[dict[int, int], dict[int, list[tuple[Links, bool]]]]:
    """What the blocks must hold: the size of each object, and the links of the clients that run."""
    sizes = {found.id: found.size for found in state.objects.values()}
    attached = {
        found.id: [
            (links(found, client, at.cluster), at.rights == "ro")
            for client, at in found.attachments.items()
            if state.runs(client)
        ]
        for found in state.objects.values()
        if found.attachments
    }
    return sizes, attached
