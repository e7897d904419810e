"""One process of the simulator: clusters with service, blocks, journal and HTTP server, all on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
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
from simulator.blocks.pool import describe
from simulator.effects import Inline
from simulator.front import equip
from simulator.journal.file import FileJournal
from simulator.journal.memory import MemoryJournal
from simulator.multicluster.elsewhere import Elsewhere, Endpoint
from simulator.multicluster.exchange import Exchange
from simulator.page.access import is_loopback
from simulator.ports import Blocks, BlocksError, Bridges, Journal, Reply
from simulator.service import Service
from simulator.settings import Settings
from simulator.statedir import journal_path, locked

_log = structlog.get_logger("simulator")
_THREADS = 8
_DRAIN_SECONDS = 30.0
_MEMORY_POOL = 1 << 40
_FIRST_CLIENTS = (1, 2, 3)


class Clock:
    """Unix seconds that never step back while the process runs; a test may move them on."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic() + self._offset

    def advance(self, seconds: float) -> None:
        self._offset += seconds


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Of one cluster."""

    host: str
    port: int
    state: Path | None
    token: str = field(repr=False)
    settings: Settings


@dataclass(frozen=True, slots=True)
class Options:
    """Of the process."""

    clusters: tuple[ClusterOptions, ...]
    elsewhere: Mapping[str, Endpoint]
    """Clusters of other processes, by id."""
    kind: str
    """memory, or loop."""
    pool_kind: str | None
    pool_size: int | None
    control: bool
    control_anywhere: bool
    configurations: Mapping[str, str]
    """Of services, by bucket of the key-value store."""


def run(options: Options) -> int:
    """Serve until a signal; the exit status."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(_bind(one.host, one.port)) for one in options.clusters]
        for one, listener in zip(options.clusters, listeners, strict=True):
            if options.control and not options.control_anywhere and not is_loopback(listener.getsockname()[0]):
                text = f"{one.host} can be reached by others, and whoever has the token may do anything there"
                raise click.ClickException(f"--control on {text}: listen on 127.0.0.1, or give --control-anywhere too")
        for one in options.clusters:
            if one.state is not None:
                one.state.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(one.state.resolve()))
        process = _Process(options, listeners)
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
    """One run. Its clusters begin and end together."""

    def __init__(self, options: Options, listeners: list[socket.socket]) -> None:
        self._options = options
        self._listeners = listeners
        self._status = 0
        self._clock = Clock()
        self._network = _Network(self.crashed)
        self._nodes: list[_Node] = []
        self.stuck = False
        """Threads still work on the blocks although it was time to end."""

    async def serve(self) -> int:
        durable = [_durable(self._options, one) for one in self._options.clusters]
        states = {
            one.settings.cluster_id: one.state.resolve() for one in self._options.clusters if one.state is not None
        }
        elsewhere = Elsewhere(self._options.elsewhere, self._network) if self._options.elsewhere else None
        exchange = Exchange(elsewhere) if elsewhere is not None or len(self._options.clusters) > 1 else None
        for one, (blocks, _) in zip(self._options.clusters, durable, strict=True):
            if isinstance(blocks, LoopBlocks):
                own = one.settings.cluster_id
                blocks.neighbours = {other: state for other, state in states.items() if other != own}
        for one, (blocks, journal), listener in zip(self._options.clusters, durable, self._listeners, strict=True):
            cluster = one.settings.cluster_id
            bridges = None if exchange is None else exchange.bridges(cluster)
            node = _Node(self._options, one, blocks, journal, listener, self._clock, bridges, self)
            if exchange is not None:
                exchange.join(cluster, node.service, blocks, one.token)
            self._nodes.append(node)
        gc.freeze()  # what was loaded stays
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        ended = await asyncio.gather(*(node.serve() for node in self._nodes))
        self.stuck = not all(ended)
        return 1 if self.stuck else self._status

    def ready(self) -> None:
        """A line for each cluster, in the order of their names, once all serve."""
        if all(node.serves for node in self._nodes):
            for node in self._nodes:
                click.echo(f"ready {node.url}")
            sys.stdout.flush()

    def advance(self, seconds: float) -> None:
        """Move the clock on, which is that of all its clusters."""
        self._clock.advance(seconds)
        for node in self._nodes:
            node.service.moved()

    def stop(self) -> None:
        for node in self._nodes:
            node.stop()

    def crashed(self, error: BaseException) -> None:
        """A defect left the state in memory in doubt: end, so that the next start takes the journal's word."""
        _log.error("the simulator failed and stops; start it again", exc_info=error)
        self._status = 1
        self.stop()


