"""HTTP around a service that does what the test says: everything a client or a stray program may send is answered."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest
import requests

from simulator.api.metrics import Metrics
from simulator.api.server import Application, Limits, Server
from simulator.ports import Reply, Request

OK = Reply(200, b'{"generation":1,"data":{"ok":true}}')
HUGE = Reply(200, b" " * (64 << 20))
SECONDS = 10.0
LIMITS = Limits(body=5000, head=4000, body_seconds=0.3, head_seconds=0.3, call_seconds=0.3, send_seconds=0.3, waiting=3)


@dataclass
class FakeService:
    """Answers at once, unless the path says `wait` or `fail`."""

    requests: list[Request] = field(default_factory=list)
    replies: dict[int, Callable[[Reply], None]] = field(default_factory=dict)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    cancelled: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    ticks: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    delay: float | None = None

    def object_keys(self) -> dict[str, int]:
        return {}

    def submit(self, request: Request, reply: Callable[[Reply], None]) -> int:
        self.requests.append(request)
        number = len(self.requests)
        if "fail" in request.path:
            raise ZeroDivisionError(f"with the token {request.token}")
        if "wait" in request.path:
            self.replies[number] = reply
        else:
            reply(HUGE if "huge" in request.path else OK)
        self.arrived.release()
        return number

    def cancel(self, number: int) -> None:
        del self.replies[number]
        self.cancelled.release()

    def tick(self) -> float | None:
        self.ticks.release()
        return self.delay

    def due_in(self) -> float | None:
        return self.delay

    def close(self) -> None: ...


@dataclass
class Running:
    service: FakeService
    application: Application
    server: Server
    loop: asyncio.AbstractEventLoop
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def on_loop(self, call: Callable[[], None]) -> None:
        self.loop.call_soon_threadsafe(call)

    def stop(self) -> None:
        self.application.stop()
        self.server.should_exit = True

    @contextmanager
    def connected(self, data: bytes) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as connection:
            connection.sendall(data)
            yield connection

    def raw(self, data: bytes) -> tuple[int, bytes, bytes]:
        """(status, head, body) of the answer to these bytes, which must end with the connection's end."""
        with self.connected(data) as connection:
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), head.lower(), body


@contextmanager
def running(service: FakeService, limits: Limits = LIMITS) -> Iterator[Running]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    application = Application(service, limits)
    application.watcher = Metrics(lambda: {"VolumeCreate": 2}, lambda: application.waiting, lambda: 0, lambda: 4)
    ready = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    server = Server(application, limits, ready.set)

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        ticker = asyncio.create_task(application.tick())
        await server.serve(sockets=[listener])
        ticker.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(SECONDS)
    made = Running(service, application, server, loops[0], listener.getsockname()[1])
    try:
        yield made
    finally:
        if thread.is_alive():
            made.on_loop(made.stop)
        thread.join(SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def served() -> Iterator[Running]:
    with running(FakeService()) as made:
        yield made


def error_of(body: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(body)["error"]
    return error


def http(request_line: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{request_line} HTTP/1.1", "Host: x", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/ctrl/1.0/Volume/~a.b.1", "/ctrl/1.0/Volume/~a.b.1"),
        ("/ctrl/1.0/Volume/%7ea%2eb.1", "/ctrl/1.0/Volume/~a.b.1"),
        ("/ctrl/1.0/Volume/%23name", "/ctrl/1.0/Volume/#name"),
        ("/ctrl/1.0/SnapshotDelete/*n:1@2", "/ctrl/1.0/SnapshotDelete/*n:1@2"),
        ("/ctrl/1.0/KV/Get/b/k%2Fl", "/ctrl/1.0/KV/Get/b/k/l"),
        ("http://elsewhere/ctrl/1.0/VolumesList", "/ctrl/1.0/VolumesList"),
        ("/ctrl/1.0/Volume/%ff", "/ctrl/1.0/Volume/\ufffd"),
        ("//", "//"),
    ],
)
def test_paths_arrive_percent_decoded(served: Running, target: str, path: str) -> None:
    status, _, body = served.raw(http(f"GET {target}"))
    assert (status, body) == (200, OK.body)
    assert served.service.requests[0].path == path


