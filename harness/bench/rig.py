"""Processes that are measured, and what they leave, which is removed whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from harness.bench.http_client import Connection
from harness.bench.measure import BenchError, Missing
from simulator.blocks import loop
from simulator.blocks.destroy import destroy
from simulator.blocks.stores import program
from simulator.statedir import remove

TOKEN = "1234567890123456789"
MIB = 1 << 20
_PATIENCE = 60.0
_IDLE_SECONDS = 2.0
BASE = "/ctrl/1.0/"


def require_devices() -> None:
    """Raises `Missing` where pools of btrfs behind loop devices cannot be made."""
    lacking = loop.missing()
    if lacking is not None:
        raise Missing(lacking)
    if program("mkfs.btrfs") is None:
        raise Missing("mkfs.btrfs (apt install btrfs-progs)")
    if "\tbtrfs\n" not in Path("/proc/filesystems").read_text():
        raise Missing("btrfs in the kernel (modprobe btrfs)")


class Server:
    """A process that printed `ready http://HOST:PORT`."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def resident(self) -> int:
        """Bytes of memory that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


class Simulator(Server):
    """With a connection of its own, which the server drops after some idle seconds."""

    _connection: Connection | None = None
    _used = 0.0

    def call(self, verb: str, path: str, json: object = None) -> bytes:
        """The body of the answer. Raises `BadAnswer` when it is an error."""
        return self.raw(request(verb, path, json))

    def raw(self, asked: bytes) -> bytes:
        """The same of a whole request."""
        now = time.monotonic()
        if self._connection is None or now > self._used + _IDLE_SECONDS:
            self.hang_up()
            self._connection = Connection(self.port)
        self._used = now
        return self._connection.ask(asked)

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.socket.close()

    def data(self, verb: str, path: str, json: object = None) -> Any:
        """JSON."""
        return msgspec.json.decode(self.call(verb, path, json))["data"]


def request(verb: str, path: str, json: object = None) -> bytes:
    """A call of the simulator as bytes of HTTP."""
    body = b"" if json is None else msgspec.json.encode(json)
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{verb} {BASE}{path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Storpool v1:{TOKEN}\r\n{length}\r\n"
    return head.encode() + body


@contextmanager
def _process(
    module: str, *arguments: str, environment: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Ends it in the end, and has it clean up if it can."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict(environment),
    )
    with process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            if not line.startswith("ready "):
                process.kill()
                raise BenchError(f"{module} did not start: {process.stderr.read().strip()[-1000:]}")
            yield process, int(line.rsplit(":", 1)[1])
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def simulator(*arguments: str) -> Iterator[Simulator]:
    with _process("simulator.main", "--listen", "127.0.0.1:0", *arguments, environment={"SPLAB_TOKEN": TOKEN}) as (
        process,
        port,
    ):
        running = Simulator(process, port)
        try:
            yield running
        finally:
            running.hang_up()


@contextmanager
def loop_simulator(state: Path, pool_bytes: int) -> Iterator[Simulator]:
    """With block devices; nothing of it is left on the machine afterwards."""
    try:
        with simulator("--state", str(state), "--pool", "btrfs", "--pool-size", str(pool_bytes)) as running:
            yield running
    finally:
        deadline = time.monotonic() + _PATIENCE
        remove(state, patience=lambda: time.monotonic() < deadline)


@contextmanager
def bare(directory: Path, answer: bytes, record: bytes, *words: str) -> Iterator[Server]:
    """The least server, answering these bytes; see `harness.bench.bare`."""
    directory.mkdir()
    (directory / "answer").write_bytes(answer)
    (directory / "record").write_bytes(record)
    try:
        with _process("harness.bench.bare", str(directory), *words, environment={}) as (process, port):
            yield Server(process, port)
    finally:
        destroy(directory)


def pool_root(running: Simulator, key: int) -> Path:
    """Where the simulator's pool can be seen from here: it is mounted in no directory, only held open."""
    folder = Path(f"/proc/{running.process.pid}/fd")
    for entry in folder.iterdir():
        if (entry / str(key)).exists():
            return entry
    raise BenchError(f"the pool of the simulator with object {key} was not found under {folder}")
