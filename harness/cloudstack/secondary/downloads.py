"""Files that were published, over HTTP: GET and HEAD of `/userdata/TOKEN.qcow2`. Nothing else is served or listed.

A token is all that a client needs, as in CloudStack, so none is logged.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import stat
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

from harness.cloudstack.secondary.config import SecondaryConfig
from harness.spi.commands import USERDATA
from harness.spi.errors import InvalidParameter, Unavailable
from harness.spi.runtime import Runtime, Task

_log = logging.getLogger("harness.cloudstack.secondary")

STALL_SECONDS = 60.0
"""How long a client may take nothing."""
CHUNK = 1 << 20
_TOKEN = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PATH = re.compile(rf"/{USERDATA}/({_TOKEN}\.qcow2)")


def check_token(token: str) -> None:
    """Raises `InvalidParameter` for what is no uuid: it becomes the name of a file."""
    if not re.fullmatch(_TOKEN, token):
        raise InvalidParameter("the token of a download must be a uuid")


class Downloads:
    """Listens from construction on."""

    def __init__(self, runtime: Runtime, config: SecondaryConfig, listen: str) -> None:
        self._runtime = runtime
        self._http = _Server(listen, Path(config.export_directory).resolve() / USERDATA, config.max_downloads, runtime)
        host, port = self._http.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        self.url = (config.downloads_url or f"http://{shown}:{port}").rstrip("/")
        """Without a slash at the end."""
        self._task: Task | None = None

    def start(self) -> None:
        """Serve in a task of its own."""
        self._task = self._runtime.spawn("downloads", lambda: self._http.serve_forever(poll_interval=0.2))

    def stop(self) -> None:
        """Take no more clients; downloads that run end with the process."""
        if self._task is not None:
            self._http.shutdown()
            self._task.join(5)
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, listen: str, directory: Path, most: int, runtime: Runtime) -> None:
        self.directory = directory
        self._most = most
        self._open = 0
        self._guard = runtime.lock("downloads")
        host, _, port = listen.rpartition(":")
        if not host or not port.isdigit():
            raise InvalidParameter(f"downloads_listen {listen!r} is not of the form address:port")
        address = host.strip("[]"), int(port)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Download)
        except OSError as error:
            raise Unavailable(f"cannot listen on {listen}: {error.strerror or error}") from error

    def server_bind(self) -> None:
        # Not HTTPServer's: it looks the host's name up, which may take seconds and serves nothing here.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            full = self._open >= self._most
            self._open += not full
        if full:
            _log.warning("download of %s refused: %d are under way", client_address[0], self._most)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._guard:
                self._open -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's signature
        _log.info("download of %s ended early", client_address[0])


class _Download(BaseHTTPRequestHandler):
    timeout = STALL_SECONDS
    server: _Server
    server_version, sys_version = "splab", ""

    def do_GET(self) -> None:
        self._serve(body=True)

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def _serve(self, *, body: bool) -> None:
        found = _PATH.fullmatch(self.path)
        file = None if found is None else _opened(self.server.directory / found[1])
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
            self.end_headers()
            if body:
                shutil.copyfileobj(file, self.wfile, CHUNK)

    def log_message(self, format: str, *args: object) -> None:
        """Lines of the access log hold the token."""


def _opened(path: Path) -> IO[bytes] | None:
    """The file, unless it is missing or no plain file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")