@pytest.mark.parametrize(
    "header",
    [
        "X-None: 1",
        "Content-Type: application/json",
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: ;;",
    ],
)
def test_the_body_is_the_json_whatever_its_content_type(served: Running, header: str) -> None:
    body = '{"name": "a=b&c", "tags": {"ä": "%41+"}}'.encode()
    status, head, _ = served.raw(http("POST /ctrl/1.0/VolumeCreate", header, f"Content-Length: {len(body)}", body=body))
    assert status == 200 and b"content-type: application/json" in head and b"cache-control: private" in head
    assert served.service.requests[0].body == body


def test_a_get_carries_its_json_in_the_query_and_its_body_is_not_looked_at(served: Running) -> None:
    text = '{"controllerIds": [42], "x": "ä+&=%"}'
    query = f"GET /ctrl/1.0/X?a=b&json={quote(text, safe='')}"
    assert served.raw(http(query, "Content-Length: 4", body=b"body"))[0] == 200
    assert served.raw(http("GET /ctrl/1.0/X?json="))[0] == 200
    assert [request.body for request in served.service.requests] == [text.encode(), b""]


@pytest.mark.parametrize("query", ["json=1&json=2", "json=%ff", "&".join("a=1" for _ in range(200))])
def test_a_query_that_cannot_be_read_is_refused(served: Running, query: str) -> None:
    status, _, body = served.raw(http(f"GET /ctrl/1.0/X?{query}"))
    assert (status, error_of(body)["name"]) == (400, "invalidParam")
    assert served.service.requests == []


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Authorization: Storpool v1:123", "123"),
        ("authorization: StorPool v1: 123 ", "123"),
        ("Authorization: Storpool v1:", None),
        ("Authorization: Storpool v2:123", None),
        ("Authorization: Basic MTIz", None),
        ("X: y", None),
    ],
)
def test_the_token_is_taken_from_its_header_and_nowhere_else(served: Running, header: str, token: str | None) -> None:
    served.raw(http("GET /ctrl/1.0/VolumesList", header))
    assert served.service.requests[0].token == token


@pytest.mark.parametrize("verb", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_verbs_are_405_in_json(served: Running, verb: str) -> None:
    status, head, body = served.raw(http(f"{verb} /ctrl/1.0/VolumesList"))
    assert status == 405 and b"allow: get, post" in head
    assert verb in error_of(body)["descr"] and served.service.requests == []


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"hello\r\n\r\n",
        b"GET /ctrl/1.0/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 5000,
        b"GET /x HTTP/1.1\r\n" + b"X: y\r\n" * 1000,
    ],
    ids=["TLS", "no HTTP", "bytes in the path", "no length", "two lengths", "endless path", "endless headers"],
)
def test_what_is_no_request_gets_400_in_json_and_the_next_one_is_served(served: Running, data: bytes) -> None:
    status, _, body = served.raw(data)
    assert (status, error_of(body)["name"]) == (400, "invalidParam")
    assert served.service.requests == []
    assert served.raw(http("GET /ctrl/1.0/VolumesList"))[0] == 200


def test_a_body_over_the_limit_is_413_announced_or_not(served: Running) -> None:
    status, head, body = served.raw(http("POST /x", "Content-Length: 5001"))
    assert status == 413 and "5000" in error_of(body)["descr"] and b"connection: close" in head
    chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
    status, _, body = served.raw(http("POST /x", "Transfer-Encoding: chunked", body=chunk * 6 + b"0\r\n\r\n"))
    assert status == 413 and "5000" in error_of(body)["descr"]
    assert served.service.requests == []
    exact = b"x" * 5000
    assert served.raw(http("POST /x", "Content-Length: 5000", body=exact))[0] == 200
    assert served.service.requests[0].body == exact


def test_a_body_that_does_not_come_is_408_and_headers_that_do_not_come_end_the_connection(served: Running) -> None:
    status, _, body = served.raw(http("POST /x", "Content-Length: 10", body=b"half"))
    assert status == 408 and error_of(body)["transient"] is True
    with served.connected(b"GET /x HTT") as connection:
        assert connection.recv(100) == b""
    assert served.service.requests == []


def test_a_client_that_leaves_in_the_middle_of_its_body_is_forgotten(served: Running) -> None:
    with served.connected(http("POST /x", "Content-Length: 10", body=b"half")):
        pass
    assert served.raw(http("GET /x"))[0] == 200
    assert len(served.service.requests) == 1


