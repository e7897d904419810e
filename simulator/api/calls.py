"""Calls on their way through the service: each waits for its reply, for its client's leaving, or for the time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from simulator.ports import Reply, Request, Service

_T = TypeVar("_T")
_UNWATCHED_SECONDS = 0.05


class Calls:
    """Lives on the server's event loop. `moved` is called when the service's state may have changed."""

    def __init__(self, service: Service, seconds: float, moved: Callable[[], None]) -> None:
        self._service = service
        self._seconds = seconds
        self._moved = moved
        self._waiting: set[asyncio.Future[Any]] = set()

    def __len__(self) -> int:
        """Calls without an answer yet."""
        return len(self._waiting)

    def end(self, reply: Reply) -> None:
        """Give this reply to everyone who waits."""
        for waiting in list(self._waiting):
            if not waiting.done():
                waiting.set_result(reply)

    async def carry_out(self, request: Request, http: HttpRequest | None) -> Reply:
        """By the service. Without `http` nobody can leave. Raises `ClientDisconnect` and TimeoutError; what was begun
        then goes on."""
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def answered(reply: Reply) -> None:
            if not waiting.done():
                waiting.set_result(reply)

        number = self._service.submit(request, answered)
        self._moved()
        if waiting.done():
            return waiting.result()
        try:
            return await self.wait(waiting, http)
        except (ClientDisconnect, TimeoutError):
            self._service.cancel(number)
            self._moved()
            raise

    async def wait(self, until: asyncio.Future[_T], http: HttpRequest | None) -> _T:
        """Its result; `end` gives it one. Raises as `carry_out` does."""
        leaving = None
        self._waiting.add(until)
        try:
            # Most answers come as soon as the journal is synced, and watching whether the client leaves costs more.
            await asyncio.wait((until,), timeout=min(_UNWATCHED_SECONDS, self._seconds))
            if until.done():
                return until.result()
            leaving = None if http is None else asyncio.ensure_future(disconnected(http))
            both: list[asyncio.Future[Any]] = [until] if leaving is None else [until, leaving]
            await asyncio.wait(both, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if until.done():
                return until.result()
            if leaving is not None and leaving.done():
                raise ClientDisconnect
            raise TimeoutError
        finally:
            self._waiting.discard(until)
            if leaving is not None:
                leaving.cancel()


async def disconnected(http: HttpRequest) -> None:
    """Return when the connection has ended."""
    while (await http.receive())["type"] != "http.disconnect":
        pass
