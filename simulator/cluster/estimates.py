"""What moves from disk to disk when objects go from some disk sets to others (spec storpool-api 6.5, DiskTarget)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from simulator.api.schema.relocation import Change, DownDiskTarget, UpDiskTarget
from simulator.cluster import health
from simulator.cluster.disks import OBJECTS
from simulator.cluster.disksets import Sets, spread
from simulator.cluster.plan import Call
from simulator.cluster.records import Object
from simulator.cluster.summary import objects_count

DiskTargets = dict[int, UpDiskTarget | DownDiskTarget]


@dataclass(frozen=True, slots=True)
class Move:
    """Of one volume or snapshot; the two have as many sets."""

    found: Object
    now: Sets
    then: Sets
    left: Sequence[float]
    """For each set, how much of what comes to its disks is still to be copied, from 0 to 1."""


def disk_targets(call: Call, moves: Iterable[Move], *, every: bool) -> DiskTargets:
    """By disk, of those that the moves concern, or of `every` one."""
    objects: dict[int, Change] = {}
    stored: dict[int, Change] = {}
    for move in moves:
        _add(objects, move, objects_count(move.found.size))
        _add(stored, move, call.stored.get(move.found.id, 0))
    numbers = call.state.disks if every else sorted(objects)
    return {number: _target(call, number, objects, stored) for number in numbers}


def _add(changes: dict[int, Change], move: Move, amount: int) -> None:
    """`amount` is the move's objects or bytes, spread over its disk sets as its objects are."""
    count = objects_count(move.found.size)
    for disk, objects in spread(move.found, move.now).items():
        changes.setdefault(disk, Change()).current += amount * objects // count
    for disk, objects in spread(move.found, move.then).items():
        changes.setdefault(disk, Change()).target += amount * objects // count
    whole, rest = divmod(count, len(move.now))
    for number, (now, then) in enumerate(zip(move.now, move.then, strict=True)):
        objects = whole + (number < rest)
        for disk in then:
            if disk not in now:
                changes[disk].toRecover += int(amount * objects * move.left[number] / count)


def _target(
    call: Call, number: int, objects: dict[int, Change], stored: dict[int, Change]
) -> UpDiskTarget | DownDiskTarget:
    disk = call.state.disks[number]
    if not health.disk_up(call.state, disk):
        generation = health.generation_left(call.state, disk)
        return DownDiskTarget(id=number, serverId=disk.server, generationLeft=generation)
    for changes in (objects, stored):
        change = changes.setdefault(number, Change())
        change.delta = change.target - change.current
    return UpDiskTarget(
        id=number,
        serverId=disk.server,
        objectsCount=OBJECTS,
        objectsAllocated=objects[number],
        storedSize=stored[number],
        onDiskSize=stored[number],
    )
