"""`harness.observers.Guest` over the model machines: finds the VM's domain wherever it runs, for each call anew.

Kinder than a real guest: it has no cache, so what it wrote is on its disk, and no disk of it is ever slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from harness.spi.runtime import Runtime
from harness.worlds.memory.machine import Machine
from harness.worlds.memory.model_domain import Boot, ModelDisk, ModelDomain

BOOT_TIMEOUT = 120.0
POLL_SECONDS = 0.5
COUNTED = 4096
WRITE_SECONDS = 0.003
"""What a write and its flush take."""


class ModelGuest:
    """The guest of one VM. `instance_name` gives the name of its domain; `runtime` is the caller's.

    A real guest that still boots answers nothing, and only `boot_id` and `booted_from` wait for it. So with
    `waited_for`, the boot ids that were asked for, anything else is a `ConnectionError` in a boot that nobody has
    waited for, be the guest up by chance or not. Without it, everything waits.
    """

    def __init__(
        self,
        runtime: Runtime,
        machines: Sequence[Machine],
        instance_name: Callable[[], str],
        waited_for: set[str] | None = None,
    ) -> None:
        self._waited_for = waited_for
        self._runtime = runtime
        self._machines = machines
        self._instance_name = instance_name

    def ready(self) -> None:
        name = self._instance_name()
        deadline = self._runtime.monotonic() + BOOT_TIMEOUT
        while self._running(name) is None:
            if self._runtime.monotonic() >= deadline:
                raise TimeoutError(f"the guest of {name} was not ready in {BOOT_TIMEOUT:g} s: {self._states(name)}")
            self._runtime.sleep(POLL_SECONDS)

    def boot_id(self) -> str:
        return self._wait()[1].boot_id

    def booted_from(self) -> str:
        return "cdrom" if self._wait()[1].boot is Boot.CD else "disk"

    def disks(self) -> Mapping[str, int]:
        domain = self._up()[1]
        return {disk.serial: disk.size for disk in domain.disks if disk.seen}

    def write(self, serial: str, offset: int, data: bytes) -> None:
        machine, disk = self._disk(serial, offset + len(data))
        machine.storage.write(disk, offset, data)

    def read(self, serial: str, offset: int, length: int) -> bytes:
        machine, disk = self._disk(serial, offset + length)
        return machine.storage.read(disk, offset, length)

    @contextmanager
    def counting(self, serials: Sequence[str], offset: int) -> Iterator[None]:
        over = self._runtime.event("counted enough")

        def count() -> None:
            number = 0
            while not over.is_set():
                number += 1
                for serial in serials:
                    self.write(serial, offset, str(number).encode().ljust(COUNTED))
                    self._runtime.sleep(WRITE_SECONDS)

        task = self._runtime.spawn("guest counts", count)
        try:
            yield
        finally:
            over.set()
            task.join()

    def poweroff(self) -> None:
        machine, domain = self._up()
        machine.press_power_button(domain)

    def _disk(self, serial: str, end: int) -> tuple[Machine, ModelDisk]:
        """The disk, which is open; `OSError` when `end` is past what the guest sees of it."""
        machine, domain = self._up()
        found: list[ModelDisk] = [disk for disk in domain.disks if disk.serial == serial]
        if len(found) != 1 or not found[0].seen:
            known = ", ".join(disk.serial for disk in domain.disks)
            raise FileNotFoundError(f"the guest of {domain.name} has no disk with serial {serial}; it has {known}")
        if end > found[0].size:
            raise OSError(f"the guest of {domain.name} sees {found[0].size} bytes on disk {serial}, not {end}")
        return machine, found[0]

    def _up(self) -> tuple[Machine, ModelDomain]:
        machine, domain = self._find()
        if self._waited_for is not None and domain.boot_id not in self._waited_for:
            raise ConnectionError(f"the guest of {domain.name} may still be booting: boot_id waits for it")
        return machine, domain

    def _wait(self) -> tuple[Machine, ModelDomain]:
        machine, domain = self._find()
        if self._waited_for is not None:
            self._waited_for.add(domain.boot_id)
        return machine, domain

    def _find(self) -> tuple[Machine, ModelDomain]:
        """Where the guest answers, as soon as it does; `TimeoutError` when it does not in time."""
        name = self._instance_name()
        deadline = self._runtime.monotonic() + BOOT_TIMEOUT
        while True:
            if (found := self._running(name)) is not None:
                if found[1].boot is Boot.IDLE:
                    raise ConnectionError(f"the guest of {name} is idle: it has no system to log in to")
                return found
            if self._runtime.monotonic() >= deadline:
                raise TimeoutError(f"the guest of {name} did not answer in {BOOT_TIMEOUT:g} s: {self._states(name)}")
            self._runtime.sleep(POLL_SECONDS)

    def _running(self, name: str) -> tuple[Machine, ModelDomain] | None:
        for machine in self._machines:
            domain = machine.domains.get(name)
            if domain is not None and machine.up(domain):
                return machine, domain
        return None

    def _states(self, name: str) -> str:
        seen = [
            f"{domain.state} on {machine.name}, {domain.boot.value}"
            for machine in self._machines
            if (domain := machine.domains.get(name)) is not None
        ]
        return "; ".join(seen) or "no host has its domain"
