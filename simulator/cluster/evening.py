"""Which disks the balancer would have disk sets on instead, so that all are as full (spec storpool-api 7.9).

What counts is the number of objects on a disk. A copy goes to the emptiest disk of its placement group when the two
disks differ by enough, and are more alike afterwards. Replication, groups and different servers hold for the new sets
as for the old.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.cluster import disksets, health, policy
from simulator.cluster.records import Object
from simulator.cluster.state import State
from simulator.cluster.summary import objects_count

PASSES = 4
"""How often all disk sets are looked at, at most."""
WORTH = 20
"""Nothing is moved for a difference of less than one in so many objects."""


@dataclass(slots=True)
class _Unit:
    """One disk set of an allocation group."""

    disks: tuple[int, ...]
    groups: tuple[int, ...]
    """Placement group of each copy."""
    objects: int


def overrides(state: State) -> dict[int, dict[int, tuple[int, ...]]]:
    """By allocation group and number of the disk set, the disks that it would have."""
    usable = {disk.id for disk in state.disks.values() if not health.blocks_balancing(state, disk)}
    units, load = _units(state, usable)
    before = {key: unit.disks for key, unit in units.items()}
    for _ in range(PASSES):
        if not sum(_improve(state, unit, load) for unit in units.values()):
            break
    found: dict[int, dict[int, tuple[int, ...]]] = {}
    for (vag, number), unit in units.items():
        if unit.disks != before[vag, number]:
            found.setdefault(vag, {})[number] = unit.disks
    return found


def _units(state: State, usable: set[int]) -> tuple[dict[tuple[int, int], _Unit], dict[int, int]]:
    """The disk sets that can be moved, largest first, and how many objects each usable disk has.

    A set is left alone when one of its disks must be, when it has too few of them, or when members of the allocation
    group differ about it.
    """
    load = dict.fromkeys(sorted(usable), 0)
    units: dict[tuple[int, int], _Unit] = {}
    fixed: set[tuple[int, int]] = set()
    for found in state.objects.values():
        sets = disksets.targets(state, found)
        groups = tuple(policy.places(*found.placement))
        whole, rest = divmod(objects_count(found.size), len(sets))
        for number, disks in enumerate(sets):
            objects = whole + (number < rest)
            for disk in disks:
                if disk in load:
                    load[disk] += objects
            key = (found.allocation_group, number)
            unit = units.setdefault(key, _Unit(tuple(disks), groups, 0))
            unit.objects += objects
            if unit.groups != groups or not _free(state, found, disks, usable):
                fixed.add(key)
    free = sorted((key for key in units if key not in fixed), key=lambda key: (-units[key].objects, key))
    return {key: units[key] for key in free}, load


def _free(state: State, found: Object, disks: list[int], usable: set[int]) -> bool:
    servers = {state.disks[disk].server for disk in disks}
    return usable.issuperset(disks) and len(servers) == found.replication and not found.abandoned


def _improve(state: State, unit: _Unit, load: dict[int, int]) -> bool:
    changed = False
    least = min(load.values())
    for slot, disk in enumerate(unit.disks):
        enough = max(unit.objects, load[disk] // WORTH)
        if load[disk] - least <= enough:
            continue
        servers = {state.disks[other].server for other in unit.disks if other != disk}
        group = state.groups[unit.groups[slot]].disks
        places = [other for other in group if other in load and state.disks[other].server not in servers]
        best = min(places, key=lambda other: (load[other], other))
        if load[disk] - load[best] > enough:
            load[disk] -= unit.objects
            load[best] += unit.objects
            unit.disks = (*unit.disks[:slot], best, *unit.disks[slot + 1 :])
            changed = True
    return changed
