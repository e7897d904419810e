"""HTTP around the service: one catch-all route turns what arrives into `Request` and waits for its `Reply`.

Everything runs on one event loop, because the service is not thread-safe; a call that waits holds no thread. Every
answer is JSON, also to what is no HTTP at all (spec storpool-api 0.3 item 2).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl

import structlog
import uvicorn
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from simulator.api import wire
from simulator.api.errors import STATUS, Refused
from simulator.ports import Reply, Request, Service

_log = structlog.get_logger("simulator.server")
_JSON = "application/json"
_SCHEME = "storpool v1:"
_QUIETEST_TICK = 60.0
_BUSIEST_TICK = 0.001
_UNWATCHED_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds."""

    body: int = 4 << 20
    head: int = 1 << 20
    """Request line and headers: a GET carries its JSON there."""
    body_seconds: float = 30.0
    """From the headers to the last byte of the body."""
    call_seconds: float = 1860.0
    """A little more than the most patient client known waits (30 min, spec 1.2)."""
    waiting: int = 512
    """Calls under way at once, their bodies' arrival included; more are refused as transient."""
    head_seconds: float = 30.0
    """From the first byte of a request to the end of its headers; a connection's first byte is its beginning."""
    send_seconds: float = 60.0
    """For which a client may read nothing of an answer that it asked for."""


class Watcher(Protocol):
    """Hears of every answer, and renders `/metrics`."""

    def answered(self, status: int, body: bytes) -> None: ...

    def text(self) -> bytes: ...


