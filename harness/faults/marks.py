"""What operations write to volumes and look for afterwards: as a guest reads it, as StorPool stores it, in a file."""

from __future__ import annotations

from contextlib import suppress

from harness.observers import Json, World
from harness.worlds.memory.world import MemoryWorld
from scenarios import looks
from simulator.ports import BlocksError

MARK = b"written before the fault".ljust(4096, b".")
AFTER = b"written after the snapshot".ljust(4096, b".")
PLACE = 8192
"""Where a volume is written to after the operation, in bytes."""


def in_memory(world: World) -> MemoryWorld:
    """The world: only there is seen what is attached nowhere."""
    assert isinstance(world, MemoryWorld), "only the memory world shows what is attached nowhere"
    return world


def mark(world: World, vm: Json, volume: Json) -> None:
    """The VM's guest writes `MARK` to the beginning of the volume."""
    world.guest(str(vm["id"])).write(looks.serial(volume), 0, MARK)


def guest_reads(world: World, vm: Json, volume: Json, wanted: bytes = MARK) -> None:
    """At the beginning of the volume."""
    seen = world.guest(str(vm["id"])).read(looks.serial(volume), 0, len(wanted))
    assert seen == wanted, f"the guest reads {seen[:32]!r} where {wanted[:32]!r} was written"


def stored(world: World, global_id: str, wanted: bytes = MARK, place: int = 0, cluster: int = 0) -> None:
    """StorPool has it of a volume or snapshot, attached or not; `cluster` is the index of its cluster in the site."""
    seen = in_memory(world).stored(global_id, place, len(wanted), cluster)
    assert seen == wanted, f"~{global_id} holds {seen[:32]!r} where {wanted[:32]!r} was written"


def in_file(world: World, path: str) -> None:
    """An image on secondary storage, or on an NFS pool, begins with `MARK`."""
    seen = world.secondary.read(path, 0, len(MARK))
    assert seen == MARK, f"{path} holds {seen[:32]!r} where {MARK[:32]!r} was written"


def use_at_once(world: World, volume: Json) -> bool:
    """Write `AFTER` to a new volume, as its first user would: that must survive every request that comes late.

    Whether it could be written: StorPool may be full for a while, and a guest would wait.
    """
    processes = in_memory(world).processes
    key = processes.storpool().object_keys()[looks.global_id(volume)]
    with suppress(BlocksError):
        processes.blocks.write(key, PLACE, AFTER)
        return True
    return False


def asked_again(world: World, commit: str) -> bool:
    """Whether a copy of the client's own request came late: then it is carried out, and committed, as any other."""
    entries = in_memory(world).simulation.journal.entries
    return sum(1 for _, _, kind, detail in entries if kind == "commit" and detail == commit) > 1
