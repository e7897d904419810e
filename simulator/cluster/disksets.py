"""Which disks hold the copies of a volume or snapshot (spec storpool-api 6.2, 7.7).

Its allocation group, its placement and the disks say where it belongs. It is there, unless a `Relocation` says where it
is still, or a disk is being drained.
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
_LAST = 1 << 64
"""Rank behind all others."""


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


def complete(call: Call, found: Object) -> bool:
    """Whether every set is sure to have a disk for each copy, and to stay where it is, while all disks are usable: none
    can run out of them."""
    groups = call.state.groups
    if found.id in call.state.relocations:
        return False
    return all(len(groups[place].disks) >= found.replication for place in found.placement[:3])


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
    """Each set ranks the disks in an order of its own, so that one that comes or goes moves only what is on it.

    Copies on different servers come first, then disks of the override as far as they may be used, then disks that were
    not abandoned.
    """
    places = policy.places(*found.placement)
    groups = {place: [disk for disk in state.groups[place].disks if usable(state.disks[disk])] for place in set(places)}
    servers = {disk: state.disks[disk].server for disks in groups.values() for disk in disks}
    group, vag = found.allocation_group, state.vags.get(found.allocation_group)
    chosen = {**(vag.overrides if vag else {}), **(overrides or {})}
    count = (vag and vag.sets) or USUAL_SETS
    sets = []
    for number in range(min(count, objects_count(found.size))):
        ranks = {disk: _rank(group, number, disk) for disk in servers}
        for disk in found.abandoned:
            ranks[disk] = _LAST
        ranked = {place: sorted(disks, key=ranks.__getitem__) for place, disks in groups.items()}
        order = [ranked[place] for place in places]
        if number in chosen:
            order = _preferred(order, found, chosen[number], servers)
        sets.append(_apart(order, servers) or _together(order, servers))
    return sets


def _preferred(
    order: list[list[int]], found: Object, override: tuple[int, ...], servers: dict[int, int]
) -> list[list[int]]:
    """Only the override's disk for each copy that may be on it, if that leaves servers for the others."""
    kept = [
        [disk for disk in disks if disk in override[at : at + 1] and disk not in found.abandoned] or disks
        for at, disks in enumerate(order)
    ]
    return kept if _apart(kept, servers) else order


def _apart(order: list[list[int]], servers: dict[int, int]) -> list[int] | None:
    """The first disks that are all on servers of their own; None when there are none."""
    chosen: list[int] = []
    used: set[int] = set()
    for disks in order:
        for disk in disks:
            if servers[disk] not in used:
                chosen.append(disk)
                used.add(servers[disk])
                break
    return chosen if len(chosen) == len(order) else _search(order, servers, frozenset())


def _search(order: list[list[int]], servers: dict[int, int], used: frozenset[int]) -> list[int] | None:
    """As `_apart`, when the first choices leave no server for the others."""
    if not order:
        return []
    tried = set(used)
    for disk in order[0]:
        server = servers[disk]
        if server not in tried:
            tried.add(server)
            rest = _search(order[1:], servers, used | {server})
            if rest is not None:
                return [disk, *rest]
    return None


def _together(order: list[list[int]], servers: dict[int, int]) -> list[int]:
    """Copies share servers where they must, and never a disk; there are fewer when there are too few disks."""
    chosen: list[int] = []
    used: set[int] = set()
    for disks in order:
        left = [disk for disk in disks if disk not in chosen]
        if left:
            chosen.append(next((disk for disk in left if servers[disk] not in used), left[0]))
            used.add(servers[chosen[-1]])
    if len(chosen) < len(order):
        return _apart(order, {disk: disk for disk in servers}) or chosen
    return chosen


def _rank(group: int, number: int, disk: int) -> int:
    """An even spread that is the same everywhere: the finalizer of SplitMix64 over the three numbers."""
    mixed = ((group * MOST_SETS + number) * 0x9E3779B97F4A7C15 + disk * 0xD1B54A32D192ED03) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)
