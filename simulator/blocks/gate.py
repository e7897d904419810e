"""A moment in which nobody writes to a group of devices, so that copies of all of them are one point in time.

A loop device cannot be suspended. Where the block layer can throttle it (`Throttled`), writes that have not been begun
are held back and those that have are waited for. While the gate is closed a killed writer stays in state D and its
device cannot be taken away, so it never stays closed: what has to be lifted is on disk before it closes, a child lifts
it when the simulator dies, and the next start or removal lifts it first. Elsewhere (`Watched`) copies are made without
holding anybody back, and made again when the devices' counters say that something was written meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from simulator.blocks import throttle
from simulator.blocks.stores import sync_path
from simulator.blocks.throttle import Limits
from simulator.ports import BlocksError

QUIET_SECONDS = 5.0
"""How long writes that were begun may take until the group is given up and let go."""
_LONGEST_SECONDS = 60
"""After this the child lifts the gate whatever the simulator does."""
_PAUSE = 0.0005
_TRIES = 25
_FILE = "gate.json"


@dataclass(frozen=True, slots=True)
class Held:
    """A device of the group, and the limits that it has while the gate is open."""

    number: int
    limits: Limits


class Gate(Protocol):
    name: str
    """As the live page and the control API show it."""

    def copy(self, devices: Sequence[Held], copy: Callable[[], None], undo: Callable[[], None]) -> None:
        """Have `copy` done with all devices at one point in time; `undo` takes back one that was not. `BlocksError`
        when there was no such point."""
        ...


def choose(state: Path) -> Gate:
    return Watched() if throttle.missing() else Throttled(state)


class Throttled:
    name = "block throttle (cgroup v1)"

    def __init__(self, state: Path) -> None:
        self._state = state
        self._guard = threading.Lock()

    def copy(self, devices: Sequence[Held], copy: Callable[[], None], undo: Callable[[], None]) -> None:
        # One group at a time: what is to be lifted is one file, and each is over in its time.
        with self._guard, self._closed(devices):
            deadline = time.monotonic() + QUIET_SECONDS
            while busy := [held.number for held in devices if throttle.writes_under_way(held.number)]:
                if time.monotonic() > deadline:
                    text = f"writes to {', '.join(f'/dev/loop{number}' for number in busy)} did not end"
                    raise BlocksError(f"{text} in {QUIET_SECONDS:g} s; try again when there is less to write")
                time.sleep(_PAUSE)
            try:
                copy()
            except BaseException:
                undo()
                raise

    @contextlib.contextmanager
    def _closed(self, devices: Sequence[Held]) -> Iterator[None]:
        path = self._state / _FILE
        lifts = [(str(throttle.rule_file("write_bps")), _lift(held)) for held in devices]
        new = path.with_suffix(".new")
        new.write_text(json.dumps(lifts))
        sync_path(new)
        new.rename(path)
        sync_path(self._state)
        child = _child(lifts)
        try:
            for held in devices:
                throttle.stop_writes(held.number)
            yield
        finally:
            for held in devices:
                throttle.limit(held.number, held.limits)
            child.kill()
            child.communicate()
            path.unlink()


def _lift(held: Held) -> str:
    return f"{throttle.device_id(held.number)} {throttle.rules(held.limits)['write_bps']}"


def _child(lifts: Sequence[tuple[str, str]]) -> subprocess.Popen[bytes]:
    """Lifts the gate when its standard input ends, which it does with this process."""
    words = [word for file, rule in lifts for word in (rule, file)]
    script = f'timeout {_LONGEST_SECONDS} cat; while [ $# -gt 0 ]; do echo "$1" > "$2"; shift 2; done'
    return subprocess.Popen(
        ["/bin/sh", "-c", script, "lift-gate", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def lift_left(state: Path) -> list[str]:
    """Lift what a simulator left closed that was killed; one line when there was something. The devices are still
    those of that time: while the gate is closed none can be taken away."""
    path = state / _FILE
    try:
        lifts = json.loads(path.read_text())
    except FileNotFoundError:
        return []
    for file, rule in lifts:
        with contextlib.suppress(OSError):
            Path(file).write_text(rule)
    path.unlink()
    return [f"lifted the gate of {len(lifts)} devices, left closed by a group snapshot"]


class Watched:
    name = "counters of the devices, copied again after a write"

    def copy(self, devices: Sequence[Held], copy: Callable[[], None], undo: Callable[[], None]) -> None:
        for _ in range(_TRIES):
            before = [throttle.writes_begun_and_finished(held.number) for held in devices]
            try:
                copy()
            except BaseException:
                undo()
                raise
            after = [throttle.writes_begun_and_finished(held.number) for held in devices]
            if before == after and not any(under_way for _, under_way in before):
                return
            undo()
        raise BlocksError(f"the group was written to during each of {_TRIES} attempts; stop its writers and try again")


def state_files(state: Path) -> list[Path]:
    """What a gate may leave in the state directory."""
    return [state / _FILE, (state / _FILE).with_suffix(".new")]
