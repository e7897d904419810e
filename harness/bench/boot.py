"""What a guest's boot costs without KVM: with the small kernel, and idle, beside the distribution's kernel."""

from __future__ import annotations

import resource
import subprocess
import time
from functools import partial
from pathlib import Path

from harness.bench.measure import Bench, BenchError, Missing, in_turns
from lab import image, small_kernel
from lab.errors import MissingPrerequisite

LEG = "boot"
_READY_SECONDS = 120.0
_POLL_SECONDS = 0.02


def measure(bench: Bench) -> None:
    """CPU time of the whole QEMU until its guest says that it is ready; TCG also where there is KVM."""
    cache = image.cache_directory()
    try:
        plain = image.build(cache, bench.note, small=False)
        small = image.build(cache, bench.note)
    except MissingPrerequisite as missing:
        raise Missing(str(missing)) from missing
    measured = {"idle guest": plain.idle}
    if small_kernel.built(cache) is None:
        bench.note("left out: the small kernel, which `splab lab kernel` builds")
    else:
        measured["guest with the small kernel"] = small.qcow2
    baseline = partial(_cpu_seconds, plain.qcow2, bench.directory)
    for name, disk in measured.items():
        pairs = in_turns(bench.effort.turns, partial(_cpu_seconds, disk, bench.directory), baseline)
        bench.compared(LEG, name, "s CPU", "a guest with the distribution's kernel", pairs)


def _cpu_seconds(disk: Path, directory: Path) -> float:
    """Raises `BenchError` when the guest is not ready in time."""
    serial = directory / "serial"
    serial.unlink(missing_ok=True)
    argv = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-m", "128", "-nodefaults", "-display", "none"]
    argv += ["-snapshot", "-serial", f"file:{serial}", "-drive", f"file={disk},format=qcow2,if=virtio"]
    argv += ["-nic", "user,model=virtio-net-pci,restrict=on", "-device", "virtio-rng-pci"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not (serial.exists() and image.READY in serial.read_text(errors="replace")):
            if qemu.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"a guest of {disk} was not ready in {_READY_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)
    finally:
        qemu.kill()
        qemu.wait(30)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
