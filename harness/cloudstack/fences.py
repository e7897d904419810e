"""Ways to switch a KVM host off: a program (of its power supply, say), or the cgroup that a lab's host runs in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec

from harness.spi.errors import Error
from harness.spi.runtime import Runtime

COMMAND_SECONDS = 60.0
KILL_SECONDS = 15.0
POLL_SECONDS = 0.05


class FenceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one host: either of the two."""

    command: tuple[str, ...] | None = None
    """A program and its arguments that ends with status 0 once the host is off, also when it was."""
    cgroup: str | None = None
    """Directory (cgroup2) of everything that runs on a host of the local lab."""


class CommandFence:
    def __init__(self, argv: tuple[str, ...]) -> None:
        self._argv = argv

    def fence(self) -> None:
        try:
            done = subprocess.run(self._argv, capture_output=True, timeout=COMMAND_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Error(f"{self._argv[0]} could not switch the host off: {type(error).__name__}") from error
        if done.returncode != 0:
            raise Error(f"{self._argv[0]} could not switch the host off: exit status {done.returncode}")


class CgroupFence:
    """Kills what runs in the host's own cgroup, and nothing else."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self._runtime = runtime
        self._folder = folder

    def fence(self) -> None:
        if not self._folder.is_dir():
            raise Error(f"{self._folder} is no cgroup, so it is not known what runs on the host")
        try:
            (self._folder / "cgroup.freeze").write_text("0")
            (self._folder / "cgroup.kill").write_text("1")
        except OSError as error:
            raise Error(f"{self._folder} could not be killed: {error.strerror}") from error
        deadline = self._runtime.monotonic() + KILL_SECONDS
        while self._processes():
            if self._runtime.monotonic() > deadline:
                raise Error(f"processes in {self._folder} were killed and do not end")
            self._runtime.sleep(POLL_SECONDS)

    def _processes(self) -> list[str]:
        found: list[str] = []
        try:
            for file in self._folder.rglob("cgroup.procs"):
                found += file.read_text().split()
        except OSError as error:
            # A child may go while it is looked at.
            return [f"not known: {error.strerror}"]
        return found


def make_fence(runtime: Runtime, config: FenceConfig) -> CommandFence | CgroupFence:
    if (config.command is None) == (config.cgroup is None):
        raise Error("a fence is either a command or a cgroup")
    if config.cgroup is not None:
        return CgroupFence(runtime, Path(config.cgroup))
    return CommandFence(config.command or ())
