"""The session of the vendor's bindings that calls everything, as data: what was asked and what was answered."""

from __future__ import annotations

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
    operation: Operation
    path: str
    """As it was asked, from `/ctrl/1.0/` on."""
    body: bytes
    answer: bytes
    """The whole envelope."""

    @property
    def json(self) -> Any:
        """Of the request; None when there was none."""
        return msgspec.json.decode(self.body) if self.body else None


def session() -> tuple[Exchange, ...]:
    """On one cluster that is empty before; every answer is a success.

    Not remembered: a test that compares two sessions compares two of the same simulator, whatever that does, and so
    proves nothing of its behaviour (see `witness`).
    """
    submit = Service.submit
    exchanges: list[Exchange] = []

    def heard(service: Service, request: Request, reply: Callable[[Reply], None]) -> int:
        def answered(given: Reply) -> None:
            operation = meant(request)
            assert operation is not None and given.status == 200
            exchanges.append(Exchange(operation, request.path, request.body, given.body))
            reply(given)

        return submit(service, request, answered)

    rig = Bindings(InProcess())
    with mock.patch.object(Service, "submit", heard):
        drive((rig.vendor, rig.strict))
    return tuple(exchanges)


def examples() -> dict[str, list[Exchange]]:
    """Exchanges by method of the bindings."""
    found: dict[str, list[Exchange]] = {}
    for exchange in session():
        found.setdefault(exchange.operation.method, []).append(exchange)
    return found
