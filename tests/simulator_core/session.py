"""The session of the vendor's bindings that calls everything, as data: what was asked and what was answered."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import msgspec
from core_rig import Bindings
from test_vendor_bindings import test_every_implemented_call_answers_what_the_bindings_declare as drive
from witness import meant

from simulator.api.operation import Operation
from simulator.inprocess import InProcess
from simulator.ports import Reply, Request
from simulator.service import Service


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


def session() -> tuple[Exchange, ...]:
    """Successes, on one cluster that is empty before. Its clock goes by calls of the control API; a restart of the
    simulator leaves no trace.

    Not remembered: a test that compares two sessions compares two of the same simulator, whatever that does, and so
    proves nothing of its behaviour (see `witness`).
    """
    submit = Service.submit
    exchanges: list[Exchange] = []
    simulator = InProcess()
    time = simulator.time
    under_way = False

    def heard(service: Service, request: Request, reply: Callable[[Reply], None]) -> int:
        nonlocal time, under_way
        if under_way:
            return submit(service, request, reply)
        if simulator.time > time:
            passed = msgspec.json.encode({"advance": simulator.time - time})
            exchanges.append(Exchange(None, "POST", "/_sim/clock", passed, b""))
            time = simulator.time

        def answered(given: Reply) -> None:
            if given.status == 200:
                exchanges.append(Exchange(meant(request), request.verb, request.path, request.body, given.body))
            reply(given)

        under_way = True
        try:
            return submit(service, request, answered)
        finally:
            under_way = False

    rig = Bindings(simulator)
    given: dict[str, Any] = {"api": (rig.vendor, rig.strict), "simulator": simulator}
    with mock.patch.object(Service, "submit", heard):
        drive(**{name: given[name] for name in inspect.signature(drive).parameters})
    return tuple(exchanges)


def examples() -> dict[str, list[Exchange]]:
    """Exchanges by method of the bindings."""
    found: dict[str, list[Exchange]] = {}
    for exchange in session():
        if exchange.operation is not None:
            found.setdefault(exchange.operation.method, []).append(exchange)
    return found


def operation_of(exchanges: list[Exchange]) -> Operation:
    """Of the examples of one method."""
    operation = exchanges[0].operation
    assert operation is not None
    return operation
