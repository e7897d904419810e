"""Files that were published, over HTTP: GET and HEAD of `/userdata/TOKEN.qcow2`. Nothing else is served or listed.

A token is all that a client needs, as in CloudStack, so none is logged.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import IO, Any

from harness.agent.http_server import BoundedServer
from harness.cloudstack.secondary.config import SecondaryConfig
from harness.spi.commands import USERDATA
from harness.spi.errors import InvalidParameter
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
        host, port = self._http.bound
        shown = f"[{host}]" if ":" in host else host
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


class _Server(BoundedServer):
    def __init__(self, listen: str, directory: Path, most: int, runtime: Runtime) -> None:
        self.directory = directory
        super().__init__(listen, _Download, most, runtime)

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
