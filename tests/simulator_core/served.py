"""A simulator of this process behind the real HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from simulator.api.server import Application, Limits, Server
from simulator.inprocess import InProcess
from simulator.ports import Reply, Request

SECONDS = 20.0


class _Behind:
    """Serves whatever service the simulator has now; a restart builds another. Its clock stands unless moved."""

    def __init__(self, simulator: InProcess) -> None:
        self._simulator = simulator

    def submit(self, request: Request, reply: Callable[[Reply], None]) -> int:
        return self._simulator.service.submit(request, reply)

    def cancel(self, number: int) -> None:
        self._simulator.service.cancel(number)

    def tick(self) -> float | None:
        return self._simulator.service.tick()

    def object_keys(self) -> dict[str, int]:
        return dict(self._simulator.service.object_keys())

    def due_in(self) -> float | None:
        return self._simulator.service.due_in()

    def close(self) -> None: ...


@contextlib.contextmanager
def served(simulator: InProcess) -> Iterator[str]:
    """HOST:PORT. Only the server may call the simulator meanwhile."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    limits = Limits()
    application = Application(_Behind(simulator), limits)
    ready = threading.Event()
    server = Server(application, limits, ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        assert ready.wait(SECONDS)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()
