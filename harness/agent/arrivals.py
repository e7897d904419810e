"""Disks that were attached here for a VM that is about to be migrated here."""

from __future__ import annotations

from harness.spi.runtime import Runtime

AWAITED_SECONDS = 120.0
"""How long after its preparation a VM may take to show up; its migration is asked for right after it."""


class Arrivals:
    """What is attached and in no domain yet, and is not to be taken for something that was left.

    In memory only: an agent that starts finds attachments without a domain, and then the migration fails in good order.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._guard = runtime.lock("arrivals")
        self._awaited: dict[str, tuple[float, frozenset[str]]] = {}
        """By VM: until when, in seconds of the runtime's monotonic clock, and its devices."""

    def expect(self, vm: str, paths: frozenset[str]) -> None:
        with self._guard:
            self._awaited[vm] = (self._runtime.monotonic() + AWAITED_SECONDS, paths)

    def over(self, vm: str) -> None:
        """It was taken down, or does not come."""
        with self._guard:
            self._awaited.pop(vm, None)

    def arrived(self, vm: str) -> frozenset[str]:
        """It is here: its devices, if it was awaited."""
        with self._guard:
            return self._awaited.pop(vm, (0.0, frozenset[str]()))[1]

    def paths(self) -> set[str]:
        """Devices of all that are still awaited."""
        now = self._runtime.monotonic()
        with self._guard:
            self._awaited = {vm: (until, paths) for vm, (until, paths) in self._awaited.items() if until > now}
            return {path for _, paths in self._awaited.values() for path in paths}
