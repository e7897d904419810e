"""Processes of `splab-simulator` over one state directory, for tests that kill many of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from simulator.blocks import loop, pool, throttle
from simulator.inprocess import ApiError

HERE = Path(__file__).parent
TOKEN = "1234567890123456789"
SECONDS = 30.0


class Connection:
    """One client's connection. Whoever dies at the other end makes it raise `OSError` or `HTTPException`."""

    def __init__(self, port: int) -> None:
        self._http = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        self.sent_at = 0.0
        """When the last request was sent, by `time.monotonic`; 0 while one is being sent."""

    def ask(self, verb: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        """Status and JSON."""
        self.sent_at = 0.0
        self._http.request(verb, path, body, {"Authorization": f"Storpool v1:{TOKEN}"})
        self.sent_at = time.monotonic()
        answer = self._http.getresponse()
        return answer.status, json.loads(answer.read())

    def call(self, verb: str, path: str, body: Any = None) -> Any:
        """`data` of the answer. Raises `ApiError`."""
        status, answer = self.ask(verb, f"/ctrl/1.0/{path}", b"" if body is None else json.dumps(body).encode())
        if "error" in answer:
            raise ApiError(status, answer["error"]["name"], answer["error"]["descr"])
        return answer["data"]

    def close(self) -> None:
        self._http.close()


class Running:
    """A simulator that serves."""

    def __init__(self, state: Path, pid: int, port: int) -> None:
        self.state = state
        self.pid = pid
        self.port = port

    def get(self, path: str) -> Any:
        return self._call("GET", path, None)

    def post(self, path: str, body: Any = None) -> Any:
        return self._call("POST", path, body)

    def _call(self, verb: str, path: str, body: Any) -> Any:
        with closing(Connection(self.port)) as connection:
            return connection.call(verb, path, body)

    def root(self) -> Path:
        """The pool, whose mount only this process has."""
        here = Path("/").stat().st_dev
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            if str(entry.readlink()) == "/" and entry.stat().st_dev != here:
                return entry
        raise AssertionError(f"process {self.pid} has no pool open")

    def objects(self) -> set[str]:
        """Names of everything in the pool."""
        return {entry.name for entry in self.root().iterdir()}

    def beginning(self, number: int) -> bytes:
        with (self.root() / str(number) / "data").open("rb") as file:
            return file.read(512)


class Zygote:
    """Makes the processes; see zygote.py."""

    def __init__(self, state: Path, *options: str) -> None:
        self.state = state
        self._options = options
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "zygote.py")],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE.parents[1]), "SPLAB_TOKEN": TOKEN},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._log = state.parent / "output"
        self.pid = 0

    def _line(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def launch(self) -> None:
        """Begin the start of a process."""
        self._log.unlink(missing_ok=True)
        arguments = ["--listen", "127.0.0.1:0", "--state", str(self.state), "--pool", "btrfs", *self._options]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(self._log), *arguments]) + "\n")
        self._process.stdin.flush()
        self.pid = self._line()

    def start(self) -> Running:
        """A process that says that it is ready."""
        self.launch()
        deadline = time.monotonic() + SECONDS
        while True:
            text = self._log.read_text() if self._log.exists() else ""
            ready = re.search(r"^ready http://127\.0\.0\.1:(\d+)$", text, re.MULTILINE)
            if ready:
                return Running(self.state, self.pid, int(ready[1]))
            assert time.monotonic() < deadline and Path(f"/proc/{self.pid}").exists(), text
            time.sleep(0.002)

    def end(self, how: signal.Signals) -> int:
        """Send the signal and wait; the exit status."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, how)
        self.pid = 0
        return self._line()

    def close(self) -> None:
        if self.pid:
            self.end(signal.SIGKILL)
        self._process.communicate(timeout=SECONDS)


@contextmanager
def zygote(state: Path, *options: str) -> Iterator[Zygote]:
    made = Zygote(state, *options)
    try:
        yield made
    finally:
        made.close()


def pool_devices(state: Path) -> list[loop.Status]:
    """Devices of this state's volumes, from the kernel."""
    description = pool.describe(state)
    return [] if description is None else pool.devices(description.id)


def rules(number: int) -> dict[str, int]:
    """What /dev/loopN is held to, by kind of rule."""
    device = f"{throttle.device_id(number)} "
    found = {}
    for kind in throttle.rules(throttle.NONE):
        for line in throttle.rule_file(kind).read_text().splitlines():
            if line.startswith(device):
                found[kind] = int(line.split()[1])
    return found


def eventually(what: str, seen: Callable[[], bool], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.002)