class Application:
    """The ASGI application over one service."""

    def __init__(self, service: Service, limits: Limits | None = None) -> None:
        self._service = service
        self._limits = limits or Limits()
        self._waiting: set[asyncio.Future[Reply]] = set()
        self._under_way = 0
        self._stopping = False
        self._moved = asyncio.Event()
        self._next_tick = 0.0
        """Of the event loop's clock."""
        self.watcher: Watcher | None = None
        self.crashed: Callable[[BaseException], None] = lambda _error: None

    @property
    def waiting(self) -> int:
        """Calls without an answer yet."""
        return len(self._waiting)

    def moved(self) -> None:
        """The service's state may have changed: look whether it must be called earlier."""
        due = self._service.due_in()
        if due is not None and asyncio.get_running_loop().time() + due < self._next_tick:
            self._moved.set()

    def stop(self) -> None:
        """Answer everyone who waits, and whoever still calls, that the simulator stops."""
        self._stopping = True
        for waiting in list(self._waiting):
            if not waiting.done():
                waiting.set_result(_refusal(_unavailable("The simulator stops")))

    async def tick(self) -> None:
        """Let the service's time pass, for ever."""
        while True:
            self._moved.clear()
            try:
                delay = self._service.tick()
            except Exception as error:  # a defect; answering on with a half-made change would hide it
                self.crashed(error)
                return
            seconds = _QUIETEST_TICK if delay is None else min(max(delay, _BUSIEST_TICK), _QUIETEST_TICK)
            self._next_tick = asyncio.get_running_loop().time() + seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._moved.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/metrics" and scope["method"] == "GET" and self.watcher is not None:
            await Response(self.watcher.text(), media_type="text/plain; version=0.0.4")(scope, receive, send)
            return
        self._under_way += 1
        try:
            reply = await self._answer(scope, receive)
        except ClientDisconnect:
            return
        finally:
            self._under_way -= 1
        if self.watcher is not None:
            self.watcher.answered(reply.status, reply.body)
        headers = {"Cache-Control": "private"}
        if reply.status == 405:
            headers["Allow"] = "GET, POST"
        if reply.status == 413:
            headers["Connection"] = "close"  # the rest of the body is not read
        await Response(reply.body, reply.status, headers, media_type=_JSON)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        method, path, headers = scope["method"], scope["path"], dict(scope["headers"])
        if method not in ("GET", "POST"):
            return _refusal(Refused("unknownCall", f"Calls are GET or POST, not {method}"), 405)
        if self._stopping or self._under_way > self._limits.waiting:
            return _refusal(_unavailable("The simulator stops" if self._stopping else "Too many calls are under way"))
        try:
            body = await self._body(headers, scope, receive)
            if method == "GET":
                body = _json_argument(scope["query_string"])
        except _TooLarge as error:
            return _refusal(Refused("invalidParam", str(error)), 413)
        except TimeoutError:
            descr = f"The body did not come in {self._limits.body_seconds:g} s"
            return _refusal(Refused("invalidParam", descr, transient=True), 408)
        except ValueError as error:
            return _refusal(Refused("invalidParam", str(error)))
        return await self._submit(Request(method, path, body, _token(headers)), receive)

    async def _body(self, headers: dict[bytes, bytes], scope: Scope, receive: Receive) -> bytes:
        announced = headers.get(b"content-length", b"0")
        if announced == b"0" and b"transfer-encoding" not in headers:
            return b""
        limit = self._limits.body
        if announced.isdigit() and int(announced) > limit:
            raise _TooLarge(f"A body of {int(announced)} bytes is too large; the limit is {limit}")
        body = bytearray()
        async with asyncio.timeout(self._limits.body_seconds):
            async for part in HttpRequest(scope, receive).stream():
                body += part
                if len(body) > limit:
                    raise _TooLarge(f"The body is too large; the limit is {limit} bytes")
        return bytes(body)

    async def _submit(self, request: Request, receive: Receive) -> Reply:
        """Wait for the reply, the client's leaving or the time limit, whichever is first."""
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def answered(reply: Reply) -> None:
            if not waiting.done():
                waiting.set_result(reply)

        self._waiting.add(waiting)
        try:
            number = self._service.submit(request, answered)
            self.moved()
            if waiting.done():
                return waiting.result()
            return await self._wait(number, waiting, receive)
        except (ClientDisconnect, asyncio.CancelledError):
            raise
        except Exception as error:  # a defect of ours is still answered in JSON
            _log.exception("call failed", verb=request.verb, path=request.path)
            return _refusal(Refused("internalError", f"The simulator failed: {type(error).__name__}; see its log"))
        finally:
            self._waiting.discard(waiting)

    async def _wait(self, number: int, waiting: asyncio.Future[Reply], receive: Receive) -> Reply:
        # Most answers come as soon as the journal is synced, and watching whether the client leaves costs more.
        await asyncio.wait((waiting,), timeout=_UNWATCHED_SECONDS)
        if waiting.done():
            return waiting.result()
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait(
                (waiting, leaving), timeout=self._limits.call_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if waiting.done():
                return waiting.result()
            self._service.cancel(number)
            self.moved()
            if leaving.done():
                raise ClientDisconnect
            return _refusal(
                Refused("timeout", f"Not done after {self._limits.call_seconds:g} s; what was begun goes on")
            )
        finally:
            leaving.cancel()


class _TooLarge(Exception):
    pass


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _json_argument(query: bytes) -> bytes:
    """The `json=` argument of a GET; empty when there is none. Raises ValueError."""
    if not query:
        return b""
    try:
        arguments = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError as error:
        raise ValueError(f"The query string cannot be read: {error}") from error
    given = [value for name, value in arguments if name == "json"]
    if len(given) > 1:
        raise ValueError("The json argument is given more than once")
    return given[0].encode() if given else b""


def _token(headers: dict[bytes, bytes]) -> str | None:
    header = headers.get(b"authorization", b"").decode("latin-1")
    return header[len(_SCHEME) :].strip() or None if header.lower().startswith(_SCHEME) else None


def _unavailable(descr: str) -> Refused:
    return Refused("unavailable", descr, transient=True)


def _refusal(refused: Refused, status: int | None = None) -> Reply:
    return Reply(status or STATUS[refused.name], wire.failure(refused))


class Connection(HttpToolsProtocol):
    """Is answered in JSON even if it does not speak HTTP, and may not dawdle over its headers."""

    limits = Limits()
    _head = 0
    """Bytes that came of a request line and headers that are not whole."""
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._read_on()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        if self._deadline is None:
            self._await_head()
        self._head += len(data)
        if self._head > self.limits.head:
            self.send_400_response(f"Request line and headers are longer than {self.limits.head} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._head_came()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        self._watch_reading(None)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._read_on()
        super().resume_writing()

    def _watch_reading(self, before: int | None) -> None:
        left = self.transport.get_write_buffer_size()
        if left == before:
            self.transport.abort()
        else:
            self._unread = self.loop.call_later(self.limits.send_seconds, self._watch_reading, left)

    def _read_on(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _await_head(self) -> None:
        self._head = 0
        self._deadline = self.loop.call_later(self.limits.head_seconds, self._too_slow)

    def _head_came(self) -> None:
        self._in_head = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._head_came()
        body = wire.failure(Refused("invalidParam", msg))
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: {_JSON}\r\ncontent-length: {len(body)}\r\nconnection: close"
        self.transport.write(head.encode() + b"\r\n\r\n" + body)
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn, with the signals left to whoever runs it and a call when it listens."""

    def __init__(self, application: Application, limits: Limits, ready: Callable[[], None]) -> None:
        kind = type("LimitedConnection", (Connection,), {"limits": limits})
        super().__init__(
            uvicorn.Config(
                application,
                http=kind,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=5,
                backlog=1024,
            )
        )
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()