def test_a_defect_of_the_service_is_500_in_json_without_its_text(
    served: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, body = served.raw(http("GET /fail", "Authorization: Storpool v1:s3cret"))
    assert (status, error_of(body)["name"]) == (500, "internalError")
    assert b"s3cret" not in body
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_a_call_that_waits_keeps_nobody_else_waiting_and_is_answered_later() -> None:
    with running(FakeService(), Limits()) as served, served.connected(http("GET /wait")) as connection:
        assert served.service.arrived.acquire(timeout=SECONDS)
        assert served.raw(http("GET /now"))[0] == 200
        served.on_loop(lambda: served.service.replies[1](OK))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.endswith(OK.body)


def test_a_client_that_leaves_cancels_its_call() -> None:
    with running(FakeService(), Limits()) as served:
        with served.connected(http("GET /wait")):
            assert served.service.arrived.acquire(timeout=SECONDS)
        assert served.service.cancelled.acquire(timeout=SECONDS)
        assert served.service.replies == {}


def test_a_client_that_does_not_read_its_answer_is_dropped(served: Running) -> None:
    with served.connected(http("GET /huge")):
        assert served.service.arrived.acquire(timeout=SECONDS)
        deadline = time.monotonic() + SECONDS
        while served.server.server_state.connections:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert len(served.raw(http("GET /huge"))[2]) == len(HUGE.body)


def test_a_call_that_waits_too_long_is_504_and_cancelled(served: Running) -> None:
    status, _, body = served.raw(http("GET /wait"))
    assert (status, error_of(body)["name"]) == (504, "timeout")
    assert served.service.cancelled.acquire(timeout=SECONDS)


def test_more_waiting_calls_than_the_limit_are_refused_as_transient() -> None:
    with running(FakeService(), Limits(waiting=2)) as served:
        with served.connected(http("GET /wait")), served.connected(http("GET /wait")):
            assert all(served.service.arrived.acquire(timeout=SECONDS) for _ in range(2))
            status, _, body = served.raw(http("GET /now"))
            assert status == 503 and error_of(body)["transient"] is True
        assert all(served.service.cancelled.acquire(timeout=SECONDS) for _ in range(2))
        assert served.raw(http("GET /now"))[0] == 200


def test_stopping_answers_everyone_who_waits() -> None:
    with running(FakeService(), Limits()) as served, served.connected(http("GET /wait")) as connection:
        assert served.service.arrived.acquire(timeout=SECONDS)
        served.on_loop(served.stop)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 503") and b'"transient":true' in answer


def test_one_connection_serves_many_requests_and_pipelined_ones_in_order(served: Running) -> None:
    with requests.Session() as session:
        session.trust_env = False
        for number in range(3):
            assert session.get(f"{served.url}/n{number}", timeout=SECONDS).json()["data"] == {"ok": True}
    first, last = b"GET /p1 HTTP/1.1\r\nHost: x\r\n\r\n", http("GET /p2")
    with served.connected(first + last) as connection:
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.count(OK.body) == 2
    assert [request.path for request in served.service.requests] == ["/n0", "/n1", "/n2", "/p1", "/p2"]


def test_http_1_0_without_keep_alive_is_served_and_closed(served: Running) -> None:
    assert served.raw(b"GET /old HTTP/1.0\r\n\r\n")[0] == 200


def test_time_passes_as_the_service_asks_and_when_a_call_brings_that_nearer() -> None:
    service = FakeService(delay=0.01)
    with running(service, Limits()) as served:
        assert all(service.ticks.acquire(timeout=SECONDS) for _ in range(5))
        service.delay = None
        while service.ticks.acquire(timeout=0.2):
            pass
        served.raw(http("GET /now"))
        assert not service.ticks.acquire(timeout=0.2), "nothing is due"
        service.delay = 0.0
        served.raw(http("GET /now"))
        assert service.ticks.acquire(timeout=SECONDS)


def test_metrics_count_calls_answers_errors_and_devices(served: Running) -> None:
    served.raw(http("GET /now"))
    served.raw(http("PUT /now"))
    answer = requests.get(f"{served.url}/metrics", timeout=SECONDS)
    assert answer.headers["content-type"].startswith("text/plain")
    lines = set(answer.text.splitlines())
    assert {
        'splab_calls_total{call="VolumeCreate"} 2.0',
        'splab_answers_total{status="200"} 1.0',
        'splab_answers_total{status="405"} 1.0',
        'splab_errors_total{name="unknownCall"} 1.0',
        "splab_calls_waiting 0.0",
        "splab_effects_in_flight 0.0",
        "splab_loop_devices 4.0",
    } <= lines
