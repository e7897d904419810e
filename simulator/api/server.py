"""HTTP around the service: one catch-all route turns what arrives into `Request` and waits for its `Reply`.

Everything runs on one event loop, because the service is not thread-safe; a call that waits holds no thread. Every
answer is JSON, also to what is no HTTP at all (spec storpool-api 0.3 item 2).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import parse_qsl

import structlog
import uvicorn
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from simulator.api import body, control, errors, wire
from simulator.api.calls import Calls, disconnected
from simulator.api.errors import Refused
from simulator.api.faults import Fault, Faults
from simulator.api.log import Log, Served
from simulator.api.suffering import Lost, suffer
from simulator.ports import Reply, Request, Service

_log = structlog.get_logger("simulator.server")
_JSON = "application/json"
_SCHEME = "storpool v1:"
_QUIETEST_TICK = 60.0
_BUSIEST_TICK = 0.001


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


class Desk(Protocol):
    """Answers what the control API asks of the HTTP layer itself."""

    def serves(self, path: str) -> bool: ...

    def serve(self, request: Request, query: bytes) -> Reply: ...

    def answered(self, request: Request, reply: Reply) -> None:
        """The service has answered a call that is not this desk's."""
        ...


class Application:
    """The ASGI application over one service."""

    def __init__(self, service: Service, limits: Limits | None = None) -> None:
        self._service = service
        self._limits = limits or Limits()
        self._under_way = 0
        self._twins: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._moved = asyncio.Event()
        self._next_tick = 0.0
        """Of the event loop's clock."""
        self._calls = Calls(service, self._limits.call_seconds, self.moved)
        self.watcher: Watcher | None = None
        self.log: Log | None = None
        self.faults: Faults | None = None
        self.desk: Desk | None = None
        self.page: Callable[[HttpRequest], ASGIApp | None] = lambda _http: None
        """What serves a request that is not a call, if it is none."""
        self.crashed: Callable[[BaseException], None] = lambda _error: None

    @property
    def waiting(self) -> int:
        """Calls without an answer yet."""
        return len(self._calls)

    def moved(self) -> None:
        """The service's state may have changed: look whether it must be called earlier."""
        due = self._service.due_in()
        if due is not None and asyncio.get_running_loop().time() + due < self._next_tick:
            self._moved.set()

    def stop(self) -> None:
        """Answer everyone who waits, and whoever still calls, that the simulator stops."""
        self._stopping = True
        self._calls.end(wire.refusal(errors.unavailable("The simulator stops")))
        if self.log is not None:
            self.log.close()

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
        http = HttpRequest(scope, receive)
        page = self.page(http)
        if page is not None:
            await page(scope, receive, send)
            return
        if scope["path"] == "/metrics" and scope["method"] == "GET" and self.watcher is not None:
            await Response(self.watcher.text(), media_type="text/plain; version=0.0.4")(scope, receive, send)
            return
        served = Served(0.0, scope["method"], scope["path"], scope["client"][0] if scope["client"] else "")
        with self._logged(served):
            reply = await self._reply(http, served)
        if reply is None:
            return
        if self.watcher is not None:
            self.watcher.answered(reply.status, reply.body)
        headers = {"Cache-Control": "private"}
        if reply.status == 405:
            headers["Allow"] = "GET, POST"
        if reply.status == 413:
            headers["Connection"] = "close"  # the rest of the body is not read
        await Response(reply.body, reply.status, headers, media_type=_JSON)(scope, receive, send)

    def _logged(self, served: Served) -> contextlib.AbstractContextManager[None]:
        """Calls of the control API are not logged: whoever reads the log would see little else."""
        if self.log is None or served.path.startswith(control.BASE):
            return contextlib.nullcontext()
        return _Logged(self.log, served)

    async def _reply(self, http: HttpRequest, served: Served) -> Reply | None:
        """None when nobody shall get an answer, or nobody is there to read it."""
        self._under_way += 1
        try:
            reply = await self._answer(http, served)
        except ClientDisconnect:
            return None
        except Lost:
            http.state.close()
            await disconnected(http)
            return None
        finally:
            self._under_way -= 1
        served.answered(reply)
        return reply

    async def _answer(self, http: HttpRequest, served: Served) -> Reply:
        ours = self.desk is not None and self.desk.serves(served.path)
        if http.method not in ("GET", "POST") and not ours:
            return wire.refusal(Refused("unknownCall", f"Calls are GET or POST, not {http.method}"), 405)
        if self._stopping or self._under_way + len(self._twins) > self._limits.waiting:
            return wire.refusal(
                errors.unavailable("The simulator stops" if self._stopping else "Too many calls are under way")
            )
        query: bytes = http.scope["query_string"]
        try:
            content = await body.read(http, self._limits.body, self._limits.body_seconds) if body.comes(http) else b""
            if http.method == "GET":
                content = _json_argument(query)
        except body.TooLarge as error:
            return wire.refusal(Refused("invalidParam", str(error)), 413)
        except TimeoutError:
            descr = f"The body did not come in {self._limits.body_seconds:g} s"
            return wire.refusal(Refused("invalidParam", descr, transient=True), 408)
        except ValueError as error:
            return wire.refusal(Refused("invalidParam", str(error)))
        served.keep(content)
        request = Request(http.method, served.path, content, _token(http))
        if self.desk is not None and ours:
            return self.desk.serve(request, query)
        reply = await self._submit(request, http, served)
        if self.desk is not None:
            self.desk.answered(request, reply)
        return reply

    async def _submit(self, request: Request, http: HttpRequest, served: Served) -> Reply:
        """Carried out as it should be, unless a fault strikes it."""
        fault = None if self.faults is None else self.faults.strike(request)
        if fault is not None:
            served.fault = fault.title
        return await self._guarded(request, http, served, fault)

    async def _guarded(self, request: Request, http: HttpRequest | None, served: Served, fault: Fault | None) -> Reply:
        """Also what fails is answered. Raises `ClientDisconnect` and `Lost`."""
        try:
            if fault is None or self.faults is None:
                return await self._calls.carry_out(request, http)
            return await suffer(fault, self.faults.statuses, _Struck(self, request, http, served))
        except TimeoutError:
            seconds = self._limits.call_seconds
            return wire.refusal(Refused("timeout", f"Not done after {seconds:g} s; what was begun goes on"))
        except (ClientDisconnect, asyncio.CancelledError, Lost):
            raise
        except Exception as error:  # a defect of ours is still answered in JSON
            _log.exception("call failed", verb=request.verb, path=request.path)
            return wire.refusal(Refused("internalError", f"The simulator failed: {type(error).__name__}; see its log"))

    def _aside(self, work: Coroutine[None, None, None]) -> None:
        twin = asyncio.create_task(work)
        self._twins.add(twin)
        twin.add_done_callback(self._twins.discard)

    async def _again(self, request: Request, served: Served) -> None:
        """The second life of a call that was answered."""
        twin = replace(served)
        with self._logged(twin):
            twin.answered(await self._guarded(request, None, twin, None))


