"""What must be true of hosts and blocks at every moment, whatever fails: looked at after each event of a run.

Only objects that were touched since the last look are looked at, so that a look costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from harness.spi.ports import DomainState
from harness.worlds.memory.machine import Machine
from harness.worlds.memory.model_domain import ModelDomain

_ON = (DomainState.RUNNING, DomainState.PAUSED)


class Watched(Protocol):
    """What is looked at of blocks; clients go by `Machine.place`."""

    @property
    def touched(self) -> dict[int, None]: ...

    def openers(self, key: int) -> Mapping[int | None, int]: ...

    def size(self, key: int) -> int: ...

    def rights(self, key: int, client: int, /) -> str | None: ...


class Safety:
    """Over the machines and blocks of one world."""

    def __init__(self, machines: tuple[Machine, ...], blocks: Watched, *, shrinks: bool = False) -> None:
        """With `shrinks` a volume that grew may be asked to shrink again, so that this tells nothing."""
        self._machines = machines
        self._blocks = blocks
        self._shrinks = shrinks
        self._names = {machine.place: machine.name for machine in machines}
        self._open: dict[int, int] = {}
        """Size of every object that somebody has open."""
        self._least: dict[int, int] = {}
        """The smallest that each was since it is open."""
        self.looks = 0
        """How often something was looked at."""

    def violated(self) -> tuple[str, str] | None:
        """The rule that is broken and where; None while all is well."""
        touched = self._blocks.touched
        if not touched:
            return None
        self.looks += 1
        keys = list(touched)
        touched.clear()
        for key in keys:
            found = self._object(key)
            if found is not None:
                return found
        return self._domains()

    def _object(self, key: int) -> tuple[str, str] | None:
        blocks = self._blocks
        openers = blocks.openers(key)
        before, least = self._open.pop(key, None), self._least.pop(key, None)
        if not openers:
            # An object that is gone has no openers either; who had it open still looks at it.
            if before is not None and any(disk.key == key for m in self._machines for disk in m.open_disks()):
                return "nothing that is open is deleted", f"object {key} is gone, and a running domain has it open"
            return None
        size = self._open[key] = blocks.size(key)
        self._least[key] = size if least is None else min(size, least)
        seen = [disk.size for machine in self._machines for disk in machine.open_disks() if disk.key == key]
        if not seen and before is not None and before != size:
            return "nothing that a program writes changes its size", f"object {key} had {before} bytes, and has {size}"
        if (
            not self._shrinks
            and before is not None
            and least is not None
            and least <= size < min(before, max(seen, default=0))
        ):
            # To be cut smaller than it ever was is something that was asked for; this is a growth that is undone.
            where = f"object {key} has {size} bytes again, and a guest was told of {max(seen)}"
            return "no growth is taken back that a guest was told of", where
        if all(self._reads(client, key) for client in openers):
            return None
        writers = self._writers(key, openers)
        if len(writers) > 1:
            hosts = " and ".join(self._name(client) for client in writers)
            return "no object is open for writing on two hosts", f"object {key} is open on {hosts}"
        for client, times in writers.items():
            if times > 1:
                where = f"object {key} is open {times} times on {self._name(client)}"
                return "no object is open for writing twice on one host", where
        for client in openers:
            rights = None if client is None else blocks.rights(key, client)
            if rights != "rw":
                where = f"object {key} is open on {self._name(client)}, where it is attached {rights or 'not at all'}"
                return "what is open is attached there, read-write", where
        return None

    def _domains(self) -> tuple[str, str] | None:
        seen: dict[str, str] = {}
        for machine in self._machines:
            for name, domain in machine.domains.items():
                if domain.state not in _ON or domain.inactive:
                    continue
                if name in seen:
                    return "no VM runs on two hosts", f"domain {name} runs on {seen[name]} and {machine.name}"
                seen[name] = machine.name
        return None

    def _users(self, key: int) -> list[tuple[Machine, ModelDomain]]:
        """Domains whose QEMU has it open, once for each of their disks."""
        return [
            (machine, domain)
            for machine in self._machines
            for domain in machine.domains.values()
            for disk in domain.disks
            if disk.key == key
        ]

    def _writers(self, key: int, openers: Mapping[int | None, int]) -> dict[int | None, int]:
        """Openers without a QEMU that waits for the other one of a migration: at no time may both write."""
        writers = dict(openers)
        for machine, domain in self._users(key):
            if domain.inactive and machine.place in writers:
                writers[machine.place] -= 1
        return {client: times for client, times in writers.items() if times > 0}

    def _reads(self, client: int | None, key: int) -> bool:
        """Whether a program of the host has it open, which is attached there, to read it, and no domain has."""
        machine = next((machine for machine in self._machines if machine.place == client), None)
        if machine is None or client is None or self._blocks.rights(key, client) is None:
            return False
        reads = any(program.reads == key for program in machine.programs)
        return reads and not any(disk.key == key for disk in machine.open_disks())

    def _name(self, client: int | None) -> str:
        return self._names.get(client or 0, f"client {client}")
