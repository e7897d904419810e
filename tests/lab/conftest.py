"""What tests of the lab share: the machine's listings, and the local lab itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.local import down

Listing = dict[str, set[str]]


@pytest.fixture
def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: the local lab makes namespaces, loop devices and guests")


def _lines(*argv: str) -> set[str]:
    return set(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines())


def _processes(about: str) -> set[str]:
    """Command lines that speak of `about`, and every process in another network namespace than ours."""
    own = Path("/proc/self/ns/net").readlink()
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if about in words or (directory / "ns/net").readlink() != own:
                found.add(f"{directory.name} {words}")
        except OSError:
            continue
    return found


@pytest.fixture
def listing() -> Callable[[str], Listing]:
    """Full listings of what a lab could leave behind on this machine."""

    def take(about: str) -> Listing:
        return {
            "network namespaces": _lines("ip", "netns", "list") | _lines("lsns", "-n", "-t", "net", "-o", "NS"),
            "mount namespaces": _lines("lsns", "-n", "-t", "mnt", "-o", "NS"),
            "links": _lines("ip", "-br", "link"),
            "addresses": _lines("ip", "-br", "address"),
            "loop devices": _lines("losetup", "-l", "-n", "-O", "NAME,BACK-FILE"),
            "mounts": set(Path("/proc/self/mounts").read_text().splitlines()),
            "cgroups": {str(path) for path in Path("/sys/fs/cgroup").rglob("*splab*")},
            "throttles": _throttles(),
            "processes": _processes(about),
            "device folders": {str(path) for path in Path("/dev").glob("storpool*")},
            "run": {str(path) for path in Path("/run").iterdir() if path.name not in ("lock", "mount")},
        }

    return take


def _throttles() -> set[str]:
    found: set[str] = set()
    for name in ("read_bps", "write_bps", "read_iops", "write_iops"):
        file = Path(f"/sys/fs/cgroup/blkio/blkio.throttle.{name}_device")
        if file.exists():
            found |= {f"{name} {line}" for line in file.read_text().splitlines()}
    return found


@pytest.fixture
def state_directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where a lab of this test keeps its state; taken down afterwards whatever happened."""
    request.getfixturevalue("needs_root")
    path = Path("/var/lib/splab-test")
    down(path)
    yield path
    down(path)
