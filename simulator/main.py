"""`splab-simulator`: the composition of service, blocks, journal and HTTP server into one process."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import structlog
import uvloop

from simulator.api.metrics import Metrics
from simulator.api.server import Application, Limits, Server
from simulator.api.workers import Workers
from simulator.blocks.links import client_directories
from simulator.blocks.machine import LoopBlocks
from simulator.blocks.memory import MemoryBlocks
from simulator.blocks.pool import KINDS, describe
from simulator.effects import Inline
from simulator.journal.file import FileJournal
from simulator.journal.memory import MemoryJournal
from simulator.ports import Blocks, BlocksError, Journal, JournalError
from simulator.service import Service
from simulator.settings import Settings
from simulator.statedir import StateInUse, journal_path, locked, remove

_log = structlog.get_logger("simulator")
_THREADS = 8
_DRAIN_SECONDS = 30.0
_LOCK_SECONDS = 10.0
_MEMORY_POOL = 1 << 40
_FIRST_CLIENTS = (1, 2, 3)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Clock:
    """Unix seconds that never step back while the process runs; a test may move them on."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic() + self._offset

    def advance(self, seconds: float) -> None:
        self._offset += seconds


@dataclass(frozen=True, slots=True)
class Options:
    host: str
    port: int
    state: Path | None
    kind: str
    """memory, or loop."""
    pool_kind: str | None
    pool_size: int | None
    token: str
    control: bool
    settings: Settings

    def __repr__(self) -> str:
        return f"Options({self.host}:{self.port}, {self.state}, {self.kind})"


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, for example 127.0.0.1:8081")
    return host, int(port)


def _bytes(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]+)([KMGT]?)(i?B)?", value)
    if found is None or not int(found[1]):
        raise click.BadParameter(f"{value!r} is not a size, for example 20G")
    return int(found[1]) * _UNITS[found[2]]


