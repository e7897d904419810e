"""The cluster at a glance, for people to look at: a bounded number of rows of everything, however much there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from simulator.cluster import health
from simulator.cluster.plan import Call
from simulator.cluster.records import Disk, Object
from simulator.cluster.remote import client_title
from simulator.cluster.state import State

ATTACHMENTS = 8
"""Of one object that are shown."""


@dataclass(frozen=True, slots=True)
class Part:
    """A server, a disk or a client."""

    id: int
    status: str
    up: bool
    about: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    shown: list[Part]
    total: int

    @property
    def more(self) -> int:
        return self.total - len(self.shown)


@dataclass(frozen=True, slots=True)
class Row:
    """A volume or a snapshot."""

    depth: int
    """0 for what has no parent."""
    name: str
    global_id: str
    snapshot: bool
    deleting: bool
    size: int
    parent: str
    template: str
    attachments: list[str]
    more_attachments: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Sizes are bytes, times seconds."""

    name: str
    id: str
    version: str
    generation: int
    uptime: float
    operational: bool
    trouble: str
    """Why nothing is served any more; empty while all is well."""
    capacity: int
    """0 when it cannot be told."""
    free: int
    limits_enforced: bool
    volumes: int
    snapshots: int
    attachments: int
    servers: Parts
    disks: Parts
    clients: Parts
    tree: list[Row]
    """Parents before their children; the oldest roots first."""

    @property
    def more_objects(self) -> int:
        return self.volumes + self.snapshots - len(self.tree)


def of(call: Call, rows: int, *, limits_enforced: bool, trouble: str) -> Overview:
    state = call.state
    servers = (
        Part(server.id, "running" if health.server_up(server) else "down", health.server_up(server))
        for server in state.servers.values()
    )
    clients = (
        Part(client.id, "running" if client.running else "down", client.running) for client in state.clients.values()
    )
    capacity, free = call.capacity
    return Overview(
        name=call.settings.cluster_name,
        id=call.settings.cluster_id,
        version=call.settings.version,
        generation=state.generation,
        uptime=max(0.0, call.now - call.started),
        operational=health.operational(state),
        trouble=trouble,
        capacity=capacity,
        free=free,
        limits_enforced=limits_enforced,
        volumes=len(state.volumes_by_visible_id),
        snapshots=len(state.objects) - len(state.volumes_by_visible_id),
        attachments=sum(len(taken) for taken in state.positions.values()),
        servers=Parts(list(islice(servers, rows)), len(state.servers)),
        disks=Parts([_disk(call, disk) for disk in islice(state.disks.values(), rows)], len(state.disks)),
        clients=Parts(list(islice(clients, rows)), len(state.clients)),
        tree=list(islice(_tree(state), rows)),
    )


def _disk(call: Call, disk: Disk) -> Part:
    up = health.disk_up(call.state, disk)
    if disk.ejected:
        status = "ejected"
    elif not up:
        status = "down"
    elif health.recovered(call, disk) < 1.0:
        status = f"recovering, {health.recovered(call, disk):.0%}"
    elif disk.soft_eject == "on":
        status = f"draining, {health.drained(call, disk):.0%}"
    elif disk.soft_eject == "paused":
        status = "draining is paused"
    else:
        status = "up"
    return Part(disk.id, status, up and not disk.ejected, f"{'SSD' if disk.ssd else 'HDD'} of server {disk.server}")


def _tree(state: State) -> Iterator[Row]:
    """Depth first, siblings by age. Whoever takes no more costs nothing more."""
    for root in state.objects.values():
        if root.parent in state.objects:
            continue
        yield _row(state, root, 0)
        branches = [iter(sorted(state.children.get(root.id, ())))]
        while branches:
            child = next(branches[-1], None)
            if child is None:
                branches.pop()
                continue
            yield _row(state, state.objects[child], len(branches))
            branches.append(iter(sorted(state.children.get(child, ()))))


def _row(state: State, found: Object, depth: int) -> Row:
    parent = state.objects.get(found.parent)
    attached = sorted(found.attachments.items())
    return Row(
        depth=depth,
        name=found.shown_name,
        global_id=found.global_id,
        snapshot=found.snapshot,
        deleting=bool(found.gone_at),
        size=found.size,
        parent="" if parent is None else parent.shown_name,
        template=state.templates[found.template].name if found.template else "",
        attachments=[
            f"client {client_title(state, client)} ({each.rights})" for client, each in attached[:ATTACHMENTS]
        ],
        more_attachments=max(0, len(found.attachments) - ATTACHMENTS),
    )
