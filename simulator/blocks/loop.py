"""Loop devices by ioctl: made, found again, resized, fenced and taken away (linux/loop.h).

A device is ours when its tag, which only whoever configured it can have set, is the one we gave it; a number alone
proves nothing, because a free number is anybody's. Numbers are those of /dev/loopN.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from simulator.ports import BlocksError

_LOOP_CLR_FD = 0x4C01
_LOOP_SET_STATUS64 = 0x4C04
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_SET_CAPACITY = 0x4C07
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_BLKFLSBUF = 0x1261

_READ_ONLY = 1
_AUTOCLEAR = 4
_DIRECT_IO = 16

_CONTROL = Path("/dev/loop-control")
_SYS = Path("/sys/block")
_INFO = struct.Struct("=QQQQQIIII64s64s32s2Q")
_CONFIG_HEAD = struct.Struct("=II")
_CONFIG_TAIL = bytes(64)

SECTOR = 512
"""Logical block size of every device: partition tables of guests count in it."""
_BEYOND = 1 << 62
"""An offset that no backing file reaches: a device that starts there has no capacity."""
_RACES = 64
_FENCE_TRIES = 20


@dataclass(frozen=True, slots=True)
class Status:
    """What the kernel says of a configured device."""

    number: int
    tag: str
    flags: int
    offset: int
    device: int
    """st_dev of the backing file, as the kernel encodes it for user space."""
    inode: int

    @property
    def read_only(self) -> bool:
        return bool(self.flags & _READ_ONLY)

    @property
    def leaving(self) -> bool:
        """The device goes with its last opener."""
        return bool(self.flags & _AUTOCLEAR)

    @property
    def fenced(self) -> bool:
        return self.offset == _BEYOND

    @property
    def path(self) -> str:
        return device_path(self.number)


def device_path(number: int) -> str:
    return f"/dev/loop{number}"


def missing() -> str | None:
    """What this machine lacks for loop devices; None when they work."""
    if os.geteuid() != 0:
        return "root (loop devices and mounts need CAP_SYS_ADMIN)"
    if not _CONTROL.exists():
        return f"{_CONTROL} (kernel module loop: modprobe loop)"
    return None


@contextmanager
def configured(backing: Path, tag: str, *, read_only: bool, leaving: bool = False) -> Iterator[Status]:
    """A new device over `backing`, held open inside the block.

    With `leaving` it goes with its last user (a mount is one), so a process that dies before there is a user leaves
    nothing behind; without, it stays until `clear`.
    """
    file = os.open(backing, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    try:
        number, device = _take_free(file, tag, (_READ_ONLY * read_only) | (_AUTOCLEAR * leaving) | _DIRECT_IO)
    finally:
        os.close(file)
    try:
        status = _status(device, number)
        if status is None:
            raise BlocksError(f"{device_path(number)} was configured over {backing} and is not: the kernel lost it")
        yield status
    finally:
        os.close(device)


def _take_free(file: int, tag: str, flags: int) -> tuple[int, int]:
    """Configure a free device; others on this machine take free numbers too, so a lost race means the next one."""
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, tag.encode(), b"", b"", 0, 0)
    config = _CONFIG_HEAD.pack(file, SECTOR) + info + _CONFIG_TAIL
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_RACES):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = os.open(device_path(number), os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
                return number, device
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise BlocksError(f"configuring {device_path(number)} for {tag}: {error.strerror}") from error
    finally:
        os.close(control)
    raise BlocksError(
        f"no free loop device for {tag}: {_RACES} in a row were taken by others; is the machine out of them?"
    )


def _status(device: int, number: int) -> Status | None:
    try:
        raw = fcntl.ioctl(device, _LOOP_GET_STATUS64, bytes(_INFO.size))
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    fields = _INFO.unpack(raw)
    return Status(
        number=number,
        tag=fields[9].split(b"\0", 1)[0].decode(errors="replace"),
        flags=fields[8],
        offset=fields[3],
        device=fields[0],
        inode=fields[1],
    )


def _set_status(device: int, status: Status) -> None:
    raw = _INFO.pack(0, 0, 0, status.offset, 0, 0, 0, 0, status.flags, status.tag.encode(), b"", b"", 0, 0)
    fcntl.ioctl(device, _LOOP_SET_STATUS64, raw)


@contextmanager
def _opened(number: int, tag: str | None) -> Iterator[tuple[int, Status] | None]:
    """The device while it has this tag, or any; None when it has not. Open, it cannot become somebody else's."""
    try:
        device = os.open(device_path(number), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENODEV):
            raise
        yield None
        return
    try:
        status = _status(device, number)
        yield None if status is None or tag not in (None, status.tag) else (device, status)
    finally:
        os.close(device)


