"""Writers whose waits are measured, in a process of their own: `python -m harness.bench.writer DEVICE...`.

One thread a device writes 4 KiB after 4 KiB past the page cache until standard input ends; then the waits of each are
printed as JSON. Times are those of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

BLOCK = 4096
_BLOCKS = 4096
"""After so many a writer begins again."""
_SHORTEST = 0.0002
"""Seconds; shorter waits are not kept, for there are very many of them."""
_PATIENCE = 60.0


class Wait(msgspec.Struct, frozen=True, array_like=True):
    """Of one write, in seconds."""

    began: float
    ended: float


@contextmanager
def writing(devices: Sequence[Path]) -> Iterator[list[list[Wait]]]:
    """Writers of these devices are under way inside the block; the list is filled at its end, one of each device."""
    waits: list[list[Wait]] = []
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, *map(str, devices)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield waits
            out, _ = process.communicate(timeout=_PATIENCE)
            waits.extend(msgspec.json.decode(out, type=list[list[Wait]]))
        finally:
            process.kill()


def _write(device: str, over: threading.Event, waits: list[Wait]) -> None:
    descriptor = os.open(device, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    buffer = mmap.mmap(-1, BLOCK)
    at = 0
    while not over.is_set():
        began = time.monotonic()
        os.pwrite(descriptor, buffer, at * BLOCK)
        ended = time.monotonic()
        if ended - began > _SHORTEST:
            waits.append(Wait(began, ended))
        at = (at + 1) % _BLOCKS
    os.close(descriptor)


def main() -> None:
    over = threading.Event()
    waits: list[list[Wait]] = [[] for _ in sys.argv[1:]]
    threads = [
        threading.Thread(target=_write, args=(device, over, mine))
        for device, mine in zip(sys.argv[1:], waits, strict=True)
    ]
    for thread in threads:
        thread.start()
    print("writing", flush=True)
    sys.stdin.buffer.read()
    over.set()
    for thread in threads:
        thread.join()
    sys.stdout.buffer.write(msgspec.json.encode(waits))


if __name__ == "__main__":
    main()
