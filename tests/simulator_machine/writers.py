"""Programs that write to block devices while they are copied; not a test.

writers.py ordered DEVICE...               increasing numbers, to one device after the other
writers.py random DEVICE...                4 KiB at random places, eight threads a device
writers.py close-gate STATE NUMBER...      closes the gate on loop devices and waits to be killed
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import statistics
import sys
import threading
import time
from pathlib import Path

from simulator.blocks.gate import Held, Throttled
from simulator.blocks.throttle import NONE

BLOCK = 4096


def open_all(devices: list[str]) -> list[int]:
    return [os.open(device, os.O_WRONLY | os.O_DIRECT) for device in devices]


def ordered(devices: list[str]) -> None:
    descriptors = open_all(devices)
    buffer = mmap.mmap(-1, 512)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    number, waits = 0, []
    while not over.is_set():
        number += 1
        buffer[:8] = number.to_bytes(8, "little")
        for descriptor in descriptors:
            began = time.monotonic()
            os.pwrite(descriptor, buffer, 0)
            waits.append(time.monotonic() - began)
        if number == 10:
            print("writing", flush=True)
    slow = sorted(waits)[-len(waits) // 100 :]
    print(
        f"{len(waits)} writes, median {statistics.median(waits) * 1000:.2f} ms, longest {slow[-1] * 1000:.0f} ms",
        flush=True,
    )


def scatter(devices: list[str]) -> None:
    def write(descriptor: int, seed: int) -> None:
        choose = random.Random(seed)
        buffer = mmap.mmap(-1, BLOCK)
        while True:
            os.pwrite(descriptor, buffer, choose.randrange(1, 2048) * BLOCK)

    for at, descriptor in enumerate(open_all(devices) * 8):
        threading.Thread(target=write, args=(descriptor, at), daemon=True).start()
    signal.pause()


def close_gate(state: str, numbers: list[str]) -> None:
    with Throttled(Path(state))._closed([Held(int(number), NONE) for number in numbers]):
        # The child that lifts the gate is this process's only one.
        print(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()[0], flush=True)
        signal.pause()


if __name__ == "__main__":
    kind, *words = sys.argv[1:]
    if kind == "ordered":
        ordered(words)
    elif kind == "random":
        scatter(words)
    else:
        close_gate(words[0], words[1:])
