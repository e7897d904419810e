"""The relocator: moves what is not where it belongs (spec storpool-api 2.9, 6.5, 7.9).

Moving a volume or snapshot takes `relocation_seconds`, then all of it is there. It waits while a disk that it comes to,
or every disk that it could be read from, is down. What leaves a disk in soft-eject goes as the disk is drained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from simulator.api.schema.answers import Ok
from simulator.api.schema.relocation import RelocatorStatus
from simulator.cluster import disksets, health
from simulator.cluster.estimates import DiskTargets, Move, disk_targets
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import Drop, Event, Object, Put, Relocation
from simulator.cluster.state import State
from simulator.cluster.summary import objects_count
from simulator.settings import Settings

AGAIN_SECONDS = 1.0
"""Shortest time after which what is held while a disk is drained is looked at again."""


def status(call: Call) -> RelocatorStatus:
    """`blocked` when nothing of what is left to move can be moved; it cannot be turned off."""
    moving = [found for found in _concerned(call) if migrating(call, found)]
    down = _down(call.state)
    stuck = [found for found in moving if found.id in call.state.relocations and _blocked(call.state, found, down)]
    return RelocatorStatus(
        status="blocked" if moving and len(stuck) == len(moving) else "on", volumesToRelocate=len(moving)
    )


def disks_list(call: Call) -> DiskTargets:
    return disk_targets(call, (_move(call, found) for found in call.state.objects.values()), every=True)


def volume_disks(call: Call) -> DiskTargets:
    return disk_targets(call, [_move(call, call.state.volume(call.args[0]))], every=False)


def snapshot_disks(call: Call) -> DiskTargets:
    return disk_targets(call, [_move(call, call.state.snapshot(call.args[0]))], every=False)


def migrating(call: Call, found: Object) -> bool:
    now, wanted = disksets.both(call, found)
    return disksets.differ(now, wanted, len(now))


def _concerned(call: Call) -> Iterable[Object]:
    """No others can be on their way."""
    if disksets.draining(call.state):
        return call.state.objects.values()
    return [call.state.objects[serial] for serial in call.state.relocations]


def _move(call: Call, found: Object) -> Move:
    now, then = disksets.both(call, found)
    moving = call.state.relocations.get(found.id)
    if moving is None:
        pairs = zip(now, then, strict=True)
        return Move(found, now, then, [1.0 - _drained(call, set(here) - set(there)) for here, there in pairs])
    if _blocked(call.state, found, _down(call.state)):
        return Move(found, now, then, [1.0] * len(now))
    done = health.share(call.now - moving.since, call.settings.relocation_seconds)
    return Move(found, now, then, [1.0 - done] * len(now))


def _drained(call: Call, disks: Iterable[int]) -> float:
    """How far the last of them is, from 0 to 1."""
    return min((health.drained(call, call.state.disks[disk]) for disk in disks), default=1.0)


# What begins and ends a relocation.


def moved(call: Call, old: Object, new: Object, after: State | None = None) -> list[Event]:
    """The event that belongs to a change of where `old`, which becomes `new`, belongs.

    `after` is a view with what else will be changed.
    """
    same = (old.placement, old.allocation_group) == (new.placement, new.allocation_group)
    if same and after is None:
        return []
    then = disksets.targets(after or call.state, new)
    objects = min(objects_count(old.size), objects_count(new.size))
    if not disksets.differ(disksets.targets(call.state, old), then, objects):
        return []
    return [began(call, old, disksets.placed(call, old))]


def began(call: Call, found: Object, sets: disksets.Sets, pause: float = 0.0) -> Put:
    """It is moved from these sets, from now or after a pause in seconds on."""
    return Put(Relocation(id=found.id, since=call.now + pause, sets=tuple(tuple(each) for each in sets)))


def inherited(call: Call, volume: Object, snapshot: Object) -> list[Event]:
    """What is taken of a volume is where the volume is, and moves on from there to where it belongs itself."""
    moving = call.state.relocations.get(volume.id)
    if snapshot.placement != volume.placement:
        return [began(call, snapshot, disksets.placed(call, volume))]
    return [] if moving is None else [Put(msgspec.structs.replace(moving, id=snapshot.id))]


def earliest(state: State, settings: Settings) -> float | None:
    """Unix seconds at which the first relocation is over that nothing stops."""
    down = _down(state)
    begun = [
        moving.since for moving in state.relocations.values() if not _blocked(state, state.objects[moving.id], down)
    ]
    return min(begun) + settings.relocation_seconds if begun else None


def due_plans(call: Call) -> Iterator[Plan]:
    """At most one, of all relocations that are over.

    While a disk is drained, what has come to its place meanwhile is held there, and looked at again.
    """
    state, down = call.state, _down(call.state)
    events: list[Event] = []
    for moving in state.relocations.values():
        found = state.objects[moving.id]
        if moving.since + call.settings.relocation_seconds > call.now or _blocked(state, found, down):
            continue
        then = disksets.targets(state, found)
        if disksets.differ(disksets.at_rest(call, found), then, len(then)):
            pause = max(0.0, AGAIN_SECONDS - call.settings.relocation_seconds)
            events.append(began(call, found, then, pause))
        else:
            events.append(Drop("relocation", found.id))
    if events:
        yield Plan(Ok(), events)


def _down(state: State) -> frozenset[int]:
    return frozenset(disk.id for disk in state.disks.values() if not health.disk_up(state, disk))


def _blocked(state: State, found: Object, down: frozenset[int]) -> bool:
    """Whether a disk that it comes to is down, or none that it could be read from is up."""
    if not down:
        return False
    sets, wanted = state.relocations[found.id].sets, disksets.targets(state, found)
    for number in range(min(max(len(sets), len(wanted)), objects_count(found.size))):
        here, there = set(sets[number % len(sets)]), set(wanted[number % len(wanted)])
        gone = any(disk not in state.disks or state.disks[disk].ejected for disk in here)
        if here != there and not gone and ((there - here) & down or here <= down):
            return True
    return False
