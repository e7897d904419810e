"""Runs cases on a lab of its own, in a container, as it is told: `python -m harness.worlds.local.worker`.

Standard input has one JSON line, an `Order`, for cases to run one after the other; standard output has one for each
event of the result stream, and `DONE` after each order. At the end of the input the lab is taken down.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import IO

import msgspec

from harness.report.stream import encode
from harness.run import Runner
from harness.worlds.local.venue import LocalVenue
from scenarios import registry
from scenarios.registry import Case

DONE = b"\n"


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cases: list[str]
    """Ids; the lab is first brought up for the site of the first one."""
    began: float
    """When the run began, by the clock of `time.monotonic`, which all processes of the machine share."""


def main() -> None:
    # Whatever else is printed must not come between the events.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, _interrupt)
    orders = _orders()
    first = next(orders, None)
    if first is None:
        return
    known = {case.id: case for case in registry.load()}
    runner = Runner(lambda event: _write(out, encode(event)), time.monotonic, first.began)
    site = known[first.cases[0]].site if first.cases else ""
    runner.world(_cases(known, first, orders, out), LocalVenue(None, site=site))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _orders() -> Iterator[Order]:
    for line in sys.stdin.buffer:
        yield msgspec.json.decode(line, type=Order)


def _cases(known: dict[str, Case], first: Order, orders: Iterator[Order], out: IO[bytes]) -> Iterator[Case]:
    order: Order | None = first
    while order is not None:
        for case in order.cases:
            yield known[case]
        _write(out, DONE)
        order = next(orders, None)


def _write(out: IO[bytes], line: bytes) -> None:
    out.write(line)
    out.flush()


if __name__ == "__main__":
    main()
