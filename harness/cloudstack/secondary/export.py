"""Files of the export: paths that never leave it, writes that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from harness.spi.commands import USERDATA
from harness.spi.errors import Conflict, Error, InsufficientCapacity, InvalidParameter, NotFound, Unavailable

PART = ".part"
"""Ends the name of a file that is being written; what a crash leaves is overwritten by the next try."""
WRITTEN_BY_HOSTS = ("snapshots", "template/tmpl/2", "volumes", "primary")
"""Directories that hosts write backups of snapshots, templates of the one account, copies of volumes, and volumes of a
primary storage pool to. They are always there: QEMU's NFS client makes no directories."""


class Export:
    def __init__(self, directory: Path) -> None:
        self._root = directory.resolve()
        self._kept = {self._root / name for name in ("", *WRITTEN_BY_HOSTS, USERDATA)}
        for directory in self._kept:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _storage_error(directory, error) from error

    def locate(self, path: str) -> Path:
        """Where the file at `path`, relative to the export, is; raises `InvalidParameter` when it would be outside."""
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\x00" in path or len(path) > 1024:
            raise InvalidParameter(f"path {path[:200]!r} is not a file inside the export")
        found = self._root.joinpath(*parts)
        # A symbolic link on the way could lead out.
        if found.is_symlink() or not found.parent.resolve().is_relative_to(self._root):
            raise InvalidParameter(f"path {path[:200]!r} leads out of the export")
        return found

    @contextmanager
    def writing(self, target: Path) -> Iterator[tuple[Path, IO[bytes]]]:
        """A file beside `target` to write to; it takes the target's place when the block ends well."""
        part = target.with_name(f".{target.name}{PART}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            with part.open("xb") as file:
                yield part, file
                file.flush()
                os.fsync(file.fileno())
            part.chmod(0o644)
            part.replace(target)
            _sync_directory(target.parent)
        except OSError as error:
            raise _storage_error(target, error) from error
        finally:
            self._discard(part)

    def publish(self, target: Path, link: Path) -> None:
        """Give the file a second name; no error when it has it. Raises `NotFound` when there is no such file."""
        try:
            os.link(target, link, follow_symlinks=False)
        except FileNotFoundError:
            raise NotFound(f"{target.name} is not on the image store, so it cannot be downloaded") from None
        except FileExistsError:
            if not link.samefile(target):
                raise Conflict(f"another file than {target.name} is downloaded by the name it was to have") from None
        except OSError as error:
            raise _storage_error(target, error) from error

    def delete(self, target: Path) -> None:
        """Delete the file, then the directory that it leaves empty. No error when it is missing."""
        try:
            if target.is_dir():
                raise InvalidParameter(f"{target.name} is a directory of the export; only files are deleted")
            target.unlink(missing_ok=True)
        except OSError as error:
            raise _storage_error(target, error) from error
        self._prune(target.parent)

    def _discard(self, part: Path) -> None:
        try:
            part.unlink(missing_ok=True)
        except OSError:
            return
        if not part.with_name(part.name[1 : -len(PART)]).exists():
            self._prune(part.parent)

    def _prune(self, directory: Path) -> None:
        """Its parents stay: an NFS server that knew them refuses to mount what is made anew under their names."""
        if directory in self._kept or not directory.is_relative_to(self._root):
            return
        try:
            directory.rmdir()
        except OSError:
            return


def _storage_error(target: Path, error: OSError) -> Error:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InsufficientCapacity(f"no space left on the image store for {target.name}")
    return Unavailable(f"the image store cannot work on {target.name}: {error.strerror}")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
