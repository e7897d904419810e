"""A whole simulator behind a real HTTP server of this process, its blocks in memory."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

from simulator.api.server import Application, Limits, Server
from simulator.blocks.memory import MemoryBlocks
from simulator.front import equip
from simulator.inprocess import TOKEN
from simulator.journal.memory import MemoryJournal
from simulator.service import Service
from simulator.settings import Settings

SECONDS = 20.0
"""Patience of every wait."""


@dataclass
class Served:
    application: Application
    server: Server
    loop: asyncio.AbstractEventLoop
    port: int
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, verb: str, path: str, json: Any = None, token: str = TOKEN, seconds: float = SECONDS) -> Any:
        """The response of one call; paths without a leading slash are calls of the API. On a connection of its own."""
        where = f"{self.url}{path}" if path.startswith("/") else f"{self.url}/ctrl/1.0/{path}"
        headers = {"Authorization": f"Storpool v1:{token}", "Connection": "close"}
        return self.session.request(verb, where, json=json, headers=headers, timeout=seconds)

    def create(self, name: str, seconds: float = SECONDS) -> Any:
        return self.ask("POST", "VolumeCreate", {"name": name, "size": 1 << 20}, seconds=seconds)

    def volumes(self) -> set[str]:
        return {volume["name"] for volume in self.ask("GET", "VolumesList").json()["data"]}

    def fault(self, **wanted: Any) -> int:
        """Its id."""
        answer = self.ask("POST", "/_sim/faults", wanted)
        assert answer.status_code == 200, answer.text
        number: int = answer.json()["data"]["id"]
        return number

    def faults(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", "/_sim/faults").json()["data"]["faults"]
        return found

    def log(self, after: int = 0) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", f"/_sim/log?after={after}").json()["data"]["calls"]
        return found

    def stop(self) -> None:
        def end() -> None:
            self.application.stop()
            self.server.should_exit = True

        self.loop.call_soon_threadsafe(end)


def eventually(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, f"not {what} in {SECONDS:g} s"
        time.sleep(0.01)


@contextmanager
def served(*, control: bool = True, settings: Settings | None = None, limits: Limits | None = None) -> Iterator[Served]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    clock = [1_700_000_000.0]

    def advance(seconds: float) -> None:
        clock[0] += seconds

    service = Service(
        MemoryBlocks(1 << 40),
        MemoryJournal(),
        settings or Settings(),
        lambda: clock[0],
        TOKEN,
        control=control,
        advance=advance,
    )
    application = Application(service, limits)
    equip(application, service, TOKEN, control=control, backend=None)
    ready = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    server = Server(application, limits or Limits(), ready.set)

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        ticker = asyncio.create_task(application.tick())
        await server.serve(sockets=[listener])
        ticker.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(SECONDS)
    made = Served(application, server, loops[0], listener.getsockname()[1])
    try:
        yield made
    finally:
        if thread.is_alive():
            made.stop()
        thread.join(SECONDS)
        made.session.close()
        assert not thread.is_alive()
