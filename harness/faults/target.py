"""What can befall a world. Times are seconds of the world's clock."""

from __future__ import annotations

from typing import Protocol


class FaultTarget(Protocol):
    """A world that faults strike. Each call returns at once; what it did ends by itself after `seconds`."""

    def kill(self, process: str, seconds: float) -> None:
        """SIGKILL; the process is started again `seconds` later, as its service manager would.

        Does not return when a task of that process calls.
        """
        ...

    def lose_host(self, host: str, seconds: float) -> None:
        """The host's power is cut: agent and every QEMU end. It is up again `seconds` later, without its VMs."""
        ...

    def kill_guests(self, host: str) -> None:
        """SIGKILL of every QEMU of the host."""
        ...

    def hang(self, seconds: float) -> None:
        """The task that calls stands still."""
        ...

    def libvirtd_gone(self, host: str, seconds: float) -> None:
        """libvirtd of the host does not answer; its domains run on."""
        ...

    def devices_late(self, host: str, seconds: float) -> None:
        """Devices that the host does not have yet show up only then."""
        ...

    def devices_stale(self, host: str, seconds: float) -> None:
        """Devices that the host does not have yet show a wrong size until then."""
        ...

    def secondary_stalled(self, seconds: float) -> None:
        """The NFS export does not answer."""
        ...

    def secondary_full(self, seconds: float) -> None:
        """Nothing more can be written to the NFS export."""
        ...

    def pool_full(self, seconds: float) -> None:
        """StorPool has no space left."""
        ...

    def storpool_dies(self, seconds: float, *, after: bool) -> None:
        """StorPool is killed at its next effect: before it, or with `after` between it and its commit.

        It is started again `seconds` later.
        """
        ...

    def set_clock(self, process: str, seconds: float) -> None:
        """The wall clock of the process's machine jumps by so much and stays wrong."""
        ...