class _Node:
    """One cluster."""

    def __init__(
        self,
        options: Options,
        cluster: ClusterOptions,
        blocks: Blocks,
        journal: Journal,
        listener: socket.socket,
        clock: Clock,
        bridges: Bridges | None,
        process: _Process,
    ) -> None:
        self._listener = listener
        self._process = process
        self._workers = Workers(_THREADS, process.crashed)
        self.serves = False
        self.service = Service(
            blocks,
            journal,
            cluster.settings,
            clock.now,
            cluster.token,
            self._workers if isinstance(blocks, LoopBlocks) or bridges is not None else Inline(),
            control=options.control,
            advance=process.advance,
            bridges=bridges,
            later=self._later,
            configurations=options.configurations,
        )
        own = cluster.settings.cluster_id
        for line in self.service.mended:
            _log.info("mended", cluster=own, what=line)
        for bucket in self.service.not_imported:
            _log.warning("not imported: the key-value store has another configuration", cluster=own, bucket=bucket)
        limits = Limits()
        self._application = application = Application(self.service, limits)
        application.crashed = process.crashed
        backend = blocks.kind if isinstance(blocks, LoopBlocks) else None
        equip(application, self.service, cluster.token, control=options.control, backend=backend)
        application.watcher = Metrics(
            lambda: self.service.calls,
            lambda: application.waiting,
            lambda: self._workers.in_flight,
            blocks.devices if isinstance(blocks, LoopBlocks) else lambda: 0,
        )
        self._workers.after_each = application.moved
        self.service.moved = application.moved
        self._server = Server(application, limits, self._ready)

    def _later(self, sync: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(self._sync, sync)

    def _sync(self, sync: Callable[[], None]) -> None:
        try:
            sync()
        except Exception as defect:  # the service failed half way; the next start has the journal
            self._process.crashed(defect)
            return
        self._application.moved()

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def serve(self) -> bool:
        """Whether it came to its end; False when work on the blocks did not."""
        ticker = asyncio.create_task(self._application.tick())
        await self._server.serve(sockets=[self._listener])
        ticker.cancel()
        if not await self._workers.drain(_DRAIN_SECONDS):
            _log.error("effects did not end", seconds=_DRAIN_SECONDS, in_flight=self._workers.in_flight)
            return False
        self._workers.close()
        self.service.close()
        return True

    def stop(self) -> None:
        self._application.stop()
        self._server.should_exit = True

    def _ready(self) -> None:
        self.serves = True
        self._process.ready()


class _Network:
    """Implements `simulator.multicluster.elsewhere.Threads`.

    A thread for each call, bounded by the flows under way. A pool would fill with calls that wait for another process,
    which may itself wait for a call to this one. An end of this process does not wait for them.
    """

    def __init__(self, crashed: Callable[[BaseException], None]) -> None:
        self._crashed = crashed

    def start(self, work: Callable[[], Reply], done: Callable[[Reply], None]) -> None:
        loop = asyncio.get_running_loop()

        def finish(reply: Reply) -> None:
            try:
                done(reply)
            except Exception as defect:  # the service failed half way; the next start has the journal
                self._crashed(defect)

        def run() -> None:
            try:
                then = partial(finish, work())
            except Exception as defect:
                then = partial(self._crashed, defect)
            with contextlib.suppress(RuntimeError):  # the loop has ended, and whoever waited with it
                loop.call_soon_threadsafe(then)

        threading.Thread(target=run, name="bridge", daemon=True).start()


def _durable(options: Options, cluster: ClusterOptions) -> tuple[Blocks, Journal]:
    size = options.pool_size or _MEMORY_POOL
    if cluster.state is None:
        return MemoryBlocks(size), MemoryJournal()
    state = cluster.state.resolve()
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