class _Logged:
    """The time that a call takes, in the log."""

    def __init__(self, log: Log, served: Served) -> None:
        self._log = log
        self._served = served

    def __enter__(self) -> None:
        self._served.at, self._begun = self._log.now(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._served.milliseconds = (time.perf_counter() - self._begun) * 1000
        self._log.add(self._served)


class _Struck:
    """A call that a fault strikes; implements `simulator.api.suffering.Sufferer`."""

    def __init__(self, application: Application, request: Request, http: HttpRequest | None, served: Served) -> None:
        self._application = application
        self._request = request
        self._http = http
        self._served = served

    async def carry_out(self) -> Reply:
        return await self._application._calls.carry_out(self._request, self._http)

    def carry_out_aside(self) -> None:
        self._application._aside(self._application._again(self._request, self._served))

    async def hold(self, until: asyncio.Future[Reply | None]) -> Reply | None:
        return await self._application._calls.wait(until, self._http)


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


def _token(http: HttpRequest) -> str | None:
    header = http.headers.get("authorization", "")
    if header.startswith("Storpool v1:"):  # as clients send it
        return header[len(_SCHEME) :].strip() or None
    return header[len(_SCHEME) :].strip() or None if header.lower().startswith(_SCHEME) else None


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
        self.scope["state"]["close"] = self.transport.close
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
