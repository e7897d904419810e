"""What the tests of the simulator prove of each operation, found by lying to them.

A pytest plugin. It runs each test once and notes which operations it calls, with which outcome, by which real client.
Then it lies about one operation at a time and runs tests that call it again: whoever asserts the operation's behaviour
fails, and nobody else does. So no test says what it proves, and no claim is taken on trust. The lies:

* effect: a change is acknowledged and not made;
* values: a query answers with the right shape and every value another;
* items: a query answers with an empty list or map;
* an error's name: the refusal comes under another name.

Tests that draw what they do prove nothing here: another run draws something else. Nor do those that compare two clients
of one simulator, which lies to both.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import core_rig
import msgspec
import pytest
from _pytest.runner import runtestprotocol

from simulator.api.operation import Operation
from simulator.api.operations import OPERATIONS
from simulator.api.paths import BASE
from simulator.api.scalars import PATH_ARGUMENTS
from simulator.cluster.cluster import Cluster, Output
from simulator.cluster.plan import Handler, Plan
from simulator.ports import Reply, Request, Verb
from simulator.service import Service

SECONDS = 60.0
"""A test that a lie keeps from ending has noticed it."""
LEFT_OUT = ("test_fidelity_page", "test_transcripts")
"""Files whose tests are about no operation."""
COMPARING = ("test_real_clients",)
"""Files whose tests tell which client drives what, and nothing else."""
_BY_CALL: dict[tuple[str, str], list[Operation]] = {}
for _operation in OPERATIONS:
    _BY_CALL.setdefault((_operation.verb.value, _operation.call), []).append(_operation)


@dataclass
class Seen:
    """What was seen of one operation while nobody lied; tests are named by their number in the session."""

    clients: set[str] = field(default_factory=set)
    """Real clients that it answered with success."""
    judged: str = ""
    """Whether the strict validator had an answer with something in it (`filled`) or only `empty` ones."""
    outcomes: dict[str, dict[int, int]] = field(default_factory=dict)
    """By `ok` or the error's name: tests, with how many calls of any kind each makes."""


@dataclass
class Proof:
    """One claim about an operation, and the test that a lie about it makes fail."""

    method: str
    lie: str
    test: str


def meant(request: Request) -> Operation | None:
    """The operation that a path means, whatever its arguments; VolumeAbandonDisk of a name that only a snapshot can
    have is the one of snapshots."""
    if not request.path.startswith(BASE):
        return None
    words = request.path[len(BASE) :].split("/")
    if words[0] == "RemoteCommand" or words[:2] == ["MultiCluster", "AllClusters"]:
        return None  # a refusal may be about the cluster, and is wrapped
    if words[:1] == ["MultiCluster"]:
        del words[0]
    name = "/".join(words[:2]) if words[:1] == ["KV"] and len(words) > 1 else "".join(words[:1])
    found = _BY_CALL.get((request.verb, name), [])
    if len(found) > 1:
        last = words[-1]
        return next((one for one in found if PATH_ARGUMENTS[one.parameters[-1]][0].match(last)), found[0])
    return found[0] if found else None


