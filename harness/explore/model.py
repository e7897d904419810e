"""What clients were told, and what can be true after it.

For each VM and each DATA volume there is a register: its state, or the VM that has it. Each request that writes it is a
write that began at one time and ended at another. A request that was answered with success is certain to have taken
effect between the two; any other may take effect at any time from its beginning on, or never. So what can be true is
what some write wrote that no certain write has followed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

ABSENT = "absent"
"""Of VMs and volumes that do not exist, or no more."""
RUNNING, STOPPED, DESTROYED, ERROR, EXPUNGING = "Running", "Stopped", "Destroyed", "Error", "Expunging"
FREE = "free"
"""Of a volume that no VM has."""
BACKED_UP, BROKEN = "BackedUp", "Error"
"""Of a snapshot."""
FROM = "from "
"""Before the name of a snapshot, in what a volume holds: whatever was the snapshot's."""
SIZE, OFFERING = "size", "offering"
"""Facts of a volume, beside what each client wrote to it."""
DELETING = "Destroy"
"""Of a volume that is marked to be deleted."""

MARK_BYTES = 512
MARKS_AT = 2 << 20
"""Where marks lie on a disk: the guest image has nothing there."""


@dataclass(slots=True)
class Write:
    values: tuple[str, ...]
    """What it may write; once it is certain, only one."""
    began: int
    ended: int | None = None
    """None while it may still take effect."""
    certain: bool = False


@dataclass(slots=True)
class Register:
    value: str = ABSENT
    """Before any write."""
    writes: list[Write] = field(default_factory=list)

    def possible(self) -> set[str]:
        """What it can be now."""
        last = max((write.began for write in self.writes if write.certain), default=None)
        if last is None:
            return {self.value, *(value for write in self.writes for value in write.values)}
        return {value for write in self.writes if write.ended is None or write.ended >= last for value in write.values}

    def during(self, first: int, last: int | None) -> set[str]:
        """What it can have been at some time between the two; without a last one until ever."""
        over = [write for write in self.writes if write.certain and write.ended is not None and write.ended < first]
        settled = max((write.began for write in over), default=None)
        values = set() if settled is not None else {self.value}
        for write in self.writes:
            begun = last is None or write.began <= last
            if begun and (settled is None or write.ended is None or write.ended >= settled):
                values.update(write.values)
        return values


@dataclass(slots=True)
class Told:
    """A VM, volume or snapshot of a plan."""

    name: str
    """In CloudStack, of the plan's slot."""
    register: Register = field(default_factory=Register)
    id: str | None = None
    asked: bool = False
    """Whether its making was asked for; without an id it may exist all the same."""
    instance_name: str = ""
    """Of a VM: name of its domain."""
    path: str = ""
    """Of a volume, once it was told."""
    releases: list[Write] = field(default_factory=list)
    """Of a VM: when it may have let its DATA volumes go."""
    late_on: set[str] = field(default_factory=set)
    """Of a volume: hosts where a copy of its attaching arrives late, and leaves it attached until somebody looks."""
    unconfirmed: bool = False
    """A VM that was stopped by force: it may run on until its host answers, and starts nowhere before."""
    facts: dict[str, Register] = field(default_factory=dict)
    """Of a volume: its size in bytes, the id of its offering, and what each client wrote to it."""
    origin: Told | None = None
    """Of a volume the snapshot it was made from, of a snapshot its volume."""
    taken: Write | None = None
    """Of a snapshot: the request that took it."""

    def fact(self, name: str) -> Register:
        """Of a volume; what it was not told it has from the beginning, or from the snapshot it was made from."""
        return self.facts.setdefault(name, Register("" if self.origin is None else FROM + self.origin.name))


class Model:
    def __init__(self) -> None:
        self.vms: dict[int, Told] = {}
        self.volumes: dict[int, Told] = {}
        self.snapshots: dict[int, Told] = {}
        self.marks: dict[tuple[str, int], bytes] = {}
        """Of ROOT disks, by serial and number of the client: what the client was told it has written there last."""
        self.time = 0
        """Grows with everything that happens."""
        self.disturbed: set[str] = set()
        """API commands of which a copy may arrive at any time."""

    def tick(self) -> int:
        self.time += 1
        return self.time

    def values(self, volume: Told, fact: str) -> set[str]:
        """What can be true of the volume now."""
        return self._resolved(volume.fact(fact).possible(), fact, set())

    def held(self, snapshot: Told, fact: str) -> set[str]:
        """What can have been true of the snapshot's volume when it was taken."""
        return self._resolved({FROM + snapshot.name}, fact, set())

    def _resolved(self, values: set[str], fact: str, known: set[str]) -> set[str]:
        found = {value for value in values if not value.startswith(FROM)}
        for name in {value.removeprefix(FROM) for value in values - found} - known:
            known.add(name)
            snapshot = next(each for each in self.snapshots.values() if each.name == name)
            assert snapshot.origin is not None and snapshot.taken is not None, f"{name} is no snapshot"
            source = snapshot.origin.fact(fact)
            found |= self._resolved(source.during(snapshot.taken.began, snapshot.taken.ended), fact, known)
        return found

    def release(self, vm: Told) -> Write:
        """The VM may let its DATA volumes go from now on; which those are is not known for certain."""
        write = Write((FREE,), self.tick())
        vm.releases.append(write)
        for volume in self.volumes.values():
            if vm.name in volume.register.possible():
                volume.register.writes.append(write)
        return write

    def keep(self, vm: Told, release: Write) -> None:
        """The request that might have had the VM let volumes go was turned away."""
        vm.releases.remove(release)
        for volume in self.volumes.values():
            volume.register.writes = [write for write in volume.register.writes if write is not release]

    def reassigned(self, hosts: Iterable[str]) -> None:
        """A copy of a request made now arrives late: it attaches a volume in some use to one of these hosts."""
        vms = {vm.name for vm in self.vms.values()}
        for volume in self.volumes.values():
            if vms & volume.register.possible():
                volume.late_on.update(hosts)

    def begin(self, register: Register, *values: str) -> Write:
        write = Write(values, self.tick())
        register.writes.append(write)
        return write

    def done(self, command: str, *writes: Write) -> None:
        """The request succeeded: of each write the last value is what it wrote."""
        now = self.tick()
        for write in writes:
            write.certain = True
            if command in self.disturbed:
                # A copy of it does the same again, and may fail where this one did not.
                write.ended = None
                continue
            write.values = write.values[-1:]
            write.ended = now

    def refused(self, command: str, register: Register, write: Write) -> None:
        """The request was turned away at once: it writes nothing, if no copy of it arrives."""
        self.tick()
        if command not in self.disturbed:
            register.writes.remove(write)

    def crashed(self, register: Register) -> None:
        """The VM may have ended at this moment, by itself or with its host."""
        now = self.tick()
        register.writes.append(Write((STOPPED,), now, now))


def mark(serial: str, client: int, number: int) -> bytes:
    return f"{serial} client {client} write {number} ".encode().ljust(MARK_BYTES, b"#")


def mark_fact(client: int) -> str:
    """Name of the fact: what the client wrote to a volume."""
    return f"mark {client}"


def mark_offset(client: int) -> int:
    return MARKS_AT + client * MARK_BYTES
