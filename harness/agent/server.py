"""Commands over HTTPS with mutual TLS: one `POST /command` a command, its JSON answer as the reply.

Knows nothing of what a command does, so that an agent and the secondary storage role share it. A client must show a
certificate of the CA that names `management`. HTTP status: 200 an answer; 400, 403, 404, 411, 413, 415 refused before
anything was done; 503 not begun, come again; 500 failed inside, outcome unknown.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

import msgspec

from harness.agent.config import TlsFiles
from harness.agent.http_server import BoundedServer
from harness.agent.inflight import Failed, Handler, InFlight, TooBusy
from harness.spi.commands import AnyCommand
from harness.spi.errors import InvalidParameter
from harness.spi.runtime import Runtime, Task

_log = logging.getLogger("harness.agent.server")

CLIENT_NAME = "management"
"""Common name, or DNS name, that a client's certificate must have."""
COMMAND_ID = "X-Command-Id"
"""Header with an id of the sender's making: a command sent again under it is carried out once."""
BODY_LIMIT = 1024 * 1024
ID_LIMIT = 128
READ_SECONDS = 30.0
"""How long a client may stall in handshake, header or body."""
LINGER_SECONDS = 3.0
LINGER_READS = 64
TWIN_SECONDS = 30.0
"""How much longer than its command may take a twin waits for the answer: locks and clean-up take time too."""

_decoder = msgspec.json.Decoder(AnyCommand)


class CommandServer:
    """Listens from construction on; `address` shows the real port. At most `max_commands` run at a time."""

    def __init__(self, runtime: Runtime, handler: Handler, listen: str, tls: TlsFiles, max_commands: int = 32) -> None:
        self._runtime = runtime
        self._in_flight = InFlight(runtime, handler, max_commands)
        # Twins and clients that are turned away need a connection too.
        self._http = _HttpServer(listen, _context(tls), self._in_flight, 4 * max_commands, runtime)
        self._task: Task | None = None

    @property
    def address(self) -> tuple[str, int]:
        return self._http.bound

    def start(self) -> None:
        """Serve in a task of its own."""
        self._task = self._runtime.spawn("command-server", lambda: self._http.serve_forever(poll_interval=0.2))

    def stop(self, timeout: float) -> bool:
        """Take no more commands, wait for those that run; whether all ended within `timeout` seconds."""
        ended = self._in_flight.drain(timeout)
        if self._task is not None:
            self._http.shutdown()
            self._task.join(5)
        self._http.server_close()
        return ended


class _HttpServer(BoundedServer):
    def __init__(
        self, listen: str, context: ssl.SSLContext, in_flight: InFlight, max_connections: int, runtime: Runtime
    ) -> None:
        self.context = context
        self.in_flight = in_flight
        super().__init__(listen, _Exchange, max_connections, runtime)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: the handshake, then the one request."""
        request.settimeout(READ_SECONDS)
        secured = self.context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        try:
            try:
                secured.do_handshake()
                super().finish_request(secured, client_address)
            except OSError as error:  # TLS errors are OSErrors
                _log.warning("connection of %s ended: %s", client_address[0], error)
            _linger(secured)
        finally:
            secured.close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the contract's signature
        _log.exception("connection of %s failed", client_address[0])


class _Refusal(Exception):
    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Exchange(BaseHTTPRequestHandler):
    server: _HttpServer
    protocol_version = "HTTP/1.1"
    server_version = "splab-agent"
    sys_version = ""
    timeout = READ_SECONDS

    def do_POST(self) -> None:
        try:
            status, body = HTTPStatus.OK, self._answer()
        except _Refusal as refusal:
            status, body = refusal.status, msgspec.json.encode({"error": str(refusal)})
            _log.warning("%s refused: %d %s", self.client_address[0], status, refusal)
        self._reply(status, body)

    def do_GET(self) -> None:
        self._reply(HTTPStatus.NOT_FOUND, msgspec.json.encode({"error": "only POST /command is served"}))

    def _answer(self) -> bytes:
        if self.path != "/command":
            raise _Refusal(HTTPStatus.NOT_FOUND, "only POST /command is served")
        names = certificate_names(self.connection.getpeercert())
        if CLIENT_NAME not in names:
            raise _Refusal(HTTPStatus.FORBIDDEN, f"the client's certificate is for {names}, not for {CLIENT_NAME!r}")
        command_id = self.headers.get(COMMAND_ID)
        if command_id is not None and not (0 < len(command_id) <= ID_LIMIT and command_id.isprintable()):
            raise _Refusal(HTTPStatus.BAD_REQUEST, f"{COMMAND_ID} must be 1 to {ID_LIMIT} printable characters")
        command = self._command()
        try:
            return msgspec.json.encode(
                self.server.in_flight.run(command_id, command, patience=command.wait + TWIN_SECONDS)
            )
        except TooBusy as error:
            raise _Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        except ValueError as error:
            raise _Refusal(HTTPStatus.BAD_REQUEST, str(error)) from error
        except Failed as error:
            _log.exception("a command failed inside")
            raise _Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, f"{error}; see the log of this agent") from error

    def _command(self) -> AnyCommand:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise _Refusal(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing or is not a number")
        if len(length) > 12 or int(length) > BODY_LIMIT:
            raise _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a command has at most {BODY_LIMIT} bytes")
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            raise _Refusal(HTTPStatus.BAD_REQUEST, "the body is shorter than Content-Length says")
        try:
            command: AnyCommand = _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _Refusal(HTTPStatus.BAD_REQUEST, f"the body is not a command: {error}") from error
        return command

    def _reply(self, status: HTTPStatus, body: bytes) -> None:
        # One command a connection: a connection kept alive could break just when the next command is on its way.
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        _log.debug("%s " + format, self.client_address[0], *args)


def _linger(secured: ssl.SSLSocket) -> None:
    """Let the client read what was sent last: closing with its bytes unread would reset the connection instead."""
    try:
        secured.settimeout(LINGER_SECONDS)
        secured.shutdown(socket.SHUT_WR)
        for _ in range(LINGER_READS):
            if not secured.recv(65536):
                return
    except OSError:
        return


def certificate_names(certificate: Mapping[str, Any] | None) -> list[str]:
    """Common names and DNS names of a peer's certificate, as `ssl` gives it."""
    shown = certificate or {}
    common = [value for part in shown.get("subject", ()) for key, value in part if key == "commonName"]
    return common + [value for kind, value in shown.get("subjectAltName", ()) if kind == "DNS"]


def _context(tls: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(tls.ca)
        context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:
        raise InvalidParameter(
            f"TLS files {tls.ca}, {tls.certificate} and {tls.key} cannot be used: {error}"
        ) from error
    return context