def twisted(value: Any) -> Any:
    """The same shape with every value another."""
    if isinstance(value, dict):
        return {key: twisted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [twisted(inner) for inner in value]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return value + "x" if isinstance(value, str) else value


class Witness:
    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {operation.method: Seen() for operation in OPERATIONS}
        self.proofs: list[Proof] = []
        self.failed: list[str] = []
        """Tests that fail although nobody lies: then there is nothing to be said."""
        self._lie: tuple[str, str] | None = None
        self._test = 0
        self._calls = 0
        self._under_way = False
        self._current: Operation | None = None

    # pytest's hooks.

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if not _draws(item) and item.path.stem not in LEFT_OUT]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        with self._listening():
            for number, item in enumerate(session.items):
                self._watch(number, item)
            if not self.failed and not session.testsfailed:
                for operation in OPERATIONS:
                    for lie, outcome in self._lies(operation):
                        self._prove(session, operation.method, lie, outcome)
        return True

    def _watch(self, number: int, item: pytest.Item) -> None:
        self._test, self._calls = number, 0
        if not _passes(item):
            self.failed.append(item.nodeid)
        for seen in self.seen.values():
            for tests in seen.outcomes.values():
                if number in tests:
                    tests[number] = self._calls

    def _lies(self, operation: Operation) -> Iterator[tuple[str, str]]:
        """Lie, and with which outcome a test must have met the operation to notice it."""
        outcomes = self.seen[operation.method].outcomes
        if "ok" in outcomes:
            for lie in ("effect",) if operation.verb is Verb.POST else ("values", "items"):
                yield lie, "ok"
        for name in sorted(set(outcomes) - {"ok"}):
            yield name, name

    def _prove(self, session: pytest.Session, method: str, lie: str, outcome: str) -> None:
        """The test with the fewest calls is the likeliest to be about this one."""
        tests = self.seen[method].outcomes[outcome]
        for number in sorted(tests, key=lambda number: (tests[number], number)):
            if session.items[number].path.stem in COMPARING:
                continue
            self._lie = method, lie
            noticed = not _passes(session.items[number])
            self._lie = None
            if noticed:
                self.proofs.append(Proof(method, lie, session.items[number].nodeid))
                return

    # Between the tests and the simulator.

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        submit, call, judge = Service.submit, Cluster.call, core_rig.judge

        def heard(service: Service, request: Request, reply: Callable[[Reply], None]) -> int:
            """What clusters ask each other, or themselves, belongs to the call that is under way."""
            if self._under_way:
                return submit(service, request, reply)
            self._calls += 1
            self._under_way, self._current = True, meant(request)
            operation, client = self._current, core_rig.driver()
            try:
                return submit(service, request, lambda given: reply(self._answered(operation, client, given)))
            finally:
                self._under_way, self._current = False, None

        def asked(cluster: Cluster, number: int, handler: Handler, given: Any, *body: object) -> Output:
            if self._current is not None and self._lie == (self._current.method, "effect"):
                handler = idle(handler)
            return call(cluster, number, handler, given, *body)

        def judged(method: str, raw: Any) -> None:
            if self._lie is None:  # what the validator notices is no behaviour
                judge(method, raw)
                seen = self.seen[method]
                seen.judged = "filled" if raw or seen.judged == "filled" else "empty"

        with (
            mock.patch.object(Service, "submit", heard),
            mock.patch.object(Cluster, "call", asked),
            mock.patch.object(core_rig, "judge", judged),
        ):
            yield

    def _answered(self, operation: Operation | None, client: str, reply: Reply) -> Reply:
        if operation is None:
            return reply
        answer = msgspec.json.decode(reply.body)
        outcome = answer["error"]["name"] if "error" in answer else "ok"
        if self._lie is None:
            seen = self.seen[operation.method]
            seen.outcomes.setdefault(outcome, {})[self._test] = 0
            if outcome == "ok" and client:
                seen.clients.add(client)
            return reply
        if self._lie == (operation.method, outcome):
            answer["error"]["name"] = "notThisOne"
        elif outcome == "ok" and self._lie == (operation.method, "values"):
            answer["data"] = twisted(answer["data"])
        elif outcome == "ok" and self._lie == (operation.method, "items"):
            answer["data"] = type(answer["data"])()
        else:
            return reply
        return Reply(reply.status, msgspec.json.encode(answer))


def idle(handler: Handler) -> Handler:
    """Acknowledges changes and makes none."""

    def lies(*arguments: object) -> object:
        outcome = handler(*arguments)
        return Plan(outcome.answer) if isinstance(outcome, Plan) else outcome

    return lies


def _draws(item: pytest.Item) -> bool:
    return bool(getattr(getattr(item, "obj", None), "is_hypothesis_test", False))


def _passes(item: pytest.Item) -> bool:
    def too_long(*_: object) -> None:
        raise TimeoutError(f"not over after {SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        reports = runtestprotocol(item, log=False, nextitem=None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return all(report.outcome != "failed" for report in reports)
