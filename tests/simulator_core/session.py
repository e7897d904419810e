"""The session of the vendor's bindings that calls everything, as data: what was asked and what was answered."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import msgspec
from core_rig import Bindings
from test_several_clusters import Site
from test_several_clusters import (
    test_the_vendors_bindings_accept_every_answer_and_a_restart_forgets_nothing as drive_between_clusters,
)
from test_vendor_bindings import test_every_implemented_call_answers_what_the_bindings_declare as drive
from witness import meant

from simulator.api.operation import Operation
from simulator.inprocess import InProcess, connected
from simulator.ports import Reply, Request
from simulator.service import Service
from simulator.settings import KnownCluster


@dataclass(frozen=True)
class Exchange:
    operation: Operation | None
    """None: a call of the control API, which others than the bindings must be sent too."""
    verb: str
    path: str
    """As it was asked, with `/ctrl/1.0/`."""
    body: bytes
    answer: bytes
    """The whole envelope."""

    @property
    def json(self) -> Any:
        """Of the request; None when there was none."""
        return msgspec.json.decode(self.body) if self.body else None


@contextlib.contextmanager
def listening(clock: Callable[[], float]) -> Iterator[list[Exchange]]:
    """Everything that clients ask successfully meanwhile; that the clock moved is a call of the control API."""
    submit = Service.submit
    exchanges: list[Exchange] = []
    time = clock()
    under_way = False

    def heard(service: Service, request: Request, reply: Callable[[Reply], None]) -> int:
        nonlocal time, under_way
        if under_way:
            return submit(service, request, reply)
        if clock() > time:
            passed = msgspec.json.encode({"advance": clock() - time})
            exchanges.append(Exchange(None, "POST", "/_sim/clock", passed, b""))
            time = clock()

        def answered(given: Reply) -> None:
            if given.status == 200:
                exchanges.append(Exchange(meant(request), request.verb, request.path, request.body, given.body))
            reply(given)

        under_way = True
        try:
            return submit(service, request, answered)
        finally:
            under_way = False

    with mock.patch.object(Service, "submit", heard):
        yield exchanges


def session() -> tuple[Exchange, ...]:
    """On one cluster that is empty before; a restart of the simulator leaves no trace.

    Not remembered: a test that compares two sessions compares two of the same simulator, whatever that does, and so
    proves nothing of its behaviour (see `witness`).
    """
    simulator = InProcess()
    rig = Bindings(simulator)
    given: dict[str, Any] = {"api": (rig.vendor, rig.strict), "simulator": simulator}
    with listening(lambda: simulator.time) as exchanges:
        drive(**{name: given[name] for name in inspect.signature(drive).parameters})
    return tuple(exchanges)


def examples() -> dict[str, list[Exchange]]:
    """Exchanges by method of the bindings, those between clusters too."""
    here = KnownCluster(cluster_id="aa.b", name="alpha", location="sofia")
    near = KnownCluster(cluster_id="aa.c", name="beta", location="sofia")
    far = KnownCluster(cluster_id="zz.b", name="gamma", location="varna")
    with listening(lambda: 0.0) as exchanges:
        drive_between_clusters(Site(*connected(here, near, far)))
    found: dict[str, list[Exchange]] = {}
    for exchange in (*session(), *exchanges):
        if exchange.operation is not None:
            found.setdefault(exchange.operation.method, []).append(exchange)
    return found


def operation_of(exchanges: list[Exchange]) -> Operation:
    """Of the examples of one method."""
    operation = exchanges[0].operation
    assert operation is not None
    return operation
