"""Where the contents of objects lie: one file each, and three ways to copy one without copying its data.

An object appears under its key in one step, whole: it is built beside under a name that begins with `.new-`, so what
has its key is complete, also after a crash. Paths are below the pool's root directory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from simulator.ports import BlocksError, OutOfSpace

_BTRFS_SYNC = 0x9408
_BTRFS_SUBVOL_CREATE = 0x5000940E
_BTRFS_SNAP_DESTROY = 0x5000940F
_BTRFS_SNAP_CREATE_V2 = 0x50009417
_BTRFS_BALANCE_V2 = 0xC4009420
_BALANCE_METADATA = 4
_FICLONE = 0x40049409
_VOL_ARGS = struct.Struct("=q4088s")
_VOL_ARGS_V2 = struct.Struct("=qQQ32s4040s")
_BALANCE_ARGS = struct.Struct("=Q1016s")
_NEW = ".new-"
_COPY_BYTES = 1 << 24
_SHORT = 4
"""The pool is short of space when less than one part in so many is free."""
_RECLAIM_TRIES = 20
_RECLAIM_SECONDS = 0.1


class Store(Protocol):
    """One file system's way to keep objects."""

    def path(self, key: int) -> Path:
        """The object's file, whether it is there or not."""
        ...

    def create(self, key: int, size: int) -> None: ...

    def clone(self, source: int, key: int, size: int) -> None:
        """One point in time, except where the store is `Plain` and the source is being written."""
        ...

    def delete(self, key: int) -> None: ...

    def objects(self) -> list[int]:
        """Keys of all that are complete."""
        ...

    def sweep(self) -> list[str]:
        """Remove what interrupted creates left; their names."""
        ...


@contextmanager
def explained(what: str) -> Iterator[None]:
    """OSError -> BlocksError that says what was tried."""
    try:
        yield
    except OSError as error:
        kind = OutOfSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else BlocksError
        raise kind(f"{what}: {error.strerror}") from error


def sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_size(path: Path, size: int) -> None:
    """Cut or extend with zeroes, durably."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir())


def _keys(root: Path) -> list[int]:
    return sorted(int(name) for name in _names(root) if name.isdecimal())


class Files:
    """Objects as plain files; `copy` fills a new file from the source's."""

    def __init__(self, root: Path, copy: Callable[[int, int], None]) -> None:
        self._root = root
        self._copy = copy

    def path(self, key: int) -> Path:
        return self._root / str(key)

    def create(self, key: int, size: int) -> None:
        with explained(f"creating object {key} of {size} bytes"):
            if not self.path(key).exists():
                new = self._new(key)
                set_size(new, size)
                self._publish(new, key)

    def clone(self, source: int, key: int, size: int) -> None:
        with explained(f"cloning object {source} to {key}"):
            if self.path(key).exists():
                return
            new = self._new(key)
            origin = os.open(self.path(source), os.O_RDONLY | os.O_CLOEXEC)
            try:
                target = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    self._copy(origin, target)
                finally:
                    os.close(target)
            except OSError:
                new.unlink(missing_ok=True)
                raise
            finally:
                os.close(origin)
            set_size(new, size)
            self._publish(new, key)

    def delete(self, key: int) -> None:
        with explained(f"deleting object {key}"):
            self.path(key).unlink(missing_ok=True)
            sync_path(self._root)

    def objects(self) -> list[int]:
        return _keys(self._root)

    def sweep(self) -> list[str]:
        left = [name for name in _names(self._root) if name.startswith(_NEW)]
        for name in left:
            (self._root / name).unlink()
        return left

    def _new(self, key: int) -> Path:
        new = self._root / f"{_NEW}{key}"
        new.unlink(missing_ok=True)
        return new

    def _publish(self, new: Path, key: int) -> None:
        new.rename(self.path(key))
        sync_path(self._root)


def reflink(origin: int, target: int) -> None:
    """Share all extents (FICLONE): one point in time; its cost follows the number of extents."""
    fcntl.ioctl(target, _FICLONE, origin)


