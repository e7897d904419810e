"""The process of the CloudStack stand-in on real hosts: `python -m harness.worlds.management --config FILE`.

Prints `ready http://HOST:PORT` once it serves; SIGTERM ends it. Logs are JSON lines on standard error; they hold no
key, no token and no pool URL.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from harness.cloudstack import http
from harness.cloudstack.agents.https import HttpsEndpoint
from harness.cloudstack.config import CloudConfig, Seconds
from harness.cloudstack.fences import FenceConfig, make_fence
from harness.cloudstack.records import Records
from harness.cloudstack.server import ManagementServer
from harness.driver import ANSWER_TIME, SETTLE_TIME, StorPoolProvider
from harness.runtime.threads import ThreadRuntime, stop_event
from harness.spi.commands import AnyAnswer, AnyCommand
from harness.spi.driver import DriverRecords, HostEndpoints
from harness.spi.errors import Error, InvalidParameter
from harness.spi.logs import log_to_stderr
from harness.spi.ports import Endpoint
from harness.spi.runtime import Runtime
from harness.storpool import Connection, HttpTransport, LoggedTransport, StorPoolClient

SETTLE_SECONDS = 30.0

_calls = logging.getLogger("harness.worlds.StorPool")
_commands = logging.getLogger("harness.worlds.agents")


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files; the certificate shows this process to be `management`."""

    ca: str
    certificate: str
    key: str


class ManagementConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: str
    """`ip:port`; port 0 takes a free one, which the ready line shows."""
    database: str
    """File of the records; made when it is missing."""
    agents: dict[str, str]
    """`https://ip:port` of every host's agent by the host's name."""
    secondary: str
    """`https://ip:port` of the secondary storage role."""
    tls: Tls
    cloud: CloudConfig
    fences: dict[str, FenceConfig] = {}
    """How hosts are switched off, by name; one without is never fenced."""
    settle_time: Seconds = SETTLE_TIME
    """After which a StorPool request that was never answered is taken to be dead."""
    answer_time: Seconds = ANSWER_TIME
    """After which CloudStack has surely recorded an answer of the driver, or is dead."""


class LoggedEndpoint:
    """Writes every command to an agent and its answer into the log, but for pings."""

    def __init__(self, inner: Endpoint, runtime: Runtime) -> None:
        self._inner = inner
        self._runtime = runtime

    @property
    def name(self) -> str:
        return self._inner.name

    def send(self, command: AnyCommand, *, timeout: float) -> AnyAnswer:
        kind = type(command).__name__
        if kind == "PingCommand":
            return self._inner.send(command, timeout=timeout)
        _commands.info("to %s: %s", self.name, command)
        began = self._runtime.monotonic()
        try:
            answer = self._inner.send(command, timeout=timeout)
        except Error as error:
            _commands.info("from %s: %s: %s", self.name, kind, error)
            raise
        _commands.info("from %s after %.2f s: %s", self.name, self._runtime.monotonic() - began, answer)
        return answer


def load_config(path: Path) -> ManagementConfig:
    """Raises `InvalidParameter` naming the file and the key, and showing no value."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ManagementConfig)
    except OSError as error:
        raise InvalidParameter(f"cannot read {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise InvalidParameter(f"{path}: {error}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 after SIGTERM, 2 when it cannot start; the reason is one line on standard error."""
    parser = argparse.ArgumentParser(description="The CloudStack stand-in of StorPool Lab.")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    log_to_stderr("management")
    try:
        return serve(load_config(options.config))
    except Error as error:
        print(f"management server: {error}", file=sys.stderr)
        return 2


def build(runtime: Runtime, records: Records, config: ManagementConfig) -> ManagementServer:
    """The management server over real transports."""

    def connect(connection: Connection) -> StorPoolClient:
        transport = HttpTransport(connection.endpoints, connection.token, monotonic=runtime.monotonic)
        return StorPoolClient(LoggedTransport(transport, runtime.monotonic, _calls), runtime)

    def provider(driver_records: DriverRecords, endpoints: HostEndpoints) -> StorPoolProvider:
        times = (config.settle_time, config.answer_time)
        return StorPoolProvider(runtime, driver_records, endpoints, connect, *times)

    def endpoint(name: str, url: str) -> Endpoint:
        tls = config.tls
        return LoggedEndpoint(HttpsEndpoint(name, url, tls.ca, tls.certificate, tls.key, new_id=runtime.uuid), runtime)

    agents = {name: endpoint(name, url) for name, url in config.agents.items()}
    secondary = endpoint("secondary", config.secondary)
    fences = {name: make_fence(runtime, fence) for name, fence in config.fences.items()}
    return ManagementServer(runtime, records, provider, agents, secondary, config.cloud, fences)


def serve(config: ManagementConfig) -> int:
    """Serve until SIGTERM or SIGINT; exit status 1 when the API ended by itself or work did not come to an end."""
    listening = _listen(config.listen)
    runtime = ThreadRuntime("management")
    records = Records.open(Path(config.database), runtime)
    server = build(runtime, records, config)
    stopping = stop_event(runtime)
    server.start()
    host, port = listening.getsockname()[:2]
    shell = http.server(server.api, host, port)
    # In a task of its own: in the main thread uvicorn takes the signals, and dies of them before we could stop orderly.
    api = runtime.spawn("api", lambda: shell.run(sockets=[listening]))
    print(f"ready http://{host}:{port}", flush=True)
    asked = False
    while not asked and not api.join(0):
        asked = stopping.wait(1.0)
    shell.should_exit = True
    ended = api.join(SETTLE_SECONDS)
    stopped = server.stop(SETTLE_SECONDS)
    records.close()
    return 0 if asked and ended and stopped else 1


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        return socket.create_server((host, int(port)), backlog=128)
    except (OSError, ValueError) as error:
        raise InvalidParameter(f"cannot listen on {address}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
