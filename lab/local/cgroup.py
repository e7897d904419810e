"""cgroup2 folders: a lab machine runs in one, so that it can be killed, frozen and proved gone as a whole."""

from __future__ import annotations

import time
from pathlib import Path

from lab.errors import LabError, MissingPrerequisite


def mount_point() -> Path:
    """Where cgroup2 is mounted, pure or beside version 1. Raises `MissingPrerequisite` when it is not."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup2":
            return Path(fields[1])
    raise MissingPrerequisite(
        "cgroup2 is not mounted: mkdir -p /sys/fs/cgroup/unified; mount -t cgroup2 none /sys/fs/cgroup/unified"
    )


def processes(folder: Path) -> list[int]:
    """Processes in it and in the folders below it."""
    found: list[int] = []
    for file in folder.rglob("cgroup.procs"):
        try:
            found += [int(word) for word in file.read_text().split()]
        except OSError:
            continue
    return sorted(found)


def kill(folder: Path) -> None:
    """SIGKILL everything in it, frozen or not; returns at once."""
    if not folder.exists():
        return
    for part in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        (part / "cgroup.freeze").write_text("0")
    (folder / "cgroup.kill").write_text("1")


def wait_empty(folder: Path, seconds: float = 15) -> bool:
    """Whether nothing runs in it any more, after at most `seconds`."""
    deadline = time.monotonic() + seconds
    while processes(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def remove(folder: Path) -> None:
    """Kill what is in it and remove it. Raises `LabError` naming the processes that do not die."""
    if not folder.exists():
        return
    kill(folder)
    if not wait_empty(folder):
        raise LabError(f"processes {processes(folder)} in {folder} were killed and do not end; they wait for a device")
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        _remove_directory(path)
    _remove_directory(folder)


def _remove_directory(folder: Path) -> None:
    """The kernel takes a moment between the last process's end and letting the folder go."""
    deadline = time.monotonic() + 5
    while folder.exists():
        try:
            folder.rmdir()
        except OSError as error:
            if time.monotonic() > deadline:
                raise LabError(f"cannot remove {folder}: {error}") from error
            time.sleep(0.02)
