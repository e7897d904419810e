"""Who has a loop device open, looked up under /proc for the text of an error."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Opener:
    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def openers(device: str) -> list[Opener]:
    """Processes with an open descriptor of the block device `/dev/loopN`, whatever name they opened it by."""
    try:
        wanted = Path(device).stat().st_rdev
    except FileNotFoundError:
        return []
    return [Opener(pid, _name(pid)) for pid in _pids() if _holds(pid, wanted)]


def _pids() -> list[int]:
    with os.scandir("/proc") as entries:
        return sorted(int(entry.name) for entry in entries if entry.name.isdecimal())


def _holds(pid: int, wanted: int) -> bool:
    folder = f"/proc/{pid}/fd/"
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError:
        return False
    for name in names:
        try:
            # Only device nodes are looked at: stat of a file on a dead network file system would hang.
            # Every descriptor of the machine comes by here, and Path would make that five times as slow.
            if os.readlink(folder + name).startswith("/dev/") and os.stat(folder + name).st_rdev == wanted:  # noqa: PTH115, PTH116
                return True
        except OSError:
            continue
    return False


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "a process that has just gone"
