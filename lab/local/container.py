"""Containers of this machine: in each, a local lab can be up beside those in others.

A lab's names and addresses are the machine's. A container has network, mount, UTS and IPC namespaces of its own, with
its own /run, and sees of cgroup2 its own cgroup only, so that the same names and addresses are free in each. It shares
the machine's file systems and loop devices: each lab keeps its state in a directory of its own.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import image, probe
from lab.errors import LabError
from lab.local import cgroup, machine_lock
from lab.local.down import take_down
from lab.local.layout import State
from lab.local.ledger import Kind, Ledger
from lab.local.machines import MOUNT_POINTS, folder_of
from lab.shell import Progress, silent

_ENTER = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
_SET_UP = (
    "mount -t tmpfs -o mode=755 tmpfs /run && mkdir -m 1777 /run/lock && mkdir /run/netns"
    ' && mount --bind "$1" "$0" && shift && ip link set lo up && exec "$@"'
)
_NAMESPACES = ("--mount", "--net", "--uts", "--ipc")


@dataclass(frozen=True, slots=True)
class Container:
    """One container, named by its cgroup. It is there as long as a process runs in it."""

    cgroup: Path
    state: State
    """Of the lab that is brought up in it."""

    def start(self, argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program in it, with pipes to its standard input and output; errors are written to `log`."""
        inside = ["/bin/sh", "-c", _SET_UP, str(cgroup.mount_point()), str(self.cgroup), *argv]
        entered = ["unshare", *_NAMESPACES, "--propagation", "slave", "--", *inside]
        with log.open("wb") as errors:
            return subprocess.Popen(
                ["/bin/sh", "-c", _ENTER, str(self.cgroup), *entered],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "SPLAB_STATE": str(self.state.root)},
            )


def make(root: Path, count: int, progress: Progress = silent) -> list[Container]:
    """Make ready for so many labs, with their states below `root`; what an earlier run left there is removed first.

    Raises `LabError` when a lab is up, `MissingPrerequisite` for what this machine has not. `down.down(root)` removes
    everything again, also after a crash or kill.
    """
    state = State(root.resolve())
    with machine_lock.exclusive():
        machine_lock.refuse_other(state.root)
        if state.lab_file.exists():
            raise LabError(f"the local lab of {state.root} is up; others can be beside it only when it is down")
        take_down(state, progress)
        # Else each lab would make the guest image, and try the accelerator.
        cache = image.cache_directory()
        image.build(cache, progress)
        probe.accelerator(cache, progress)
        machine_lock.OWNER.write_text(str(state.root))
        try:
            return _make_all(state, count)
        except BaseException:
            take_down(state, progress)
            raise


def _make_all(state: State, count: int) -> list[Container]:
    ledger = Ledger(state.ledger, machine_lock.LEDGER_COPY)
    for directory in MOUNT_POINTS:
        if not directory.exists():
            ledger.record(Kind.DIRECTORY, directory)
            directory.mkdir()
    return [_make(ledger, state, number) for number in range(1, count + 1)]


def _make(ledger: Ledger, state: State, number: int) -> Container:
    own = State(state.root / f"lab{number}")
    ledger.record(Kind.TREE, own.root)
    ledger.record(Kind.SIMULATOR, own.storpool)
    ledger.record(Kind.SIMULATOR, own.second_storpool)
    ledger.record(Kind.CGROUP, folder_of(""))
    own.root.mkdir(mode=0o700)
    container = Container(folder_of("") / own.root.name, own)
    container.cgroup.mkdir(parents=True)
    return container
