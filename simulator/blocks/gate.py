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
_QUIET_FOR = 0.003
_CLOSINGS = 5
_Changes = list[tuple[int, tuple[int, int]]]
_TRIES = 25
_FILE = "gate.json"


@dataclass(frozen=True, slots=True)
class Held:
    """A device of the group, and the limits that it has while the gate is open."""

    number: int
    limits: Limits


class Gate(Protocol):
    def copy(self, devices: Sequence[Held], copy: Callable[[], None], undo: Callable[[], None]) -> None:
        """Have `copy` done with all devices at one point in time; `undo` takes back one that was not. `BlocksError`
        when there was no such point."""
        ...


def choose(state: Path) -> Gate:
    return Watched() if throttle.missing() else Throttled(state)


class Throttled:
    def __init__(self, state: Path) -> None:
        self._state = state
        self._guard = threading.Lock()

    def copy(self, devices: Sequence[Held], copy: Callable[[], None], undo: Callable[[], None]) -> None:
        for _ in range(_CLOSINGS):
            try:
                # One group at a time: what is to be lifted is one file, and each is over in its time.
                with self._guard, self._closed(devices):
                    before = _await_quiet(devices)
                    copy()
                    quiet = before == _changes(devices)
            except BaseException:
                undo()
                raise
            if quiet:
                return
            # A write that had passed the throttle and was not counted yet. Undone with the gate open, for that may take
            # longer than writers should wait.
            undo()
        raise BlocksError(f"something was written each of {_CLOSINGS} times although the gate was closed; try again")

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


def _await_quiet(devices: Sequence[Held]) -> _Changes:
    """Until nothing is under way, and was not for a moment: a write may be on its way from throttle to device."""
    deadline = time.monotonic() + QUIET_SECONDS
    last, since = _changes(devices), time.monotonic()
    while any(under_way for under_way, _ in last) or time.monotonic() < since + _QUIET_FOR:
        if time.monotonic() > deadline:
            busy = [held.number for held, (under_way, _) in zip(devices, last, strict=True) if under_way]
            text = f"writes to {', '.join(f'/dev/loop{number}' for number in busy)} did not end"
            raise BlocksError(f"{text} in {QUIET_SECONDS:g} s; try again when there is less to write")
        time.sleep(_PAUSE)
        now = _changes(devices)
        if now != last:
            last, since = now, time.monotonic()
    return last


def _changes(devices: Sequence[Held]) -> _Changes:
    """Writes under way on each device, and what it has finished."""
    return [(throttle.writes_under_way(held.number), throttle.changes_finished(held.number)) for held in devices]


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
    """Lift what a simulator left closed that was killed; one line when there was something. A device that is not
    stopped was lifted before, and its number may be another's by now."""
    path = state / _FILE
    try:
        lifts = json.loads(path.read_text())
    except FileNotFoundError:
        return []
    for file, rule in lifts:
        device = rule.partition(" ")[0]
        with contextlib.suppress(OSError):
            if f"{device} {throttle.STOPPED}" in Path(file).read_text().splitlines():
                Path(file).write_text(rule)
    path.unlink()
    return [f"lifted the gate of {len(lifts)} devices, left closed by a group snapshot"]


class Watched:
    def copy(self, devices: Sequence[Held], copy: Callable[[], None], undo: Callable[[], None]) -> None:
        for _ in range(_TRIES):
            before = _changes(devices)
            try:
                copy()
            except BaseException:
                undo()
                raise
            if before == _changes(devices) and not any(under_way for under_way, _ in before):
                return
            undo()
        raise BlocksError(f"the group was written to during each of {_TRIES} attempts; stop its writers and try again")


def state_files(state: Path) -> list[Path]:
    """What a gate may leave in the state directory."""
    return [state / _FILE, (state / _FILE).with_suffix(".new")]
