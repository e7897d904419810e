"""Which disks hold the copies of a volume or snapshot (spec storpool-api 6.2, 7.7).

Its allocation group, its placement and the disks say where it belongs. It is there, unless a `Relocation` says where it is
still, or a disk is being drained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from simulator.cluster import health, policy
from simulator.cluster.plan import Call
from simulator.cluster.records import Disk, Object
from simulator.cluster.state import State
from simulator.cluster.summary import objects_count

USUAL_SETS = 8
"""Disk sets of an allocation group; larger volumes use each for many objects."""
MOST_SETS = 64
"""Most that can be asked for."""

Sets = Sequence[Sequence[int]]
"""Object number n is on the disks of set n modulo their count."""
Overrides = Mapping[int, tuple[int, ...]]
"""By number of the disk set, the disk of each copy."""

_MASK = (1 << 64) - 1


def targets(state: State, found: Object, overrides: Overrides | None = None) -> list[list[int]]:
    """Its target disk sets, with these overrides on top of those of its allocation group.

    One disk for each copy, on different servers as long as there are some; the last copy in the tail group.
    """
    return _choose(state, found, lambda disk: disk.soft_eject == "off" and not disk.ejected, overrides)


def placed(call: Call, found: Object) -> list[list[int]]:
    """Where its objects are now: what is not where its targets say is being moved.

    While it is relocated there are as many sets as it takes to show both. What is added to it meanwhile goes where the
    rest still is; sets that a disk has left belong to their targets at once.
    """
    state = call.state
    moving = state.relocations.get(found.id)
    if moving is None:
        return at_rest(call, found)
    wanted = targets(state, found)
    width = min(max(len(moving.sets), len(wanted)), objects_count(found.size))
    shown = []
    for number in range(width):
        held = moving.sets[number % len(moving.sets)]
        known = [state.disks[disk] for disk in held if disk in state.disks]
        stays = held and len(known) == len(held) and all(_holds(call, disk) for disk in known)
        shown.append(list(held) if stays else wanted[number % len(wanted)])
    return shown


def at_rest(call: Call, found: Object) -> list[list[int]]:
    """Where it is when no relocation is under way."""
    return _choose(call.state, found, lambda disk: _holds(call, disk))


def both(call: Call, found: Object) -> tuple[Sets, Sets]:
    """Where it is, and in as many sets where it belongs."""
    wanted = targets(call.state, found)
    if found.id not in call.state.relocations and not draining(call.state):
        return wanted, wanted
    now = placed(call, found)
    return now, [wanted[number % len(wanted)] for number in range(len(now))]


def draining(state: State) -> bool:
    """Whether any disk is, or was and holds nothing any more."""
    return any(disk.soft_eject != "off" for disk in state.disks.values())


def differ(now: Sets, then: Sets, objects: int) -> bool:
    """Whether any of that many objects has a copy on another disk; the order of the copies does not matter."""
    width = min(objects, max(len(now), len(then)))
    return any(set(now[number % len(now)]) != set(then[number % len(then)]) for number in range(width))


def spread(found: Object, sets: Sets) -> dict[int, int]:
    """How many of its objects each disk has a copy of."""
    whole, rest = divmod(objects_count(found.size), len(sets))
    counts: dict[int, int] = {}
    for number, disks in enumerate(sets):
        for disk in disks:
            counts[disk] = counts.get(disk, 0) + whole + (number < rest)
    return {disk: count for disk, count in counts.items() if count}


def _holds(call: Call, disk: Disk) -> bool:
    return not disk.ejected and health.drained(call, disk) < 1.0


def _choose(
    state: State, found: Object, usable: Callable[[Disk], bool], overrides: Overrides | None = None
) -> list[list[int]]:
    places = policy.places(*found.placement)
    some = {place: [disk for disk in state.groups[place].disks if usable(state.disks[disk])] for place in set(places)}
    groups = [some[place] for place in places]
    vag = state.vags.get(found.allocation_group)
    chosen = overrides or {}
    count = USUAL_SETS
    if vag is not None:
        chosen = {**vag.overrides, **chosen}
        count = vag.sets or USUAL_SETS
    return [
        _one_set(state, groups, found, number, chosen.get(number, ()))
        for number in range(min(count, objects_count(found.size)))
    ]


def _one_set(
    state: State, groups: list[list[int]], found: Object, number: int, override: tuple[int, ...]
) -> list[int]:
    """Each set ranks the disks in an order of its own, so that one that comes or goes moves only what is on it.

    Disks of the override come first, as far as they may be used. Servers that have no copy come before those that have
    one, and then disks that were not abandoned before those that were.
    """
    group = found.allocation_group
    ranks = {disk: _rank(group, number, disk) for disk in dict.fromkeys(disk for disks in groups for disk in disks)}
    kept = _kept(state, groups, found, override) if override else {}
    chosen = list(kept.values())
    servers = {state.disks[disk].server for disk in chosen}
    for slot, disks in enumerate(groups):
        left = [disk for disk in disks if disk not in chosen]
        if slot in kept or not left:
            continue
        pool = [disk for disk in left if state.disks[disk].server not in servers] or left
        if found.abandoned:
            pool = [disk for disk in pool if disk not in found.abandoned] or pool
        kept[slot] = min(pool, key=ranks.__getitem__)
        chosen.append(kept[slot])
        servers.add(state.disks[chosen[-1]].server)
    return [kept[slot] for slot in sorted(kept)]


def _kept(state: State, groups: list[list[int]], found: Object, override: tuple[int, ...]) -> dict[int, int]:
    """By copy, the disks of the override that it may be on."""
    kept: dict[int, int] = {}
    servers: set[int] = set()
    for slot, (disks, disk) in enumerate(zip(groups, override, strict=False)):
        if disk in disks and disk not in found.abandoned and state.disks[disk].server not in servers:
            kept[slot] = disk
            servers.add(state.disks[disk].server)
    return kept


def _rank(group: int, number: int, disk: int) -> int:
    """An even spread that is the same everywhere: the finalizer of SplitMix64 over the three numbers."""
    mixed = ((group * MOST_SETS + number) * 0x9E3779B97F4A7C15 + disk * 0xD1B54A32D192ED03) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)
