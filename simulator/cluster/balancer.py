"""The balancer: decides which disk sets should be on other disks, and has the relocator move them (spec 2.10, 7.9).

nothing to do -start-> working -> ready -commit-> commiting -> nothing to do; `stop` gives up what is not committed.

It works for `balancer_seconds`. A run that is ready is `waiting` while other things are relocated, and `blocked` while
a disk that it chose cannot be used. It never starts by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from simulator.api import errors
from simulator.api.schema.answers import Ok
from simulator.api.schema.relocation import BalancerCommand, BalancerDiskSets, BalancerStatus, BalancerVolume
from simulator.cluster import disksets, evening, health, relocator
from simulator.cluster.estimates import DiskTargets, Move, disk_targets
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import Balancer, Drop, Event, Object, Put, Vag
from simulator.cluster.state import BALANCER, State
from simulator.cluster.summary import objects_count

NOTHING = "nothing to do"


def status(call: Call) -> BalancerStatus:
    return BalancerStatus(status=_status(call))


def _status(call: Call) -> str:
    run = call.state.balancer
    if run is None:
        return NOTHING
    if run.committed:
        return "commiting"
    if call.now < run.since + call.settings.balancer_seconds:
        return "working"
    if not run.overrides:
        return NOTHING
    if _unusable(call.state, run):
        return "blocked"
    return "waiting" if relocator.status(call).volumesToRelocate else "ready"


def _unusable(state: State, run: Balancer) -> list[int]:
    chosen = {disk for sets in run.overrides.values() for disks in sets.values() for disk in disks}
    return sorted(
        disk for disk in chosen if disk not in state.disks or health.blocks_balancing(state, state.disks[disk])
    )


def command(call: Call, body: BalancerCommand) -> Plan:
    """`busy` when it has to be tried again later, `invalidParam` when there is nothing that the command is about."""
    now = _status(call)
    if body.cmd == "start":
        return _start(call, now)
    if now == NOTHING:
        raise errors.invalid(f"The balancer has nothing to {body.cmd}: start it first")
    if now == "commiting":
        raise errors.busy("The balancer's changes were committed, and are being relocated")
    if body.cmd == "stop":
        return Plan(Ok(), [Drop("balancer", BALANCER)])
    return _commit(call, now)


def _start(call: Call, now: str) -> Plan:
    if now != NOTHING:
        raise errors.busy(f"The balancer is running already: {now}")
    run = Balancer(id=BALANCER, since=call.now, overrides=evening.overrides(call.state))
    return Plan(Ok(), [Put(run)])


def _commit(call: Call, now: str) -> Plan:
    state, run = call.state, call.state.balancer
    assert run is not None, "it has a status"
    if now == "working":
        raise errors.busy("The balancer is still working: commit when it is ready")
    if now == "waiting":
        raise errors.busy("Volumes are being relocated: commit when that is done")
    if now == "blocked":
        disks = ", ".join(map(str, _unusable(state, run)))
        raise errors.busy(f"Disks that the balancer chose are down, are being ejected or are gone: {disks}")
    vags = []
    for number, sets in run.overrides.items():
        if number in state.vag_members:
            old = state.vags.get(number, Vag(id=number))
            vags.append(msgspec.structs.replace(old, overrides={**old.overrides, **sets}))
    after = state.with_records(vags)
    events: list[Event] = [Put(vag) for vag in vags]
    for vag in vags:
        for serial in sorted(state.vag_members[vag.id]):
            events += relocator.moved(call, state.objects[serial], state.objects[serial], after)
    events.append(Put(msgspec.structs.replace(run, committed=True, overrides={vag: {} for vag in run.overrides})))
    return Plan(Ok(), events)


def earliest(state: State) -> float | None:
    """Unix seconds at which the run is over that was committed: long ago, or not before something else changes."""
    return 0.0 if _relocated(state) else None


def due_plans(call: Call) -> Iterator[Plan]:
    if _relocated(call.state):
        yield Plan(Ok(), [Drop("balancer", BALANCER)])


def _relocated(state: State) -> bool:
    """Whether all is done that was committed."""
    run = state.balancer
    if run is None or not run.committed:
        return False
    return not any(state.objects[serial].allocation_group in run.overrides for serial in state.relocations)


# What would move.


def volumes_status(call: Call) -> list[BalancerVolume]:
    return [
        BalancerVolume(**_fields(call, found, *_current_and_new(call, found))) for found in call.state.objects.values()
    ]


def volume_disk_sets(call: Call) -> BalancerDiskSets:
    return _disk_sets(call, call.state.volume(call.args[0]))


def snapshot_disk_sets(call: Call) -> BalancerDiskSets:
    return _disk_sets(call, call.state.snapshot(call.args[0]))


def disks_list(call: Call) -> DiskTargets:
    return disk_targets(call, (_move(call, found) for found in call.state.objects.values()), every=True)


def volume_disks(call: Call) -> DiskTargets:
    return disk_targets(call, [_move(call, call.state.volume(call.args[0]))], every=False)


def snapshot_disks(call: Call) -> DiskTargets:
    return disk_targets(call, [_move(call, call.state.snapshot(call.args[0]))], every=False)


def _current_and_new(call: Call, found: Object) -> tuple[list[list[int]], list[list[int]]]:
    """Its target disk sets, and what they would be; the same while the balancer is not ready."""
    current = disksets.targets(call.state, found)
    run = call.state.balancer
    if run is None or run.committed or call.now < run.since + call.settings.balancer_seconds:
        return current, current
    overrides = run.overrides.get(found.allocation_group)
    return current, disksets.targets(call.state, found, overrides) if overrides else current


def _disk_sets(call: Call, found: Object) -> BalancerDiskSets:
    current, new = _current_and_new(call, found)
    return BalancerDiskSets(currentDiskSets=current, balancerDiskSets=new, **_fields(call, found, current, new))


def _move(call: Call, found: Object) -> Move:
    current, new = _current_and_new(call, found)
    return Move(found, current, new, [1.0] * len(current))


def _fields(call: Call, found: Object, current: disksets.Sets, new: disksets.Sets) -> dict[str, Any]:
    """Of `BalancerVolume` (Any: each has its own type)."""
    state = call.state
    disks = {disk for sets in (current, disksets.placed(call, found)) for each in sets for disk in each}
    return {
        "name": found.shown_name,
        "size": found.size,
        "replication": found.replication,
        "placeAll": state.groups[found.place_all].name,
        "placeTail": state.groups[found.place_tail].name,
        "placeHead": state.groups[found.place_head].name,
        "objectsCount": objects_count(found.size),
        "snapshot": found.snapshot,
        "reallocated": disksets.differ(current, new, len(current)),
        "blocked": any(health.blocks_balancing(state, state.disks[disk]) for disk in disks),
    }
