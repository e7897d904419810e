"""Disks that guests were asked to let go and have not."""

from __future__ import annotations

from harness.spi.runtime import Runtime

LIMIT = 1024
"""Remembered at most; the oldest is forgotten first, and then asked again too soon at worst."""


class Unplugs:
    """Requests that the guests have not answered, by domain and device path.

    While a guest lets a disk go, QEMU says for some 50 ms that it has no such device, although it still has it open. A
    request that libvirt passes on in that time makes it drop the disk from the XML and never close the device. So a
    guest that was asked is given time before it is asked again, also by a later command.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._guard = runtime.lock("unplugs")
        self._asked: dict[tuple[str, str], None] = {}

    def asked(self, domain: str, path: str) -> None:
        with self._guard:
            self._asked[domain, path] = None
            if len(self._asked) > LIMIT:
                del self._asked[next(iter(self._asked))]

    def pending(self, domain: str, path: str) -> bool:
        with self._guard:
            return (domain, path) in self._asked

    def over(self, domain: str, path: str | None = None) -> None:
        """The disk is gone; without `path`, so is the domain."""
        with self._guard:
            for key in [key for key in self._asked if key[0] == domain and path in (None, key[1])]:
                del self._asked[key]
