"""A simulator's state directory: whose it is, and how all of it is removed.

STATE/lock      held while a simulator runs; its process id
STATE/journal   the cluster's durable state
The rest belongs to `simulator.blocks`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from simulator.blocks.destroy import destroy


class StateInUse(Exception):
    """Another process has the directory; the text names it."""


def journal_path(state: Path) -> Path:
    return state / "journal"


@contextmanager
def locked(state: Path, *, patience: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hold the directory, made if need be, against other simulators; the kernel lets go of it when the process dies.

    Raises `StateInUse` when it is taken and `patience`, asked before each new try, has run out.
    """
    state.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = state / "lock"
    while (lock := _try(path)) is None:
        if not patience():
            raise StateInUse(f"{state} is in use by the simulator with process id {_owner(path)}; stop that one first")
    try:
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(lock)


def _try(path: Path) -> int | None:
    """The locked file, if it still is the one at the path: whoever removes a state directory removes its lock."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists() and path.stat().st_ino == os.fstat(lock).st_ino:
            return lock
    except BlockingIOError:
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _owner(path: Path) -> str:
    try:
        return path.read_text().strip() or "unknown"
    except OSError:
        return "unknown"


def remove(state: Path, *, patience: Callable[[], bool]) -> list[str]:
    """Everything that the directory has on this machine; one line for each thing. May be repeated.

    Files that no simulator made stay, and the directory with them. Raises `StateInUse` and `BlocksError`.
    """
    if not state.is_dir():
        return []
    with locked(state, patience=patience):
        removed = destroy(state)
        for path in (journal_path(state), journal_path(state).with_suffix(".new")):
            if path.exists():
                path.unlink()
                removed.append(f"removed {path}")
        (state / "lock").unlink()
    if not any(state.iterdir()):
        state.rmdir()
        removed.append(f"removed {state}")
    return removed
