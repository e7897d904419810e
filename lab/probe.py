"""Which accelerator guests get. /dev/kvm may exist and not work, so a tiny guest is booted under it, with a deadline.

The answer is kept in the cache under the versions of kernel and QEMU.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

from lab import image, kernel
from lab.errors import LabError
from lab.file import Accelerator
from lab.shell import Progress, run, silent

DEADLINE = 15.0
"""Seconds; a machine whose KVM works boots this guest in less than one."""
LINE = b"splab probe alive"


def accelerator(cache: Path | None = None, progress: Progress = silent) -> Accelerator:
    """KVM if a guest boots under it, else TCG. Up to `DEADLINE` seconds the first time."""
    cache = cache or image.cache_directory()
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Accelerator.TCG
    name = hashlib.sha256(f"{os.uname().release} {run(['qemu-system-x86_64', '--version']).text}".encode()).hexdigest()[
        :16
    ]
    answer = cache / f"accelerator.{name}"
    if answer.exists():
        return Accelerator(answer.read_text())
    progress("trying whether guests run under KVM")
    found = Accelerator.KVM if boots("kvm", cache) else Accelerator.TCG
    answer.write_text(found.value)
    return found


def boots(accel: str, cache: Path, deadline: float = DEADLINE) -> bool:
    """Whether the guest's kernel comes to its first program under this accelerator within `deadline` seconds."""
    with tempfile.TemporaryDirectory(prefix="splab-probe.") as work:
        initrd = Path(work, "initrd")
        _write_initrd(initrd, Path(work, "tree"))
        unpacked = kernel.unpack(kernel.packages(cache), Path(work, "kernel"))
        serial = Path(work, "serial")
        argv = ["qemu-system-x86_64", "-accel", accel, "-M", "pc", "-m", "128", "-nodefaults", "-display", "none"]
        argv += ["-no-reboot", "-serial", f"file:{serial}", "-kernel", str(unpacked.vmlinuz), "-initrd", str(initrd)]
        argv += ["-append", "console=ttyS0 panic=-1"]
        qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return _speaks(qemu, serial, deadline)
        finally:
            qemu.kill()
            try:
                qemu.wait(30)
            except subprocess.TimeoutExpired as error:
                raise LabError(f"QEMU {qemu.pid} under {accel} does not die of SIGKILL") from error


def _speaks(qemu: subprocess.Popen[bytes], serial: Path, deadline: float) -> bool:
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if serial.exists() and LINE in serial.read_bytes():
            return True
        if qemu.poll() is not None:
            return False
        time.sleep(0.1)
    return False


def _write_initrd(initrd: Path, tree: Path) -> None:
    (tree / "bin").mkdir(parents=True)
    (tree / "dev").mkdir()
    (tree / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (tree / "bin/busybox").chmod(0o755)
    lines = ["#!/bin/busybox sh", "/bin/busybox mount -t devtmpfs dev /dev", f"echo {LINE.decode()} > /dev/ttyS0"]
    (tree / "init").write_text("\n".join([*lines, "exec /bin/busybox poweroff -f", ""]))
    (tree / "init").chmod(0o755)
    archive = run(
        ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=tree, stdin=b"bin\nbin/busybox\ndev\ninit\n"
    ).stdout
    initrd.write_bytes(run(["gzip", "-1", "-n"], stdin=archive).stdout)