def read_token(path: Path | None, environment: Mapping[str, str]) -> str:
    """From the file, else from SPLAB_TOKEN. Raises `click.ClickException`; its text never holds the token."""
    if path is None:
        token, source = environment.get("SPLAB_TOKEN"), "SPLAB_TOKEN"
        if token is None:
            raise click.ClickException("no token: set SPLAB_TOKEN, or give --token-file with a file of mode 600")
    else:
        source = str(path)
        try:
            with path.open() as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if mode & 0o077:
                    raise click.ClickException(f"token file {path} has mode {mode:o}, so others may read it: chmod 600")
                token = file.read(4096)
        except (OSError, UnicodeDecodeError) as error:
            raise click.ClickException(f"cannot read token file {path}: {error}") from error
    token = token.strip()
    if not token:
        raise click.ClickException(f"the token in {source} is empty")
    if not re.fullmatch(r"[!-~]{1,256}", token):
        raise click.ClickException(f"the token in {source} has blanks, control or non-ASCII characters, or is too long")
    return token


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--listen",
    callback=_address,
    default="127.0.0.1:81",
    show_default=True,
    metavar="HOST:PORT",
    help="Port 0: any free port.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where all is kept that a stop must not lose.",
)
@click.option(
    "--blocks",
    type=click.Choice(["loop", "memory"]),
    default="loop",
    show_default=True,
    help="memory: no devices, and volumes are empty after each start.",
)
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="File of mode 600 with the API token; else SPLAB_TOKEN."
)
@click.option(
    "--pool", "pool_kind", type=click.Choice(KINDS), help="File system of a new pool; default: the first that works."
)
@click.option("--pool-size", callback=_bytes, metavar="SIZE", help="Of a new pool, for example 20G.")
@click.option("--cluster-id", default=Settings().cluster_id, show_default=True, help="LOCATION.SUBCLUSTER")
@click.option("--loose", is_flag=True, help="Drop unknown request fields instead of refusing them.")
@click.option("--control", is_flag=True, help="Serve the control API under /_sim/.")
@click.option(
    "--destroy", "destroying", is_flag=True, help="Remove everything that the state directory has on this machine."
)
def main(
    listen: tuple[str, int],
    state: Path | None,
    blocks: str,
    token_file: Path | None,
    pool_kind: str | None,
    pool_size: int | None,
    cluster_id: str,
    loose: bool,
    control: bool,
    destroying: bool,
) -> None:
    """A StorPool cluster of one process, with real block devices.

    Prints one line `ready http://HOST:PORT` when it serves; SIGTERM stops it.
    """
    _log_to_stderr()
    if destroying:
        _destroy(state)
        return
    if state is None and blocks == "loop":
        raise click.UsageError("--state DIR is needed for block devices; without them run with --blocks memory")
    if not re.fullmatch(r"[a-z0-9]+\.[a-z0-9]+", cluster_id):
        raise click.UsageError(f"--cluster-id {cluster_id!r} is not LOCATION.SUBCLUSTER in small letters and digits")
    token = read_token(token_file, os.environ)
    os.environ.pop("SPLAB_TOKEN", None)
    settings = Settings(cluster_id=cluster_id, loose=loose)
    options = Options(*listen, state, blocks, pool_kind, pool_size, token, control, settings)
    try:
        sys.exit(run(options))
    except (StateInUse, BlocksError, JournalError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _destroy(state: Path | None) -> None:
    if state is None:
        raise click.UsageError("--destroy needs --state DIR")
    try:
        lines = remove(state, patience=Patience())
    except (StateInUse, BlocksError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for line in lines:
        click.echo(line)


class Patience:
    """Waits a little at each question, and says no when the time is over."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + _LOCK_SECONDS

    def __call__(self) -> bool:
        time.sleep(0.1)
        return time.monotonic() < self._deadline


def _log_to_stderr() -> None:
    """JSON lines; stdout has the one line that says ready."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)


def run(options: Options) -> int:
    """Serve until a signal; the exit status."""
    with ExitStack() as stack:
        listener = stack.enter_context(_bind(options.host, options.port))
        if options.state is not None:
            options.state.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(options.state.resolve()))
        process = _Process(options, listener)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status = runner.run(process.serve())
        if process.stuck:
            sys.stderr.flush()
            os._exit(1)  # an ordinary end would wait for the threads
        return status


def _bind(host: str, port: int) -> socket.socket:
    """Bound but not listening yet: a client that comes too early is refused, not kept waiting."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        family = socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


class _Process:
    """One run of the simulator."""

    def __init__(self, options: Options, listener: socket.socket) -> None:
        self._options = options
        self._listener = listener
        self._status = 0
        self.stuck = False
        """Threads still work on the blocks although it was time to end."""
        self._clock = Clock()

    async def serve(self) -> int:
        options = self._options
        workers = Workers(_THREADS, self._crashed)
        blocks, journal = _durable(options)
        service = Service(
            blocks,
            journal,
            options.settings,
            self._clock.now,
            options.token,
            workers if isinstance(blocks, LoopBlocks) else Inline(),
            control=options.control,
            advance=self._clock.advance,
            later=self._later,
        )
        gc.freeze()
        for line in service.mended:
            _log.info("mended", what=line)
        limits = Limits()
        application = self._application = Application(service, limits)
        application.crashed = self._crashed
        application.watcher = Metrics(
            lambda: service.calls,
            lambda: application.waiting,
            lambda: workers.in_flight,
            blocks.devices if isinstance(blocks, LoopBlocks) else lambda: 0,
        )
        workers.after_each = application.moved
        self._server = Server(application, limits, self._ready)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        ticker = asyncio.create_task(application.tick())
        await self._server.serve(sockets=[self._listener])
        ticker.cancel()
        if not await workers.drain(_DRAIN_SECONDS):
            _log.error("effects did not end", seconds=_DRAIN_SECONDS, in_flight=workers.in_flight)
            self.stuck = True
            return 1
        workers.close()
        service.close()
        return self._status

    def _ready(self) -> None:
        host, port = self._listener.getsockname()[:2]
        click.echo(f"ready http://{f'[{host}]' if ':' in host else host}:{port}")
        sys.stdout.flush()

    def _stop(self) -> None:
        self._application.stop()
        self._server.should_exit = True

    def _later(self, sync: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(self._sync, sync)

    def _sync(self, sync: Callable[[], None]) -> None:
        try:
            sync()
        except Exception as defect:  # the service failed half way; the next start has the journal
            self._crashed(defect)
            return
        self._application.moved()

    def _crashed(self, error: BaseException) -> None:
        """A defect left the state in memory in doubt: end, so that the next start takes the journal's word."""
        _log.error("the simulator failed and stops; start it again", exc_info=error)
        self._status = 1
        self._stop()


def _durable(options: Options) -> tuple[Blocks, Journal]:
    size = options.pool_size or _MEMORY_POOL
    if options.state is None:
        return MemoryBlocks(size), MemoryJournal()
    state = options.state.resolve()
    if options.kind == "memory":
        if describe(state) is not None:
            raise BlocksError(f"{state} holds the volumes of --blocks loop, which --blocks memory would lose")
        return MemoryBlocks(size, forgets=True), FileJournal(journal_path(state))
    blocks = LoopBlocks(state, kind=options.pool_kind, size=options.pool_size)
    journal = FileJournal(journal_path(state))
    if journal.torn is not None:
        _log.warning("torn write", what=journal.torn)
    for client in _FIRST_CLIENTS:
        client_directories(state, client)
    _log.info("pool", kind=blocks.kind, root=str(state))
    return blocks, journal


if __name__ == "__main__":
    main()
