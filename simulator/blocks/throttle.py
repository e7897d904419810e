"""Limits of a block device by the block layer's throttle in the root cgroup (cgroup v1, blkio).

A rule outlives its device and would hit the next one of that number, so rules are written when a device is made and
taken back when it goes. They hold for whoever has no blkio cgroup of his own, as everything of a local lab.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup/blkio")
_FILES = {
    kind: f"{_ROOT}/blkio.throttle.{kind}_device" for kind in ("read_bps", "write_bps", "read_iops", "write_iops")
}
"""By kind of rule. They are written with every attach and detach, where Path would be most of what that costs."""
STOPPED = 1
"""Bytes a second: as good as none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of all reads, and of all writes, to one device; 0 is unlimited."""

    iops: int = 0
    bytes_per_second: int = 0


NONE = Limits()


def missing() -> str | None:
    """Why this machine cannot limit devices; None when it can."""
    if not os.access(rule_file("write_bps"), os.W_OK):
        return f"{rule_file('write_bps')}: the blkio controller of cgroup v1 is not mounted, or this is not root"
    return None


def rule_file(kind: str) -> Path:
    """Of one kind of rule: read_bps, write_bps, read_iops or write_iops."""
    return Path(_FILES[kind])


def device_id(number: int) -> str:
    """`major:minor` of /dev/loopN."""
    status = Path(f"/dev/loop{number}").stat()
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def limit(number: int, limits: Limits) -> None:
    """From now on, whatever held before. Raises `OSError`."""
    device = device_id(number)
    for kind, value in rules(limits).items():
        _write(kind, f"{device} {value}")


def rules(limits: Limits) -> dict[str, int]:
    """Values by kind of rule; 0 takes a rule back."""
    bps, iops = limits.bytes_per_second, limits.iops
    return {"read_bps": bps, "write_bps": bps, "read_iops": iops, "write_iops": iops}


def stop_writes(number: int) -> None:
    """Writes that have not been begun wait from now on; whoever made them cannot be killed meanwhile."""
    _write("write_bps", f"{device_id(number)} {STOPPED}")


def _write(kind: str, rule: str) -> None:
    file = os.open(_FILES[kind], os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, rule.encode())
    finally:
        os.close(file)


def writes_under_way(number: int) -> int:
    """Writes that the device has begun and not finished."""
    _reads, writes = Path(f"/sys/block/loop{number}/inflight").read_text().split()
    return int(writes)


def changes_finished(number: int) -> tuple[int, int]:
    """Writes and discards that the device has finished. Equal at two moments, with no write under way at either, they
    mean that nothing was changed between them."""
    fields = Path(f"/sys/block/loop{number}/stat").read_text().split()
    return int(fields[4]), int(fields[11])
