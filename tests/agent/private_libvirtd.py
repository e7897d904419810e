"""A libvirtd of its own: namespaces for processes, mounts and network, so that killing its first process ends all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("libvirtd", "qemu-system-x86_64", "unshare", "ip", "losetup")

# Its /dev is a tmpfs, so that /dev/storpool-byid can be made without touching the machine's. The loop starts libvirtd
# again whenever it is killed, as systemd would.
SCRIPT = """set -e
mount --make-rprivate /
for d in lib cache log; do mkdir -p "$1/$d/libvirt"; mount --bind "$1/$d" "/var/$d"; done
cp -a /etc "$1/etc"
mkdir -p "$1/etc/libvirt"
cp "$1/qemu.conf" "$1/libvirtd.conf" "$1/etc/libvirt/"
mount --bind "$1/etc" /etc
grep -q ^libvirt-qemu: /etc/passwd || echo libvirt-qemu:x:64055:64055::/:/bin/false >>/etc/passwd
grep -q ^libvirt-qemu: /etc/group || echo libvirt-qemu:x:64055: >>/etc/group
grep -q ^kvm: /etc/group || echo kvm:x:64056: >>/etc/group
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev
mkdir /dev/pts /dev/shm /dev/net /dev/storpool-byid
mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts
ln -s pts/ptmx /dev/ptmx
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/zero c 1 5
mknod -m 666 /dev/full c 1 7
mknod -m 666 /dev/random c 1 8
mknod -m 666 /dev/urandom c 1 9
mknod -m 666 /dev/net/tun c 10 200
mount -t tmpfs tmpfs /sys/fs/cgroup 2>/dev/null || true
ip link set lo up
ip link add cloudbr0 type bridge
ip link set cloudbr0 up
while :; do
  libvirtd --pid-file /run/libvirtd.pid >>"$1/libvirtd.log" 2>&1 || true
  sleep 0.2
done
"""
QEMU_CONF = """security_driver = "none"
user = "root"
group = "root"
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
"""
LIBVIRTD_CONF = 'auth_unix_rw = "none"\nauth_unix_ro = "none"\n'


def wait_until(what: str, condition: Callable[[], bool], timeout: float = 30) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"waited {timeout} s in vain: {what}"
        time.sleep(0.05)


@dataclass
class PrivateLibvirtd:
    """`first` is the host's number of the first process inside."""

    first: int
    directory: Path

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.first}/root")

    @property
    def socket(self) -> Path:
        return self.root / "run/libvirt/libvirt-sock"

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.socket}"

    def daemon(self) -> int:
        """The host's number of libvirtd; 0 while there is none."""
        children = Path(f"/proc/{self.first}/task/{self.first}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/comm").read_text().strip() == "libvirtd":
                return int(child)
        return 0

    def signal(self, number: int) -> None:
        os.kill(self.daemon(), number)

    @contextmanager
    def hung(self) -> Iterator[None]:
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)


@contextmanager
def private_libvirtd(directory: Path) -> Iterator[PrivateLibvirtd]:
    (directory / "qemu.conf").write_text(QEMU_CONF)
    (directory / "libvirtd.conf").write_text(LIBVIRTD_CONF)
    unshare = ["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    with (directory / "script.log").open("w") as log:
        process = subprocess.Popen([*unshare, "sh", "-c", SCRIPT, "sh", str(directory)], stdout=log, stderr=log)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until("unshare has forked", lambda: process.poll() is not None or bool(children.read_text().split()))
        assert process.poll() is None, (directory / "script.log").read_text()
        found = PrivateLibvirtd(int(children.read_text().split()[0]), directory)
        wait_until("libvirtd listens", found.socket.exists)
        yield found
    finally:
        process.kill()
        process.wait(20)


@contextmanager
def loop_devices(directory: Path, daemon: PrivateLibvirtd, sizes: dict[str, int]) -> Iterator[None]:
    """Loop devices, seen as /dev/storpool-byid/<name> by the private libvirtd."""
    made: list[str] = []
    try:
        for name, size in sizes.items():
            image = directory / name
            with image.open("wb") as file:
                file.truncate(size)
            argv = ["losetup", "--find", "--show", "--direct-io=on", str(image)]
            device = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
            made.append(device)
            node = daemon.root / "dev/storpool-byid" / name
            os.mknod(node, 0o600 | 0o060000, os.stat(device).st_rdev)  # noqa: PTH116 - beside os.mknod
        yield
    finally:
        for name in sizes:
            (daemon.root / "dev/storpool-byid" / name).unlink(missing_ok=True)
        for device in made:
            subprocess.run(["losetup", "--detach", device], check=True)


def missing_tools() -> list[str]:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return missing if os.geteuid() == 0 else [*missing, "root"]
