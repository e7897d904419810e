"""Puts agents on hosts over SSH, starts them, and stops them again: any lab's, local or not."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import harness
from lab.errors import LabError
from lab.file import Ssh
from lab.ssh import SshHost

ROOMS = ("agent", "storpool", "spi")
"""Production rooms that an agent needs beside `runtime/threads.py`."""
READY_SECONDS = 40.0
STOP_SECONDS = 15
_START = """umask 077
cd "$0" || exit 1
rm -f agent.out agent.pid
PYTHONPATH="$0/code" setsid "$@" >agent.out 2>>agent.log </dev/null &
echo $! >agent.pid"""
_STOP = """cd "$0" 2>/dev/null || exit 0
pid=$(cat agent.pid 2>/dev/null) || exit 0
grep -qzF "$0/agent.json" "/proc/$pid/cmdline" 2>/dev/null || exit 0
kill -TERM "$pid"
for i in $(seq 10 $1); do [ -d "/proc/$pid" ] || exit 0; sleep 0.1; done
kill -KILL "$pid" 2>/dev/null; true"""
_KILL = """cd "$0" && pid=$(cat agent.pid) && grep -qzF "$0/agent.json" "/proc/$pid/cmdline" || exit 1
kill -KILL "$pid" || exit 1
for i in $(seq 200); do [ -d "/proc/$pid" ] || exit 0; sleep 0.05; done
exit 2"""
_STATE = """cd "$0" || exit 1
cat agent.out 2>/dev/null
[ -d "/proc/$(cat agent.pid)" ] || { echo ENDED; tail -c 1500 agent.log; }"""


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """One agent, or the secondary storage role, on a machine reached over SSH."""

    name: str
    ssh: Ssh
    directory: Path
    python: Path
    module: str
    config: Mapping[str, object]
    rooms: tuple[str, ...] = ROOMS
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Further files below `directory`, which only root reads."""

    @property
    def _host(self) -> SshHost:
        return SshHost(self.ssh)

    def put(self, tls: Path) -> None:
        """Copy code, certificates and configuration there, over what an earlier run left; key files only root reads."""
        directory = str(self.directory)
        prepare = (
            'umask 077; mkdir -p "$0/consoles" && rm -rf "$0/code" "$0/tls" "$0/storpool.conf.d" && tar -x -m -C "$0"'
        )
        self._host.run(["sh", "-c", prepare, directory], stdin=self._bundle(tls), timeout=120)

    def start(self) -> None:
        """Start it detached; returns once it says that it is ready. Raises `LabError` with the end of its log."""
        self.stop()
        config = str(self.directory / "agent.json")
        command = [str(self.python), "-m", self.module, "--config", config]
        self._host.run(["sh", "-c", _START, str(self.directory), *command])
        deadline = time.monotonic() + READY_SECONDS
        while True:
            said = self._host.run(["sh", "-c", _STATE, str(self.directory)]).text
            if "ENDED" in said:
                raise LabError(f"the agent of {self.name} ended as it started: {said}")
            if said.startswith("ready "):
                return
            if time.monotonic() > deadline:
                raise LabError(f"the agent of {self.name} was not ready within {READY_SECONDS:g} s: {said}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End it, politely first; nothing when it does not run. Only a process with our configuration is ended."""
        script = ["sh", "-c", _STOP, str(self.directory), str(STOP_SECONDS * 10)]
        self._host.run(script, timeout=STOP_SECONDS + 30)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone. Raises `LabError` when it does not run."""
        self._host.run(["sh", "-c", _KILL, str(self.directory)])

    def log(self, since: int) -> tuple[int, str]:
        """What it logged after byte `since`, and where the log ends now."""
        path = str(self.directory / "agent.log")
        data = self._host.run(["sh", "-c", 'tail -c "+$1" "$0" 2>/dev/null; true', path, str(since + 1)]).stdout
        return since + len(data), data.decode(errors="replace")

    def _bundle(self, tls: Path) -> bytes:
        """A tar with nothing but production rooms, so that the host needs no lab."""
        root = Path(harness.__file__).parent
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path in sorted(_files(root, self.rooms)):
                tar.add(path, f"code/harness/{path.relative_to(root)}", recursive=False)
            for source, target in ((f"{self.name}.pem", "certificate.pem"), ("ca.pem", "ca.pem")):
                _add(tar, f"tls/{target}", (tls / source).read_bytes(), 0o644)
            _add(tar, "tls/key.pem", (tls / f"{self.name}.key").read_bytes(), 0o600)
            for name, data in self.files.items():
                _add(tar, name, data, 0o600)
            _add(tar, "agent.json", json.dumps(dict(self.config), indent=1).encode(), 0o600)
        return buffer.getvalue()


def _files(root: Path, rooms: tuple[str, ...]) -> list[Path]:
    found = [root / "__init__.py", root / "runtime/__init__.py", root / "runtime/threads.py"]
    for room in rooms:
        found += (root / room).rglob("*.py") if (root / room).is_dir() else [root / room]
    return found


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))
