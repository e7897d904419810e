"""`harness.spi.ports.Secondary`: two ways to read and write a file of an NFS image store."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import urlsplit

from harness.spi.errors import Error, InvalidParameter, NotFound, Unavailable
from harness.spi.objects import DataStore
from harness.spi.ports import Host
from harness.spi.runtime import Runtime

_log = logging.getLogger("harness.agent")

MOUNT_SECONDS = 60.0
MOUNT_PREFIX = "splab-agent."
HELD_PREFIX = "splab-iso."
"""How names of mounts begin that serve a domain; its name follows."""
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_MOUNT = re.compile(rf"{re.escape(MOUNT_PREFIX)}{_UUID}\.{_UUID}")
"""Names of mounts that an agent made: its own id, then the mount's. Others in the directory are somebody else's."""
_NAME = re.compile(r"[A-Za-z0-9_+@=][A-Za-z0-9._+@=-]*")
_SERVER = re.compile(r"[A-Za-z0-9.:\[\]-]+")


def split_store(store: DataStore) -> tuple[str, str]:
    """Server and export (`/path`) of an NFS image store; raises `InvalidParameter` for any other store."""
    url = urlsplit(store.url)
    if url.scheme != "nfs" or url.query or url.fragment or not _SERVER.fullmatch(url.netloc):
        raise InvalidParameter(f"image store {store.name}: {store.url!r} is not of the form nfs://server/export")
    return url.netloc, "/" + "/".join(_parts(url.path, f"export of image store {store.name}"))


def check_file(path: str) -> str:
    """The path of a file in a store without superfluous slashes; raises `InvalidParameter` when it could leave it."""
    return "/".join(_parts(path, "path on the image store"))


def _parts(path: str, what: str) -> list[str]:
    # One small set of characters serves URLs, mount and qemu-img, none of which then sees anything special.
    parts = [part for part in path.split("/") if part]
    if not parts or not all(_NAME.fullmatch(part) for part in parts):
        raise InvalidParameter(f"{what}: {path!r} is empty, or has a part such as .., or characters that are not taken")
    return parts


class QemuNfs:
    """QEMU's own NFS client: nothing is mounted. QEMU needs its nfs block driver (qemu-block-extra on Debian)."""

    @contextmanager
    def file(self, store: DataStore, path: str) -> Iterator[str]:
        server, export = split_store(store)
        yield f"nfs://{server}{export}/{check_file(path)}"

    def new_file(self, store: DataStore, path: str) -> AbstractContextManager[str]:
        return self.file(store, path)

    def hold(self, store: DataStore, path: str, holder: str) -> str:
        del holder
        with self.file(store, path) as name:
            return name

    def let_go(self, holder: str) -> None:
        """Nothing is mounted."""

    def clean_up(self) -> None:
        """Nothing is mounted, so nothing was left."""


class KernelMount:
    """A mount of its own for each use, read-only unless a file is to be written, always taken away again."""

    def __init__(self, runtime: Runtime, host: Host, directory: str) -> None:
        self._runtime = runtime
        self._host = host
        self._directory = directory
        self._own = f"{MOUNT_PREFIX}{runtime.uuid()}."
        """How names of this agent's mounts begin."""

    @contextmanager
    def file(self, store: DataStore, path: str) -> Iterator[str]:
        relative = check_file(path)
        with self._mounted(store, "ro") as target:
            yield self._inside(target, relative, store)

    @contextmanager
    def new_file(self, store: DataStore, path: str) -> Iterator[str]:
        directory, _, name = check_file(path).rpartition("/")
        with self._mounted(store, "rw") as target:
            yield f"{self._inside(target, directory, store) if directory else target}/{name}"

    @contextmanager
    def _mounted(self, store: DataStore, access: str) -> Iterator[str]:
        server, export = split_store(store)
        target = f"{self._directory}/{self._own}{self._runtime.uuid()}"
        self._run("make", "mkdir", "-p", "-m", "0700", target)
        try:
            self._mount(f"{server}:{export}", target, access)
        except Error:
            self._tidy("rmdir", target)
            raise
        try:
            yield target
        finally:
            if not self._tidy("umount", target):
                self._tidy("umount", "-l", target)
            self._tidy("rmdir", target)

    def hold(self, store: DataStore, path: str, holder: str) -> str:
        relative = check_file(path)
        server, export = split_store(store)
        target = self._held(holder)
        self.let_go(holder)
        self._run("make", "mkdir", "-p", "-m", "0755", target)
        try:
            self._mount(f"{server}:{export}", target, "ro")
            return self._inside(target, relative, store)
        except Error:
            self.let_go(holder)
            raise

    def let_go(self, holder: str) -> None:
        """Lazily: a QEMU that has not ended yet reads on."""
        target = self._held(holder)
        if self._tidy("mountpoint", "-q", target):
            self._tidy("umount", "-l", target)
        self._tidy("rmdir", target)

    def _held(self, holder: str) -> str:
        # By its holder's name, so that the next agent finds it when that ends.
        return f"{self._directory}/{HELD_PREFIX}{check_file(holder)}"

    def clean_up(self) -> None:
        try:
            names = self._host.list_directory(self._directory)
        except Error as error:
            _log.warning("mounts that an earlier agent may have left cannot be looked for: %s", error)
            return
        for name in names:
            if _MOUNT.fullmatch(name) and not name.startswith(self._own):
                self._tidy("umount", "-l", f"{self._directory}/{name}")
                self._tidy("rmdir", f"{self._directory}/{name}")

    def _mount(self, source: str, target: str, access: str) -> None:
        options = f"{access},nosuid,nodev,noexec,soft,timeo=100,retrans=3"
        try:
            self._run("mount", "mount", "-t", "nfs", "-o", options, source, target)
        except Error:
            # A mount that was killed may have succeeded all the same.
            self._tidy("umount", "-l", target)
            raise

    def _inside(self, target: str, relative: str, store: DataStore) -> str:
        """The file's real place: a symbolic link on the export must not lead to a file of this host."""
        found = self._host.run(("realpath", "-e", "--", f"{target}/{relative}"), timeout=MOUNT_SECONDS)
        real = found.stdout.decode(errors="replace").rstrip("\n")
        if found.rc != 0:
            raise NotFound(f"{relative} does not exist on image store {store.name} ({store.url})")
        if not real.startswith(f"{target}/"):
            raise InvalidParameter(f"{relative} on image store {store.name} is a link that leaves the store")
        return real

    def _run(self, what: str, *argv: str) -> None:
        result = self._host.run(argv, timeout=MOUNT_SECONDS)
        if result.rc != 0:
            said = result.stderr.decode(errors="replace").strip()[:500]
            raise Unavailable(f"cannot {what} {' '.join(argv[-2:])}: {said or f'exit status {result.rc}'}")

    def _tidy(self, *argv: str) -> bool:
        """Clean-up never replaces the main result: a failure is logged."""
        try:
            result = self._host.run(argv, timeout=MOUNT_SECONDS)
        except Error as error:
            _log.warning("%s failed: %s", " ".join(argv), error)
            return False
        if result.rc != 0:
            _log.debug("%s: %s", " ".join(argv), result.stderr.decode(errors="replace").strip())
        return result.rc == 0