def data_extents(path: Path) -> list[tuple[int, int]]:
    """(offset, length) of the file's data; the rest is holes. Synced first: what was new has no extent yet."""
    found: list[tuple[int, int]] = []
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
        size, at = os.fstat(descriptor).st_size, 0
        while at < size:
            try:
                at = os.lseek(descriptor, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                raise
            end = os.lseek(descriptor, at, os.SEEK_HOLE)
            found.append((at, end - at))
            at = end
    finally:
        os.close(descriptor)
    return found


def sparse_copy(origin: int, target: int) -> None:
    """Copy the data and leave the holes."""
    size = os.fstat(origin).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(origin, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(origin, at, os.SEEK_HOLE)
        while at < end:
            copied = os.copy_file_range(origin, target, min(end - at, _COPY_BYTES), at, at)
            if copied == 0:
                return
            at += copied


class Btrfs:
    """Objects as one subvolume each: clones cost the same whatever the size and the fragmentation."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, key: int) -> Path:
        return self._root / str(key) / "data"

    def create(self, key: int, size: int) -> None:
        with explained(f"creating object {key} of {size} bytes"):
            if not self.path(key).exists():
                new = self._new(key)
                self._ioctl(_BTRFS_SUBVOL_CREATE, _VOL_ARGS.pack(0, new.name.encode()))
                set_size(new / "data", size)
                self._publish(new, key)

    def set_room_aside(self) -> None:
        """Move the few tables of a new file system to a place of the ordinary size, at most a tenth of the pool.
        mkfs gives them 8 MiB; data that then took all the rest would leave no room for another object, for ever."""
        with explained("setting room aside for the pool's own tables"):
            self._ioctl(_BTRFS_BALANCE_V2, _BALANCE_ARGS.pack(_BALANCE_METADATA, b""))

    def clone(self, source: int, key: int, size: int) -> None:
        with explained(f"cloning object {source} to {key}"):
            if self.path(key).exists():
                return
            new = self._new(key)
            origin = os.open(self.path(source).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._ioctl(_BTRFS_SNAP_CREATE_V2, _VOL_ARGS_V2.pack(origin, 0, 0, b"", new.name.encode()))
            finally:
                os.close(origin)
            if (new / "data").stat().st_size != size:
                set_size(new / "data", size)
            self._publish(new, key)

    def delete(self, key: int) -> None:
        with explained(f"deleting object {key}"):
            self._destroy(str(key))
            self._reclaim()

    def _reclaim(self) -> None:
        """Have the space of what was deleted now, if the pool is short of it. Left alone, the kernel's cleaner wakes
        every half minute, and what it frees counts with the commit after that; a sync commits and wakes it.
        It frees a large object in pieces, so what counts is that the free space has grown and grows no more."""
        before = os.statvfs(self._root)
        if before.f_bavail >= before.f_blocks // _SHORT:
            return
        last = before.f_bavail
        for _ in range(_RECLAIM_TRIES):
            self._ioctl(_BTRFS_SYNC, b"")
            time.sleep(_RECLAIM_SECONDS)
            free = os.statvfs(self._root).f_bavail
            if before.f_bavail < free == last:
                return
            last = free

    def objects(self) -> list[int]:
        return _keys(self._root)

    def sweep(self) -> list[str]:
        left = [name for name in _names(self._root) if name.startswith(_NEW)]
        for name in left:
            self._destroy(name)
        return left

    def _new(self, key: int) -> Path:
        name = f"{_NEW}{key}"
        self._destroy(name)
        return self._root / name

    def _publish(self, new: Path, key: int) -> None:
        new.rename(self._root / str(key))
        sync_path(self._root)

    def _destroy(self, name: str) -> None:
        if (self._root / name).exists():
            self._ioctl(_BTRFS_SNAP_DESTROY, _VOL_ARGS.pack(0, name.encode()))

    def _ioctl(self, request: int, argument: bytes) -> None:
        root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(root, request, bytearray(argument))
        finally:
            os.close(root)


def store(kind: str, root: Path) -> Store:
    """The store for a pool of this kind: btrfs, xfs or plain."""
    match kind:
        case "btrfs":
            return Btrfs(root)
        case "xfs":
            return Files(root, reflink)
        case "plain":
            return Files(root, sparse_copy)
    raise BlocksError(f"pool of unknown kind {kind!r}")


def program(name: str) -> str | None:
    """The program's path, also where PATH lacks the sbin directories."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
