"""One run at a time on a lab: who uses it holds a lock, which goes with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from lab.errors import LabError

LOCAL = Path("/run/lock/splab-run.lock")
"""Held by whoever runs on the local lab; an empty file. Users of a lab file lock that file."""


class InUse(LabError):
    """Somebody else runs on the lab; the text names who."""


class Claim:
    """A lab that is ours until `release`, or the end of this process."""

    def __init__(self, path: Path) -> None:
        """Raises `InUse` at once when another process has it."""
        self._file: BinaryIO | None = _locked(path)

    def release(self) -> None:
        """Twice is fine."""
        if self._file is not None:
            self._file.close()
            self._file = None


def claim_local() -> Claim:
    LOCAL.parent.mkdir(parents=True, exist_ok=True)
    LOCAL.touch()
    return Claim(LOCAL)


def refuse_used_local() -> None:
    """Raises `InUse` while a process runs on the local lab."""
    if LOCAL.exists():
        Claim(LOCAL).release()


def _locked(path: Path) -> BinaryIO:
    try:
        file = path.open("rb")
    except OSError as error:
        raise LabError(f"cannot lock {path}, so that nobody else runs on this lab: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        who = " and ".join(holders(path)) or "another process"
        file.close()
        raise InUse(f"{who} runs on this lab; wait until it ends, or end it") from error
    return file


def holders(path: Path) -> list[str]:
    """`process 4711 (splab run 4)` for each process that has a lock on the file."""
    status = path.stat()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found = []
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if "->" in words or words[1] != "FLOCK" or place not in words:
            continue
        found.append(f"process {words[4]} ({_command(words[4])})")
    return found


def _command(pid: str) -> str:
    try:
        words = Path("/proc", pid, "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "it has just ended"
    shown = " ".join(Path(word).name if word.startswith("/") else word for word in words if word)
    return " ".join(shown.split())[:200]
