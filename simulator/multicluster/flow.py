"""Calls that are made of other calls, here and at other clusters, one after the other.

A flow is a generator: it yields what it asks and is given the answer, or `Refused` is raised where it asked. What it
returns is the data of its own answer, or a whole `Reply`. It may end anywhere, as when the simulator dies: each step is
a change by itself, and what a move or a backup leaves half done is on record, to be finished or undone later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from simulator.api.errors import Refused
from simulator.api.paths import BRIDGE_BASE
from simulator.cluster.plan import Call
from simulator.cluster.remote import Neighbour, neighbours
from simulator.ports import Bridges, Reply, Request, Withdraw, nothing_waits


@dataclass(frozen=True, slots=True)
class Ask:
    """A call to be made; `cluster` is empty for this one."""

    cluster: str
    verb: str
    path: str
    body: bytes = b""
    """JSON."""


@dataclass(frozen=True, slots=True)
class Got:
    reply: Reply
    data: Any
    """JSON."""
    generation: int


Flow = Generator[Ask, Got, object]


def bridge(cluster: str, call: str, body: object) -> Ask:
    """A question of one cluster to another, which clients have no need of."""
    return Ask(cluster, "POST", BRIDGE_BASE + call, msgspec.json.encode(body))


@dataclass(slots=True)
class Here:
    """What a flow may know of the cluster that it runs in."""

    call: Call
    """Its state is the current one, also after a question."""
    reached: frozenset[str]
    """Ids of the clusters that answer."""
    under_way: dict[str, int]
    """Numbers of the moves here that are not decided, by global id of what moves."""
    now: Callable[[], float]
    """Unix seconds."""
    shares_devices: Callable[[str], bool]
    """Whether clients of the cluster with this id can have devices of ours."""

    @property
    def cluster_id(self) -> str:
        return self.call.settings.cluster_id

    def neighbours(self, *, location: str | None = None, own_location: bool = False) -> list[Neighbour]:
        """The registered clusters that can be reached: of the location with this name, of this one's, or all."""
        mine = self.cluster_id.partition(".")[0]
        return [
            found
            for found in neighbours(self.call.state)
            if found.cluster_id in self.reached
            and found.bridged
            and (location is None or found.location == location)
            and (not own_location or found.cluster_id.partition(".")[0] == mine)
        ]


@dataclass(slots=True)
class Flows:
    """Runs the flows of one service on its thread."""

    here: Callable[[Request, Callable[[Reply], None]], Withdraw]
    """Makes a call at this cluster."""
    bridges: Bridges
    answer: Callable[[int, object], None]
    """Of the call with this number: data, `Refused` or `Reply`."""
    token: str
    sync: Callable[[], None]
    """Has on disk what other clusters may be told of."""
    _running: dict[int, Flow] = field(default_factory=dict)
    _asked: dict[int, Withdraw] = field(default_factory=dict)
    """By number of the flow: of what it asked last."""
    _ready: deque[tuple[int, Flow, Got | Refused | None]] = field(default_factory=deque)
    _busy: bool = False

    def start(self, number: int, flow: Flow) -> None:
        self._running[number] = flow
        self._ready.append((number, flow, None))
        self.run()

    def run(self) -> None:
        """Go on with those that have their answers."""
        if self._busy:
            return
        self._busy = True
        try:
            while self._ready:
                self._step(*self._ready.popleft())
        finally:
            self._busy = False

    def withdraw(self, number: int) -> bool:
        """As `simulator.ports.Withdraw`, of the flow with this number."""
        if number not in self._running or not self._asked.get(number, nothing_waits)():
            return False
        del self._asked[number]
        self._running.pop(number).close()
        return True

    def stop(self) -> None:
        """Forget all that is under way."""
        self._ready.clear()
        self._asked.clear()
        running, self._running = self._running, {}
        for flow in running.values():
            flow.close()

    def __len__(self) -> int:
        """Flows that are not over."""
        return len(self._running)

    def _step(self, number: int, flow: Flow, answer: Got | Refused | None) -> None:
        if self._running.get(number) is not flow:
            return
        self._asked.pop(number, None)
        try:
            if isinstance(answer, Refused):
                asked = flow.throw(answer)
            elif answer is None:
                asked = next(flow)
            else:
                asked = flow.send(answer)
        except StopIteration as end:
            del self._running[number]
            self.answer(number, end.value)
            return
        except Refused as refused:
            del self._running[number]
            self.answer(number, refused)
            return
        self._ask(number, flow, asked)

    def _ask(self, number: int, flow: Flow, asked: Ask) -> None:
        def replied(reply: Reply) -> None:
            self._ready.append((number, flow, _got(reply)))
            self.run()

        request = Request(asked.verb, asked.path, asked.body, self.token)
        if not asked.cluster:
            self._asked[number] = self.here(request, replied)
        else:
            self.sync()
            self._asked[number] = self.bridges.submit(asked.cluster, request, replied)


def _got(reply: Reply) -> Got | Refused:
    try:
        answer = msgspec.json.decode(reply.body)
        error = answer.get("error")
        if error is not None:
            return Refused(error["name"], error["descr"], transient=error.get("transient", False))
        return Got(reply, answer["data"], answer["generation"])
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
        return Refused("internalError", "The other cluster's answer is not one of the API", transient=True)
