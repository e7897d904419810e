"""What the HTTP servers of an agent and of the secondary storage role have in common: a thread a connection, so many at
a time and no more."""

from __future__ import annotations

import logging
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.spi.errors import InvalidParameter, Unavailable
from harness.spi.runtime import Runtime

_log = logging.getLogger("harness.agent.http")


class BoundedServer(ThreadingHTTPServer):
    """Listens from construction on. Connections beyond `most` are closed at once; threads end with the process."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, listen: str, handler: type[BaseHTTPRequestHandler], most: int, runtime: Runtime) -> None:
        """Raises `InvalidParameter` for what is no address, `Unavailable` when it cannot be listened on."""
        self._most = most
        self._open = 0
        self._guard = runtime.lock("connections")
        address = _address(listen)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, handler)
        except OSError as error:
            raise Unavailable(f"cannot listen on {listen}: {error.strerror or error}") from error

    @property
    def bound(self) -> tuple[str, int]:
        """Where it listens, with the real port."""
        host, port = self.server_address[:2]
        return str(host), int(port)

    def server_bind(self) -> None:
        # Not HTTPServer's: it looks the host's name up, which may take seconds and serves nothing here.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.bound

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            full = self._open >= self._most
            self._open += not full
        if full:
            _log.warning("connection of %s refused: %d are open", client_address[0], self._most)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._guard:
                self._open -= 1


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise InvalidParameter(f"listen address {listen!r} is not of the form address:port")
    return host, int(port)
