"""The simulator as one object: calls in, journal and blocks behind it, replies out (design section 12)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from simulator.api import control, wire
from simulator.api.errors import STATUS, Refused
from simulator.api.operation import Operation
from simulator.api.paths import Route
from simulator.api.routing import remote_command, route
from simulator.api.schema.answers import Ok
from simulator.api.token import matches
from simulator.cluster import limits, overview
from simulator.cluster.cluster import Cluster, Output, contents
from simulator.cluster.effects import Failure
from simulator.cluster.overview import Overview
from simulator.cluster.plan import Call, Handler
from simulator.cluster.records import JournalRecord
from simulator.cluster.state import State
from simulator.effects import Effects, Inline, carry_out
from simulator.loading import empty, load, not_imported
from simulator.multicluster import addressing, contents_calls, dispatch, moving
from simulator.multicluster.flow import Flow, Flows, Here
from simulator.ports import Blocks, BlocksError, Bridges, Journal, NoBridges, Reply, Request, Withdraw
from simulator.promises import Later, Promise, Promises
from simulator.services.qos import Qos
from simulator.services.volumecare import VolumeCare
from simulator.settings import Settings

HELD_UP_SECONDS = 0.05


@dataclass(slots=True)
class _Caller:
    reply: Callable[[Reply], None]
    route: Route | None
    """None for a call of the control API."""


class Service:
    """Implements `simulator.ports.Service`. Building one replays the journal and mends the blocks to match.

    `now` gives Unix seconds. `advance` moves that clock on, where it can be moved. With `control`, calls under `/_sim/`
    are served too. `configurations` of storpool_qos and VolumeCare, by bucket, are for a key-value store that has none.
    `later` is of `simulator.promises`.
    """

    def __init__(
        self,
        blocks: Blocks,
        journal: Journal,
        settings: Settings,
        now: Callable[[], float],
        token: str,
        effects: Effects | None = None,
        *,
        control: bool = False,
        advance: Callable[[float], None] | None = None,
        later: Later | None = None,
        configurations: Mapping[str, str] = MappingProxyType({}),
        bridges: Bridges | None = None,
    ) -> None:
        self._blocks = blocks
        self._journal = journal
        self._settings = settings
        self._now = now
        self._token = token
        self._effects = effects or Inline()
        self._bridges = bridges or NoBridges()
        self._promises = Promises(journal, later, self._carry_on, self._break)
        self._flows = Flows(self._ask_here, self._bridges, self._reply, token, self._promises.keep)
        self._under_way: dict[str, int] = {}
        self._doubts_due: float | None = None
        self._clearing_doubts = False
        self._deferred: list[tuple[int, Request, Callable[[Reply], None]]] = []
        self.moved: Callable[[], None] = lambda: None
        """Called when it may have to be called again sooner than it last said."""
        self._control = control
        self.advance = advance
        self._configurations = configurations
        self._callers: dict[int, _Caller] = {}
        self._last_number = 0
        self._calls: dict[str, int] = {}
        self._broken: str | None = None
        self._outcomes: deque[tuple[int, Failure | None]] = deque()
        self._settling = False
        self._started = now()
        state = load(journal, settings, configurations)
        self.mended = self._reconciled(state)
        """What had to be put right in the blocks at start, one line each."""
        self.not_imported = not_imported(state, configurations)
        """Buckets whose configuration is another than the one that was given: the store's stands."""
        self._cluster = self._begin(state)
        self._due = self._cluster.due_at()
        self._doubts_due = now() if moving.in_doubt(self._cluster.state) else None

    # simulator.ports.Service.

    def submit(self, request: Request, reply: Callable[[Reply], None]) -> int:
        self._last_number += 1
        number = self._last_number
        if self._settling:
            self._deferred.append((number, request, reply))
        else:
            self._submit(number, request, reply)
        return number

    def _submit(self, number: int, request: Request, reply: Callable[[Reply], None]) -> None:
        caller = _Caller(reply, None)
        try:
            self._authorise(request)
            if self._broken is not None:
                raise Refused("unavailable", self._broken)
            if self._control and request.path.startswith(control.BASE):
                self._callers[number] = caller
                self._serve_control(number, request)
                return
            if request.path in contents_calls.PATHS:
                reply(contents_calls.serve(self._blocks, self.object_keys(), request))
                return
            elsewhere = remote_command(request.path, self._settings)
            if elsewhere is not None:
                self._callers[number] = caller
                self._flow(number, addressing.remote_command(self._here(self._call()), *elsewhere, request))
                return
            found = caller.route = route(request.verb, request.path, self._settings)
            operation = found.operation
            if not found.alone:
                self._calls[operation.call] = self._calls.get(operation.call, 0) + 1
            if not operation.served:
                raise Refused("notImplemented", f"{operation.call} is not implemented by this simulator")
            body = wire.decode(operation, request.body, loose=self._settings.loose)
        except Refused as refused:
            self._callers.pop(number, None)
            reply(self._encode(caller.route, refused))
            return
        self._callers[number] = caller
        self._catch_up()
        if dispatch.may_be_flow(found, reaches_others=bool(self._bridges.clusters())):
            here = self._here(self._call(found.args, multicluster=found.multicluster))
            flow = dispatch.flow_of(here, found, body, request)
            if flow is not None:
                self._flow(number, flow)
                return
        assert operation.handler is not None, "what has no flow has a handler"
        try:
            call = self._call(found.args, operation, multicluster=found.multicluster)
        except (BlocksError, OSError) as error:
            self._reply(number, Refused("internalError", f"{operation.call}: {error}"))
            return
        if operation.request is None:
            self._settle(self._cluster.call(number, operation.handler, call))
        else:
            self._settle(self._cluster.call(number, operation.handler, call, body))

    def _here(self, call: Call) -> Here:
        return Here(call, frozenset(self._bridges.clusters()), self._under_way, self._now, self._bridges.shares_devices)

    def _flow(self, number: int, flow: Flow) -> None:
        self._flows.start(number, flow)
        self._watch_doubts()

    def _ask_here(self, request: Request, reply: Callable[[Reply], None]) -> Withdraw:
        return partial(self.withdraw, self.submit(request, reply))

    def cancel(self, number: int) -> None:
        self.withdraw(number)
        self._callers.pop(number, None)

    def withdraw(self, number: int) -> bool:
        """As `simulator.ports.Withdraw`, of the call with this number."""
        waited = self._cluster.cancel(number) or self._flows.withdraw(number)
        if waited:
            self._callers.pop(number, None)
        return waited

    def tick(self) -> float | None:
        if self._broken is not None:
            return None
        self._catch_up()
        self._clear_doubts()
        pause = self.due_in()
        # What is still due waits for a change under way, whose end is heard of anyway.
        return HELD_UP_SECONDS if pause == 0.0 else pause

    def due_in(self) -> float | None:
        due = self._due
        if due is None or (self._doubts_due is not None and self._doubts_due < due):
            due = self._doubts_due
        return None if due is None else max(0.0, due - self._now())

    def close(self) -> None:
        self._blocks.close()
        self._journal.close()

    # For observers and for the control API.

    @property
    def calls(self) -> Mapping[str, int]:
        """How often each call was served, errors included, by the fixed words of its path."""
        return MappingProxyType(self._calls)

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def generation(self) -> int:
        return self._cluster.state.generation

    @property
    def time(self) -> float:
        """Unix seconds of the simulator's clock."""
        return self._now()

    @property
    def last_changes(self) -> Iterable[tuple[int, JournalRecord]]:
        """The last records that this process put into the journal, each with its number."""
        return self._promises.last_changes

    def overview(self, rows: int) -> Overview:
        """The cluster at a glance, for people to look at; of anything that there is many of, at most so many rows."""
        call = self._call()
        try:
            call.capacity = self._blocks.capacity()
        except (BlocksError, OSError):
            call.capacity = (0, 0)
        return overview.of(call, rows, limits_enforced=self._blocks.enforces_limits, trouble=self._broken or "")

    def object_keys(self) -> Mapping[str, int]:
        return MappingProxyType(self._cluster.state.global_ids)

    def encoded_state(self) -> bytes:
        """The committed state; equal states are equal bytes."""
        return self._cluster.state.encode()

    def control_call(self, number: int, handler: Handler, args: tuple[str, ...]) -> None:
        """Make a change that is not part of StorPool's API."""
        self._settle(self._cluster.call(number, handler, Call(self._cluster.state, self._settings, self._now(), args)))

    def answer(self, number: int, data: object) -> None:
        """Reply to a call of the control API: its data or `Refused`."""
        self._reply(number, data)

    def reset(self, number: int) -> None:
        """Back to the small cluster that an empty state starts with, and the configurations of services that it was
        given. Refused while changes are under way.

        Calls that wait for something, other than this one, are answered `unavailable`.
        """
        if not self._cluster.idle:
            raise Refused("busy", "Changes are under way; reset again when they are answered")
        self._promises.keep()
        state = empty(self._settings, self._configurations)
        self._promises.begin_anew(state)
        self.not_imported = not_imported(state, self._configurations)
        self._cluster = self._begin(state)
        self._blocks.reconcile({}, {})
        self._calls.clear()
        self._due = self._cluster.due_at()
        self._flows.stop()
        self._under_way.clear()
        self._doubts_due = None
        for waiting in [waiting for waiting in self._callers if waiting != number]:
            self._reply(waiting, Refused("unavailable", "The simulator was reset"))

    # Inside.

    def _serve_control(self, number: int, request: Request) -> None:
        try:
            control.serve(self, number, request)
        except (BlocksError, OSError) as error:
            raise Refused("internalError", f"{request.path}: {error}") from error

    def _reconciled(self, state: State) -> list[str]:
        mended = self._blocks.reconcile(*contents(state))
        for found in state.objects.values():
            if found.attachments:
                self._blocks.limit(found.id, *limits.of(self._settings, found))
        return mended

    def _begin(self, state: State) -> Cluster:
        self._volumecare = VolumeCare()
        return Cluster(state, self._settings, (Qos(), self._volumecare))

    def _authorise(self, request: Request) -> None:
        if not matches(request.token, self._token):
            raise Refused("accessDenied", "Wrong or missing token: send 'Authorization: Storpool v1:<SP_AUTH_TOKEN>'")

    def _call(
        self, args: tuple[str, ...] = (), operation: Operation | None = None, *, multicluster: bool = False
    ) -> Call:
        call = Call(self._cluster.state, self._settings, self._now(), args, multicluster)
        call.started = self._started
        call.under_way = self._under_way
        if operation is not None and operation.capacity:
            call.capacity = self._blocks.capacity()
        if operation is not None and operation.stored:
            call.stored = {key: self._blocks.stored(key) for key in self._cluster.state.objects}
        return call

    def _catch_up(self) -> None:
        """Do what is due before anything else sees the state."""
        while self._due is not None and self._due <= self._now():
            output = self._cluster.tick(self._call_of_time())
            idle = not (output.records or output.answers or output.work)
            self._settle(output)
            self._due = self._cluster.due_at()
            if idle or self._broken is not None:
                return

    def _call_of_time(self) -> Call:
        call = self._call()
        due = self._volumecare.due_at(call.state, call.settings)
        if due is not None and due <= call.now:
            try:
                call.capacity = self._blocks.capacity()
            except (BlocksError, OSError):
                pass  # nothing is known to be free, so no snapshots are taken
        return call

    def _finished(self, change: int, failure: Failure | None) -> None:
        self._outcomes.append((change, failure))
        if not self._settling:
            self._settle(Output())

    def _settle(self, output: Output) -> None:
        """Carry out an output, and those that its work leads to when that is done at once."""
        if self._settling:
            self._emit(output)
            return
        self._settling = True
        try:
            changed = bool(output.records or output.work)
            self._emit(output)
            while self._outcomes and self._broken is None:
                changed = True
                self._emit(self._cluster.done(*self._outcomes.popleft()))
        finally:
            self._settling = False
        if changed:
            self._due = self._cluster.due_at()
            self._watch_doubts()
        if self._cluster.quiet and self._broken is None:
            self._promises.compact(self._cluster.state, self._settings.compact_every)
        if self._deferred:
            deferred, self._deferred = self._deferred, []
            for one in deferred:
                self._submit(*one)

    def _watch_doubts(self) -> None:
        if not moving.in_doubt(self._cluster.state):
            self._doubts_due = None
        elif self._doubts_due is None:
            self._doubts_due = self._now() + self._settings.transfer_check_seconds

    def _clear_doubts(self) -> None:
        """See how the moves ended that are not known to be over."""
        if self._doubts_due is None or self._doubts_due > self._now() or self._clearing_doubts:
            return
        self._clearing_doubts = True
        self._last_number += 1
        self._callers[self._last_number] = _Caller(self._doubts_cleared, None)
        self._flow(self._last_number, moving.clear_doubts(self._here(self._call())))

    def _doubts_cleared(self, _reply: Reply) -> None:
        self._clearing_doubts = False
        again = self._now() + self._settings.transfer_check_seconds
        self._doubts_due = again if moving.in_doubt(self._cluster.state) else None

    def _emit(self, output: Output) -> None:
        """Say and begin what the output has, once it is on disk."""
        replies = [
            (number, self._encode(self._callers[number].route, answer))
            for number, answer in output.answers
            if number in self._callers
        ]
        self._promises.make(output.records, Promise(replies, output.work))

    def _break(self, error: Exception) -> None:
        """After a failed write nothing more is served: the state in memory is ahead of the journal."""
        self._broken = f"The journal cannot be written: {error}; mend it and start the simulator again"
        for number in list(self._callers):
            self._reply(number, Refused("unavailable", self._broken))

    def _carry_on(self, promised: Promise) -> None:
        for number, reply in promised.replies:
            caller = self._callers.pop(number, None)
            if caller is not None:
                caller.reply(reply)
        for work in promised.work:
            carried_out = partial(carry_out, self._blocks, self._bridges, work.effects)
            self._effects.start(carried_out, partial(self._finished, work.change))

    def _reply(self, number: int, answer: object) -> None:
        self._emit(Output(answers=[(number, answer)]))

    def _encode(self, found: Route | None, answer: object) -> Reply:
        if isinstance(answer, Reply):
            return answer
        generation = self._cluster.state.generation
        if isinstance(answer, Ok) and not answer.generation:
            answer.generation = generation
        if isinstance(answer, Refused):
            status = self._settings.error_statuses.get(answer.name) or STATUS.get(answer.name, 500)
            return Reply(status, wire.failure(answer))
        if found is not None and found.multicluster and not found.all_clusters:
            return Reply(200, wire.cluster_success(generation, self._settings.cluster_id, answer))
        return Reply(200, wire.success(generation, answer))
