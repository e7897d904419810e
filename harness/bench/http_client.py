"""A client that costs next to nothing, in a process of its own: `python -m harness.bench.http_client PORT CONNECTIONS
SECONDS`, the request on standard input.

It speaks only as much HTTP/1.1 as uvicorn answers: keep-alive, `content-length`. One line of JSON comes out.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import msgspec

_CHUNK = 1 << 20
_LENGTH = b"content-length: "
PATIENCE = 60.0
"""Seconds for an answer, and beyond the measured ones for the whole."""


class Drove(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of the client counted."""

    answers: int
    seconds: float
    bytes: int
    """Of the last answer, its head included."""

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds


class BadAnswer(Exception):
    """The server answered anything but 200, or hung up."""


class Connection:
    """One call at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = 0
        """Bytes of the answer that have not come yet."""
        self.bytes = 0
        self._head = 0

    def ask(self, request: bytes) -> bytes:
        """The body of the answer."""
        self.socket.sendall(request)
        parts = []
        while True:
            part = self.socket.recv(_CHUNK)
            parts.append(part)
            if self.take(part):
                return b"".join(parts)[self._head :]

    def take(self, part: bytes) -> bool:
        """Count what has come; whether the answer is whole."""
        if not self._left:
            self._begin(part)
        self._left -= len(part)
        return not self._left

    def _begin(self, part: bytes) -> None:
        at = part.find(_LENGTH) + len(_LENGTH)
        self._head = part.find(b"\r\n\r\n") + 4
        if not part or at < len(_LENGTH) or self._head < 4:
            raise BadAnswer(part[:1000].decode(errors="replace") or "the server hung up")
        self.bytes = self._left = self._head + int(part[at : part.find(b"\r", at)])
        if not part.startswith(b"HTTP/1.1 200 "):
            while len(part) < min(self._left, 1000) and (more := self.socket.recv(_CHUNK)):
                part += more
            raise BadAnswer(part[:1000].decode(errors="replace"))


def drive(port: int, request: bytes, connections: int, seconds: float) -> Drove:
    """Ask on each connection again as soon as its answer is whole, until the time is over."""
    with ExitStack() as stack:
        opened = [Connection(port) for _ in range(connections)]
        for each in opened:
            stack.enter_context(each.socket)
        return _drive(opened, request, seconds)


def _drive(opened: list[Connection], request: bytes, seconds: float) -> Drove:
    known = {each.socket.fileno(): each for each in opened}
    with select.epoll() as poll:
        for number in known:
            poll.register(number, select.EPOLLIN)
        answers = 0
        began = time.monotonic()
        until = began + seconds
        for each in opened:
            each.socket.sendall(request)
        waiting = len(opened)
        while waiting:
            ready = poll.poll(PATIENCE)
            if not ready:
                raise BadAnswer(f"no answer in {PATIENCE:g} s")
            for number, _ in ready:
                each = known[number]
                if not each.take(each.socket.recv(_CHUNK)):
                    continue
                answers += 1
                if time.monotonic() < until:
                    each.socket.sendall(request)
                else:
                    waiting -= 1
        return Drove(answers=answers, seconds=time.monotonic() - began, bytes=opened[0].bytes)


def apart(port: int, request: bytes, connections: int, seconds: float) -> Drove:
    """`drive` in a process of its own. Raises `BadAnswer`."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(port), str(connections), str(seconds)],
        input=request,
        capture_output=True,
        timeout=2 * PATIENCE + seconds,
        check=False,
    )
    if done.returncode:
        raise BadAnswer(done.stderr.decode(errors="replace").strip())
    return msgspec.json.decode(done.stdout, type=Drove)


def main() -> None:
    port, connections, seconds = sys.argv[1:]
    try:
        drove = drive(int(port), sys.stdin.buffer.read(), int(connections), float(seconds))
    except (BadAnswer, OSError) as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(msgspec.json.encode(drove) + b"\n")


if __name__ == "__main__":
    main()
