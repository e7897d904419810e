"""Which disks hold the copies of a volume or snapshot."""

from __future__ import annotations

from simulator.cluster import policy
from simulator.cluster.records import Object
from simulator.cluster.state import State


def targets(state: State, found: Object) -> list[list[int]]:
    """Its target disk sets: object number n of it belongs on the disks of set n modulo their count.

    One disk for each copy, on different servers as long as there are some; the last copy in the tail group.
    """
    chosen: list[int] = []
    servers: set[int] = set()
    for place in policy.places(found.place_head, found.place_all, found.place_tail, found.replication):
        disks = [disk for disk in state.groups[place].disks if disk not in chosen]
        fresh = [disk for disk in disks if state.disks[disk].server not in servers]
        for disk in (fresh or disks)[:1]:
            chosen.append(disk)
            servers.add(state.disks[disk].server)
    return [chosen]


def placed(state: State, found: Object) -> list[list[int]]:
    """Where its objects are now, in the same form: what is not where its targets say is being moved."""
    return targets(state, found)
