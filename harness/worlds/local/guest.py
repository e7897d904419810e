"""`harness.observers.Guest` over SSH into the guest; its tools are busybox's."""

from __future__ import annotations

import shlex
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from lab.file import GuestImage, Ssh
from lab.image import READY
from lab.iso import ISO_WORD
from lab.shell import CommandFailed, Completed
from lab.ssh import SshHost

BOOT_SECONDS = 180.0
POLL_SECONDS = 0.1
SECTOR = 512
COUNTED = 4096
COUNTING, COUNTED_ALL = "/tmp/splab-counting", "/tmp/splab-counted"
KNOCK_SECONDS = 3.0
STALE_SECONDS = 5.0
"""A guest that does not answer over an open connection for so long may be another by now, at the same address."""
_DISKS = """for disk in /sys/block/*; do
[ -s "$disk/serial" ] || continue; read -r serial < "$disk/serial"; read -r size < "$disk/size"
echo "$serial $size ${disk##*/}"
done"""
_FIND = """for try in $(seq 50); do has=
for disk in /sys/block/*; do
[ -s "$disk/serial" ] || continue; read -r serial < "$disk/serial"
[ "$serial" = "$0" ] && exec dd "$@" "$place=/dev/${disk##*/}"
has="$has $serial"; done; sleep 0.1; done
echo "the guest has no disk $0; it has${has:- none}" >&2; exit 1"""
"""A disk that was plugged in comes to a busy guest some time after libvirt and CloudStack say so; it gets 5 s."""


class SshGuest:
    def __init__(self, image: GuestImage, address: Callable[[], str], console: Callable[[], str]) -> None:
        """`address` looks the guest's IP up when it is needed; it may change when the VM starts again. `console` gives
        what the guest has written to its serial console on the host that it runs on."""
        self._image = image
        self._address = address
        self._console = console

    def ready(self) -> None:
        if not self._image.idle_url:
            self.boot_id()
            return
        deadline = time.monotonic() + BOOT_SECONDS
        while READY not in (said := self._console()):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"the guest did not write {READY!r} to its console within {BOOT_SECONDS:g} s, but {said[-500:]!r}"
                )
            time.sleep(POLL_SECONDS)

    def boot_id(self) -> str:
        """The connection that it opens serves until the guest has gone, or is asked for its boot again in vain."""
        ask = ["cat", "/proc/sys/kernel/random/boot_id"]
        host = self._host()
        if host.connected:
            try:
                return host.run(ask, timeout=STALE_SECONDS).text
            except CommandFailed:
                host.close()
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                self._knock()
                return self._run(ask, timeout=20).text
            except (CommandFailed, OSError) as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the guest was not up within {BOOT_SECONDS:g} s: {error}") from error
                time.sleep(POLL_SECONDS)

    def booted_from(self) -> str:
        self.boot_id()
        words = self._run(["cat", "/proc/cmdline"]).text.split()
        return "cdrom" if ISO_WORD in words else "disk"

    def disks(self) -> Mapping[str, int]:
        return {serial: size for serial, (size, _) in self._found().items()}

    def write(self, serial: str, offset: int, data: bytes) -> None:
        block = self._block(offset, len(data))
        self._dd("of", serial, f"bs={block}", f"seek={offset // block}", "conv=notrunc,fsync", data=data)

    def read(self, serial: str, offset: int, length: int) -> bytes:
        block = self._block(offset, length)
        data = self._dd("if", serial, f"bs={block}", f"skip={offset // block}", f"count={length // block}")
        if len(data) != length:
            raise OSError(f"disk {serial} gave {len(data)} bytes at {offset}, {length} were asked for")
        return data

    @contextmanager
    def counting(self, serials: Sequence[str], offset: int) -> Iterator[None]:
        """A loop of the guest's shell, which ends with the file that names it, at the latest when the guest does."""
        devices = " ".join(self._device(serial) for serial in serials)
        place = f"bs={COUNTED} seek={offset // COUNTED} conv=notrunc,fsync"
        loop = (
            f"n=0; while [ -e {COUNTING} ]; do n=$((n+1)); for d in {devices}; do"
            f" printf '%-{COUNTED}d' $n | dd of=/dev/$d {place} 2>/dev/null; done; done; touch {COUNTED_ALL}"
        )
        start = f"rm -f {COUNTED_ALL}; touch {COUNTING}; setsid sh -c {shlex.quote(loop)} </dev/null >/dev/null 2>&1 &"
        self._run(["sh", "-c", start])
        try:
            yield
        finally:
            ended = f"for i in $(seq 100); do [ -e {COUNTED_ALL} ] && exit 0; sleep 0.1; done; exit 1"
            self._run(["sh", "-c", f"rm -f {COUNTING}; {ended}"])

    def poweroff(self) -> None:
        self._run(["sh", "-c", "setsid sh -c 'sleep 0.3; poweroff' </dev/null >/dev/null 2>&1 &"])

    def _device(self, serial: str) -> str:
        found = self._found()
        if serial not in found:
            raise OSError(f"the guest has no disk {serial}; it has {', '.join(found) or 'none'}")
        return found[serial][1]

    def _found(self) -> dict[str, tuple[int, str]]:
        lines = (line.split() for line in self._run(["sh", "-c", _DISKS]).text.splitlines())
        return {serial: (int(sectors) * SECTOR, name) for serial, sectors, name in lines}

    def _dd(self, place: str, serial: str, *words: str, data: bytes = b"") -> bytes:
        """dd from (`if`) or to (`of`) the disk with this serial, which is looked for at that moment and a little on."""
        command = ["sh", "-c", f"place={place}\n{_FIND}", serial, *words]
        done = self._host().run(command, stdin=data, check=False)
        if done.returncode != 0:
            raise OSError(f"dd {' '.join(words)} on disk {serial}: {done.error_text or done.returncode}")
        return done.stdout

    def _block(self, offset: int, length: int) -> int:
        """The largest of dd's block sizes that both are multiples of."""
        for block in (1 << 20, 4096, SECTOR):
            if (offset | length) % block == 0:
                return block
        raise ValueError(f"offset {offset} and length {length} must be multiples of {SECTOR}")

    def _knock(self) -> None:
        """`OSError` while nobody listens there, which takes less than starting ssh to be told."""
        ssh = self._host().ssh
        socket.create_connection((ssh.address, ssh.port), KNOCK_SECONDS).close()

    def _run(self, argv: Sequence[str], timeout: float = 60) -> Completed:
        return self._host().run(argv, timeout=timeout)

    def _host(self) -> SshHost:
        image = self._image
        known = image.known_hosts_file
        if known is None:
            raise CommandFailed("the lab file's guest_image has no known_hosts_file; guests cannot be logged in to")
        return SshHost(
            Ssh(address=self._address(), user=image.ssh_user, key_file=image.ssh_key_file, known_hosts_file=known)
        )