def find(tag: str, plausible: Callable[[Path], bool]) -> list[Status]:
    """Devices whose tag begins with `tag`, by number; only those with a plausible backing file are opened to look."""
    found = []
    for entry in _SYS.glob("loop*"):
        number = int(entry.name.removeprefix("loop"))
        file = backing(number)
        if file is None or not plausible(file):
            continue
        with _opened(number, None) as ours:
            if ours is not None and ours[1].tag.startswith(tag):
                found.append(ours[1])
    return sorted(found, key=lambda status: status.number)


def backing(number: int) -> Path | None:
    """The file behind the device; None when it has none. A file that was deleted keeps its path here."""
    try:
        text = (_SYS / f"loop{number}/loop/backing_file").read_text()
    except OSError:
        return None
    return Path(text.rstrip("\n").removesuffix(" (deleted)"))


def clear(number: int, tag: str, *, force: bool) -> bool:
    """Take the device away; whether it is gone.

    The kernel never refuses: a device that is open is marked to go with its last opener. Without `force` that mark is
    removed again, so that an open device is left as it was. True for a device that is gone or not ours.
    """
    with _opened(number, tag) as ours:
        if ours is None:
            return True
        fcntl.ioctl(ours[0], _LOOP_CLR_FD)
    with _opened(number, tag) as ours:
        if ours is None:
            return True
        device, status = ours
        if not force:
            _set_status(device, replace(status, flags=status.flags & ~_AUTOCLEAR))
    return False


@contextmanager
def leaving(number: int, tag: str) -> Iterator[bool]:
    """Take the device away; whether it goes. One that somebody has open is left as it was.

    Where `holds_numbers`, the number of a device that goes becomes free no earlier than the block ends.
    """
    with _opened(number, tag) as ours:
        if ours is None:
            yield True
            return
        device, status = ours
        fcntl.ioctl(device, _LOOP_CLR_FD)
        gone = _status(device, number) is None
        if not gone:
            _set_status(device, replace(status, flags=status.flags & ~_AUTOCLEAR))
        yield gone


def holds_numbers(file: Path) -> bool:
    """Whether this kernel keeps the number of a device that was taken away until whoever did that closes it, as kernels
    do since 2024; tried with a device over the file."""
    backing_file = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        number, device = _take_free(backing_file, "splab:try", _READ_ONLY | _AUTOCLEAR)
    finally:
        os.close(backing_file)
    try:
        fcntl.ioctl(device, _LOOP_CLR_FD)
        return backing(number) is not None
    finally:
        os.close(device)


def stay(number: int, tag: str) -> None:
    """Remove the mark that lets the device go with its last opener."""
    with _opened(number, tag) as ours:
        if ours is not None and ours[1].leaving:
            _set_status(ours[0], replace(ours[1], flags=ours[1].flags & ~_AUTOCLEAR))


def fence(number: int, tag: str) -> None:
    """Fail all I/O from now on, of those too who have the device open.

    Requests that were begun are finished first. The device has no capacity afterwards and never gets it back.
    """
    for attempt in range(_FENCE_TRIES):
        with _opened(number, tag) as ours:
            if ours is None or ours[1].fenced:
                return
            try:
                _set_status(ours[0], replace(ours[1], offset=_BEYOND))
                return
            except OSError as error:
                # The kernel wants the device's page cache empty, and its users may be filling it.
                if error.errno != errno.EAGAIN or attempt == _FENCE_TRIES - 1:
                    raise BlocksError(f"fencing {device_path(number)}: {error.strerror}") from error
        time.sleep(0.01)


def refresh_size(number: int, tag: str) -> None:
    """Show the backing file's size."""
    with _opened(number, tag) as ours:
        if ours is not None:
            fcntl.ioctl(ours[0], _LOOP_SET_CAPACITY)


def drop_cache(number: int, tag: str) -> None:
    """Forget cached blocks: the backing file was written beside the device."""
    with _opened(number, tag) as ours:
        if ours is not None:
            fcntl.ioctl(ours[0], _BLKFLSBUF)


def exclusive(number: int) -> bool:
    """Whether a mount or another exclusive user has the device."""
    try:
        os.close(os.open(device_path(number), os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        if error.errno not in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            raise
    return False
