"""The least that a server of the simulator's kind can do: `python -m harness.bench.bare DIRECTORY [POOL_BYTES]`.

The same starlette and uvicorn with the simulator's settings; one handler that answers bytes it was given. A POST is
answered after a record is on disk: the floor below durable changes.

    DIRECTORY/answer    what is answered
    DIRECTORY/record    what a POST appends to DIRECTORY/journal, and waits for

With POOL_BYTES each POST also makes a subvolume with a file of 1 MiB in a pool under DIRECTORY, which stays.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simulator.blocks.pool import open_pool

_FILE = 1 << 20
"""Bytes, as the volumes have that it is compared with."""


def application(answer: bytes, durable: Callable[[], None]) -> Starlette:
    """Answers every call with the same bytes, a POST when `durable` has returned."""

    async def handle(request: Request) -> Response:
        if request.method == "POST":
            await request.body()
            durable()
        return Response(answer, media_type="application/json")

    return Starlette(routes=[Route("/{path:path}", handle, methods=["GET", "POST"])])


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        [listener] = sockets or []
        print(f"ready http://127.0.0.1:{listener.getsockname()[1]}", flush=True)


def main() -> None:
    directory = Path(sys.argv[1])
    record = (directory / "record").read_bytes()
    journal = os.open(directory / "journal", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = 0
    pool = open_pool(directory, kind="btrfs", size=int(sys.argv[2])) if len(sys.argv) > 2 else None
    keys = count(1)

    def durable() -> None:
        nonlocal end
        end += os.pwrite(journal, record, end)
        os.fdatasync(journal)
        if pool is not None:
            pool.store.create(next(keys), _FILE)

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application((directory / "answer").read_bytes(), durable),
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    _Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
