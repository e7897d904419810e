"""The StorPool simulator of the local lab, killed and started again where `up` started it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from lab.errors import LabError
from lab.local import cgroup
from lab.local.layout import MANAGEMENT, State
from lab.local.machines import folder_of, simulator_argv, start_in
from lab.local.up import storpool_answers

MODULE = b"\0simulator.main\0"
END_SECONDS = 20.0
READY_SECONDS = 40.0


def kill() -> None:
    """SIGKILL; returns when it is gone. Raises `LabError` when it does not run."""
    found = _processes()
    if not found:
        raise LabError("the StorPool simulator of the local lab does not run, so it cannot be killed")
    for process in found:
        os.kill(process, signal.SIGKILL)
    deadline = time.monotonic() + END_SECONDS
    while _processes():
        if time.monotonic() > deadline:
            raise LabError(f"the StorPool simulator, process {found[0]}, was killed and does not end")
        time.sleep(0.02)


def start(state: State) -> None:
    """Start it in its cgroup and network namespace; returns once its API answers. Nothing when it runs."""
    if not _processes():
        start_in(state, MANAGEMENT, folder_of(MANAGEMENT.name), simulator_argv(state), "simulator.log")
    deadline = time.monotonic() + READY_SECONDS
    while not storpool_answers(state):
        if time.monotonic() > deadline:
            raise LabError(f"the StorPool simulator does not answer {READY_SECONDS:.0f} s after its start")
        time.sleep(0.05)


def _processes() -> list[int]:
    return [pid for pid in cgroup.processes(folder_of(MANAGEMENT.name)) if MODULE in _command_line(pid)]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
