"""`harness.observers.Secondary` over SSH to the machine with the export: its files, and its own qemu-img."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from lab.file import SecondaryStorage
from lab.ssh import SshHost

BLOCK = 4096
BACKUPS = "snapshots"
PRIMARY = "primary"
_READ = (
    "file=$(mktemp) && trap 'rm -f \"$file\"' EXIT && "
    'qemu-img dd -f qcow2 -O raw "bs=$1" "skip=$2" "count=$3" "if=$0" "of=$file" && cat "$file"'
)
"""qemu-img counts from the beginning of the disk, not from what it skips."""
_NOTHING = 22
_DOWNLOAD = (
    'image=$(mktemp) && file=$(mktemp) && trap \'rm -f "$image" "$file"\' EXIT && '
    'curl --silent --show-error --fail --output "$image" "$0" && '
    'qemu-img dd -f qcow2 -O raw "bs=$1" "skip=$2" "count=$3" "if=$image" "of=$file" && cat "$file"'
)
"""curl exits with `_NOTHING` when there is nothing at the URL."""


class SshSecondary:
    def __init__(self, secondary: SecondaryStorage, hosts: Sequence[SshHost]) -> None:
        """`hosts` are those that a cut keeps from the export."""
        self._directory = secondary.export_directory
        self._ssh = SshHost(secondary.ssh)
        self._url = secondary.nfs_url
        self._server = urlsplit(secondary.nfs_url).hostname or ""
        self._hosts = tuple(hosts)

    def backups(self) -> Sequence[str]:
        listed = self._ssh.run(["ls", "-1", str(self._directory / BACKUPS)], check=False)
        return sorted(f"{BACKUPS}/{name}" for name in listed.text.split()) if not listed.returncode else []

    @property
    def primary_url(self) -> str:
        return f"{self._url}/{PRIMARY}"

    def files(self, directory: str) -> Sequence[str]:
        argv = ["find", directory, "-type", "f"]
        script = ["sh", "-c", 'cd "$0" && exec "$@"', str(self._directory), *argv]
        return sorted(self._ssh.run(script).text.split())

    def download(self, url: str, offset: int, length: int) -> bytes | None:
        """On a KVM host, which reaches the URL over the network."""
        words = [url, str(BLOCK), str(offset // BLOCK), str((offset + length) // BLOCK)]
        done = self._hosts[0].run(["sh", "-c", _DOWNLOAD, *words], check=False, timeout=300)
        if done.returncode == _NOTHING:
            return None
        if done.returncode or len(done.stdout) != length:
            raise OSError(f"the download gave {len(done.stdout)} bytes at {offset}, {length} were asked for")
        return done.stdout

    def read(self, path: str, offset: int, length: int) -> bytes:
        words = [str(self._directory / path), str(BLOCK), str(offset // BLOCK), str((offset + length) // BLOCK)]
        data = self._ssh.run(["sh", "-c", _READ, *words], timeout=300).stdout
        if len(data) != length:
            raise OSError(f"{path} gave {len(data)} bytes at {offset}, {length} were asked for")
        return data

    def size(self, path: str) -> int:
        argv = ["qemu-img", "info", "-f", "qcow2", "--output=json", str(self._directory / path)]
        return int(json.loads(self._ssh.run(argv).text)["virtual-size"])

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """By a routing rule for TCP to the NFS server on every host, so that a connection that is there hangs too."""
        rule = f"to {self._server} ipproto tcp priority 78"
        remove = f"while ip rule del unreachable {rule} 2>/dev/null; do :; done; ip route flush cache"
        try:
            for host in self._hosts:
                host.run(["sh", "-c", f"ip rule add unreachable {rule} && ip route flush cache"])
            yield
        finally:
            for host in self._hosts:
                host.run(["sh", "-c", remove])
