"""What attaching, snapshots, clones and reverts cost on loop devices, and how long group snapshots stall writers."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness.bench import writer
from harness.bench.http_client import Connection
from harness.bench.measure import Bench, in_turns, percentile, seconds
from harness.bench.rig import MIB, Simulator, bare, loop_simulator, pool_root, request, require_devices
from simulator.blocks import loop

LEG = "attach"
_POOL = 8 << 30
_TIB = 1 << 40
_CLIENT = 1
_GROUP = 4
"""Volumes of a group snapshot."""
_PAUSE_SECONDS = 0.2
"""Between group snapshots, so that writers are under way again."""
_BLOCK = 4096
_RECORD_BYTES = 500
"""About what an attachment appends to the journal."""

_LOOP_CONFIGURE, _LOOP_CLR_FD, _LOOP_CTL_GET_FREE = 0x4C0A, 0x4C01, 0x4C82
_CONFIG_BYTES = 304 - 8
"""Of struct loop_config (linux/loop.h) behind the descriptor and the block size."""


def measure(bench: Bench) -> None:
    require_devices()
    with loop_simulator(bench.directory / "state", _POOL) as running:
        attaching(bench, running)
        copies(bench, running)
        group(bench, running, bench.directory / "state")


def create(running: Simulator, name: str, size: int, **fields: str) -> int:
    """The key of the new volume."""
    running.call("POST", "VolumeCreate", {"name": name, "size": size, **fields})
    return int(running.data("GET", f"Volume/{name}")[0]["id"])


def attach(running: Simulator, name: str) -> None:
    running.call("POST", "VolumesReassignWait", {"reassign": [{"volume": name, "rw": [_CLIENT]}]})


def detach(running: Simulator, name: str) -> None:
    running.call("POST", "VolumesReassignWait", {"reassign": [{"volume": name, "detach": [_CLIENT]}]})


def device(state: Path, name: str) -> Path:
    """The device of an attached volume."""
    return (state / "clients" / str(_CLIENT) / "storpool" / name).resolve()


def attaching(bench: Bench, running: Simulator) -> None:
    key = create(running, "attached", 1 << 30)
    file = pool_root(running, key) / str(key) / "data"

    def there_and_back() -> None:
        attach(running, "attached")
        detach(running, "attached")

    def api() -> float:
        return seconds(there_and_back) * 1000

    against = "LOOP_CONFIGURE and LOOP_CLR_FD on the same file"
    pairs = in_turns(5 * bench.effort.turns, api, lambda: seconds(partial(_bare_loop, file)) * 1000)
    bench.compared(LEG, "attach and detach", "ms", against, pairs, at_most=5.0)

    with bare(bench.directory / "bare", running.call("GET", "Volume/attached"), bytes(_RECORD_BYTES)) as least:
        connection = Connection(least.port)

        def floor() -> None:
            _bare_loop(file)
            for _ in range(2):
                connection.ask(request("POST", "VolumesReassignWait"))

        with connection.socket:
            pairs = in_turns(5 * bench.effort.turns, api, lambda: seconds(floor) * 1000)
    against += ", and two calls of the least server with an fdatasync each"
    bench.compared(LEG, "attach and detach, beside as many calls", "ms", against, pairs)


def _bare_loop(file: Path) -> None:
    backing = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        made = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(made, _LOOP_CONFIGURE, struct.pack("=II", backing, loop.SECTOR) + bytes(_CONFIG_BYTES))
            fcntl.ioctl(made, _LOOP_CLR_FD)
        finally:
            os.close(made)
    finally:
        os.close(control)
        os.close(backing)


def copies(bench: Bench, running: Simulator) -> None:
    """Of a sparse volume with many extents beside an empty one as large, at rest."""
    full, empty = create(running, "full", _TIB), create(running, "empty", _TIB)
    root = pool_root(running, full)
    _scatter(root / str(full) / "data", bench.effort.extents)
    settle(root / str(empty))
    against = f"the same of an empty volume of 1 TiB; {bench.effort.extents} extents of 4 KiB"

    def timed(call: Callable[[str], None], name: str) -> Callable[[], float]:
        def once() -> float:
            return seconds(lambda: call(name)) * 1000

        once()  # what was dirty is written with the first copy
        return once

    def snapshot(name: str) -> None:
        running.call("POST", f"VolumeSnapshot/{name}")

    def clone(name: str) -> None:
        running.call("POST", "VolumeCreate", {"parent": f"of-{name}"})

    def revert(name: str) -> None:
        running.call("POST", f"VolumeRevert/{name}", {"toSnapshot": f"of-{name}"})

    for name in ("full", "empty"):
        running.call("POST", f"VolumeSnapshot/{name}", {"name": f"of-{name}"})
    for what, call, at_most in (("snapshot", snapshot, 1.5), ("clone", clone, None), ("revert", revert, None)):
        pairs = in_turns(2 * bench.effort.turns, timed(call, "full"), timed(call, "empty"))
        bench.compared(LEG, f"{what} of a sparse volume of 1 TiB", "ms", against, pairs, at_most=at_most)


def _scatter(file: Path, extents: int) -> None:
    """Blocks that no two of which are neighbours, over the whole of the file."""
    step = _TIB // extents // _BLOCK * _BLOCK
    block = b"\x5a" * _BLOCK
    target = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for at in range(extents):
            os.pwrite(target, block, at * step)
        os.fsync(target)
    finally:
        os.close(target)


def settle(place: Path) -> None:
    """Have everything of the pool's file system on disk."""
    folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(folder, 0x9408)  # BTRFS_IOC_SYNC
    finally:
        os.close(folder)


def group(bench: Bench, running: Simulator, state: Path) -> None:
    """Each writer writes 4 KiB after 4 KiB; its longest wait that a group snapshot fell into is a stall."""
    names = [f"group-{at}" for at in range(_GROUP)]
    for name in names:
        create(running, name, 64 * MIB)
        attach(running, name)
    took: list[float] = []
    spans: list[tuple[float, float]] = []
    with writer.writing([device(state, name) for name in names]) as waits:
        for _ in range(5 * bench.effort.turns):
            time.sleep(_PAUSE_SECONDS)
            began = time.monotonic()
            running.call("POST", "VolumesGroupSnapshot", {"volumes": [{"volume": name} for name in names]})
            spans.append((began, time.monotonic()))
            took.append((spans[-1][1] - began) * 1000)
    stalls = [
        max((wait.ended - wait.began for wait in each if wait.began < end and wait.ended > begin), default=0.0) * 1000
        for begin, end in spans
        for each in waits
    ]
    what = f"group snapshot of {_GROUP} volumes under writes"
    bench.alone(LEG, what, "ms", took)
    bench.alone(LEG, f"stall of a writer by a {what}, median", "ms", stalls)
    bench.alone(LEG, f"stall of a writer by a {what}, p95", "ms", stalls, value=percentile(stalls, 95))
    for name in names:
        detach(running, name)
