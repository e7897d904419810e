"""A proxy that passes every call on, headers and all, and writes down what the transcript may hold of it."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from msgspec import UNSET, UnsetType

from simulator.transcript.format import Exchange, Header
from simulator.transcript.redact import CUT, Redaction

BASE = "/ctrl/1.0/"
CALL_SECONDS = 1860.0
"""For an answer: a little more than the most patient client known waits (spec storpool-api 1.2)."""
IDLE_SECONDS = 60.0
LONGEST_BODY = 4 << 20
LONGEST_ANSWER = 32 << 20
MOST_AT_ONCE = 64
_PASSED_ON = ("Authorization", "Content-Type")


def target(url: str) -> tuple[str, int]:
    """Host and port of `http://HOST[:PORT]`. Raises `ValueError`."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.username:
        raise ValueError(f"not http://HOST:PORT: {url!r}")
    return parts.hostname, parts.port or 81


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Recorder(ThreadingHTTPServer):
    """Serve with `serve_forever`; `shutdown` and `server_close` end it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        listen: tuple[str, int],
        to: tuple[str, int],
        write: Callable[[Exchange], None],
        header: Header,
        redaction: Redaction,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`write` may raise `OSError`. `now` gives Unix time."""
        self.to = to
        self.left_out = 0
        """Exchanges that were not JSON on both sides."""
        self.failed = ""
        """Why the last exchange that could not be written was not."""
        self.address_family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        self._write = write
        self._started = header.started
        self._redaction = redaction
        self.now = now
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(MOST_AT_ONCE)
        super().__init__(listen, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._free.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of ours, and a traceback could hold a header."""

    def heard(self, verb: str, path: str, body: bytes, token: str, asked: float, status: int, answer: bytes) -> None:
        """`path`: as it was sent. `asked`: Unix time."""
        parts = urlsplit(path)
        call = unquote(parts.path)
        if verb == "GET":
            body = _argument(parts.query)
        json = _json(body) if body.strip() else UNSET
        got = _json(answer)
        if not call.startswith(BASE) or json is None or not isinstance(got, dict) or verb not in ("GET", "POST"):
            self.left_out += 1
            return
        call = call.removeprefix(BASE)
        tokens = (token,) if token else ()
        with self._lock:
            exchange = Exchange(
                at=round(max(0.0, asked - self._started), 6),
                took=round(max(0.0, self.now() - asked), 6),
                verb="GET" if verb == "GET" else "POST",
                path=call.replace(token, CUT) if token else call,
                json=self._redaction.clean(call, json, tokens),
                status=status,
                answer=self._redaction.clean(call, got, tokens),
            )
            try:
                self._write(exchange)
            except OSError as error:  # the client still gets its answer
                self.failed = str(error)


def _json(text: bytes) -> Any | UnsetType:
    """None when it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _argument(query: str) -> bytes:
    """The JSON of a query; something that is none when there is no telling."""
    try:
        given = [value for name, value in parse_qsl(query, max_num_fields=100) if name == "json"]
    except ValueError:
        return b"?"
    return "".join(given).encode()


class _Handler(BaseHTTPRequestHandler):
    server: Recorder
    timeout = IDLE_SECONDS
    error_content_type = "application/json"
    error_message_format = '{"error": {"name": "invalidParam", "descr": "%(message)s"}}'

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def log_message(self, format: str, *args: object) -> None:
        """A request line may hold the JSON of a query."""

    def _pass_on(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > LONGEST_BODY:
            self._reply(413, _error("invalidParam", f"The recorder passes bodies of at most {LONGEST_BODY} bytes on"))
            return
        body = self.rfile.read(int(length))
        asked = self.server.now()
        try:
            status, answer = self._ask(body)
        except (OSError, http.client.HTTPException) as error:
            text = f"The recorder cannot reach the cluster: {type(error).__name__}"
            self._reply(503, _error("unavailable", text, transient=True))
            return
        token = self.headers.get("Authorization", "").rpartition(":")[2].strip()
        self.server.heard(self.command, self.path, body, token, asked, status, answer)
        self._reply(status, answer)

    def _ask(self, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self.server.to, timeout=CALL_SECONDS)
        try:
            headers = {name: self.headers[name] for name in _PASSED_ON if name in self.headers}
            connection.request(self.command, self.path, body if self.command == "POST" else None, headers)
            response = connection.getresponse()
            answer = response.read(LONGEST_ANSWER + 1)
        finally:
            connection.close()
        if len(answer) > LONGEST_ANSWER:
            raise OSError(f"an answer of more than {LONGEST_ANSWER} bytes")
        return response.status, answer

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _error(name: str, descr: str, *, transient: bool = False) -> bytes:
    return msgspec.json.encode({"error": {"name": name, "descr": descr, "transient": transient}})
