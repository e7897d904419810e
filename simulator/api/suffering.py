"""What becomes of a call that a fault strikes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from simulator.api.faults import Fault
from simulator.ports import Reply


class Lost(Exception):
    """The call was carried out, and its client shall not hear of it."""


class Sufferer(Protocol):
    """What a fault can do with the call that it strikes."""

    async def carry_out(self) -> Reply: ...

    def carry_out_aside(self) -> None:
        """Once more; nobody waits for the answer."""
        ...

    async def hold(self, until: asyncio.Future[Reply | None]) -> Reply | None:
        """Wait for it; the simulator's end gives it a reply of its own. Raises when the client leaves."""
        ...


async def suffer(fault: Fault, statuses: Mapping[str, int], call: Sufferer) -> Reply:
    """The answer of a call that is struck. Raises `Lost` when there shall be none."""
    match fault.wanted.kind:
        case "refuse" | "transient":
            return fault.refusal(statuses)
        case "lose":
            await call.carry_out()
            raise Lost
        case "duplicate":
            reply = await call.carry_out()
            call.carry_out_aside()
            return reply
        case "delay":
            reply = await call.carry_out()
            return await call.hold(_after(fault.wanted.seconds or 0.0)) or reply
        case "hang":
            lifted: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
            fault.hanging[lifted] = None
            try:
                refused = await call.hold(lifted)
            finally:
                fault.hanging.pop(lifted, None)
            return refused or await call.carry_out()


def _after(seconds: float) -> asyncio.Future[Reply | None]:
    loop = asyncio.get_running_loop()
    over: asyncio.Future[Reply | None] = loop.create_future()
    loop.call_later(seconds, _finish, over)
    return over


def _finish(over: asyncio.Future[Reply | None]) -> None:
    if not over.done():
        over.set_result(None)
