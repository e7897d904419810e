"""Which disks hold the copies of a volume or snapshot (spec storpool-api 6.2, 7.7)."""

from __future__ import annotations

from collections.abc import Callable

from simulator.cluster import health, policy
from simulator.cluster.plan import Call
from simulator.cluster.records import Disk, Object
from simulator.cluster.summary import objects_count

MOST_SETS = 8
"""Disk sets of one volume; larger volumes use each for many objects."""

_MASK = (1 << 64) - 1


def targets(call: Call, found: Object) -> list[list[int]]:
    """Its target disk sets: object number n of it belongs on the disks of set n modulo their count.

    One disk for each copy, on different servers as long as there are some; the last copy in the tail group.
    """
    return _choose(call, found, lambda disk: disk.soft_eject == "off" and not disk.ejected)


def placed(call: Call, found: Object) -> list[list[int]]:
    """Where its objects are now, in the same form: what is not where its targets say is being moved."""
    return _choose(call, found, lambda disk: not disk.ejected and health.drained(call, disk) < 1.0)


def complete(call: Call, found: Object) -> bool:
    """Whether every set is sure to have a disk for each copy while all disks are usable: none can run out of them."""
    groups = call.state.groups
    return all(
        len(groups[place].disks) >= found.replication for place in (found.place_head, found.place_all, found.place_tail)
    )


def _choose(call: Call, found: Object, usable: Callable[[Disk], bool]) -> list[list[int]]:
    state = call.state
    places = policy.places(found.place_head, found.place_all, found.place_tail, found.replication)
    groups = [[disk for disk in state.groups[place].disks if usable(state.disks[disk])] for place in places]
    return [_one_set(call, groups, found.id, number) for number in range(min(MOST_SETS, objects_count(found.size)))]


def _one_set(call: Call, groups: list[list[int]], serial: int, number: int) -> list[int]:
    """Each set ranks the disks in an order of its own, so that one that comes or goes moves only what is on it."""
    chosen: list[int] = []
    servers: set[int] = set()
    for group in groups:
        disks = [disk for disk in group if disk not in chosen]
        if not disks:
            continue
        fresh = [disk for disk in disks if call.state.disks[disk].server not in servers]
        chosen.append(min(fresh or disks, key=lambda disk: _rank(serial, number, disk)))
        servers.add(call.state.disks[chosen[-1]].server)
    return chosen


def _rank(serial: int, number: int, disk: int) -> int:
    """An even spread that is the same everywhere: the finalizer of SplitMix64 over the three numbers."""
    mixed = ((serial * MOST_SETS + number) * 0x9E3779B97F4A7C15 + disk * 0xD1B54A32D192ED03) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)
