"""Nodes in maintenance, and what must hold before one is (spec storpool-api 2.13, 5.6)."""

from __future__ import annotations

from simulator.api import errors
from simulator.api.schema.answers import Ok
from simulator.api.schema.maintenance import (
    MaintenanceCompleteDesc,
    MaintenanceNode,
    MaintenanceNodes,
    MaintenanceSetDesc,
)
from simulator.cluster import disksets, health
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import Drop, Maintenance, Put


def maintenance_list(call: Call) -> MaintenanceNodes:
    return MaintenanceNodes(nodes=[_shown(call, found) for found in _current(call)])


def _current(call: Call) -> list[Maintenance]:
    """Its time over, it ends by itself, unless the node is still away: then it is overrun."""
    return [
        found for found in call.state.table(Maintenance).values() if _left(call, found) > 0 or _away(call, found.id)
    ]


def _left(call: Call, found: Maintenance) -> int:
    return int(found.started + found.duration - call.now)


def _away(call: Call, node: int) -> bool:
    return any(server.node == node and not health.server_up(server) for server in call.state.servers.values())


def _shown(call: Call, found: Maintenance) -> MaintenanceNode:
    shown = MaintenanceNode(
        nodeId=found.id,
        started=int(found.started),
        duration=found.duration,
        description=found.description,
        overrun=_left(call, found) <= 0,
    )
    if not shown.overrun:
        shown.remaining = _left(call, found)
    return shown


def maintenance_set(call: Call, body: MaintenanceSetDesc) -> Plan:
    """Refused with `busy`, and a text that says why, when a safety limit of the request would be broken."""
    state, node = call.state, body.nodeId
    nodes = {server.node for server in state.servers.values()} | {client.node for client in state.clients.values()}
    if node not in nodes:
        raise errors.missing("Node", node)
    current = {found.id for found in _current(call)}
    if node in current:
        raise errors.exists(f"maintenance of node {node}")
    if body.maxNodesInMaintenance is not None and len(current) + 1 > body.maxNodesInMaintenance:
        raise errors.busy(f"{len(current)} nodes are in maintenance, at most {body.maxNodesInMaintenance} are wanted")
    _check_votes(call, body)
    _check_copies(call, body)
    new = Maintenance(id=node, started=call.now, duration=body.duration, description=body.description)
    return Plan(Ok(), [Put(new)], touches=("maintenance",))


def _check_votes(call: Call, body: MaintenanceSetDesc) -> None:
    servers = call.state.servers.values()
    left = sum(health.server_up(server) for server in servers if server.node != body.nodeId)
    needed = len(servers) // 2 + 1 + (body.votingSafetyMargin or 0)
    if body.votingSafetyMargin is not None and left < needed:
        raise errors.busy(f"Without node {body.nodeId} {left} voting nodes are up, and {needed} are wanted")


def _check_copies(call: Call, body: MaintenanceSetDesc) -> None:
    if body.minOkReplicas is None and body.maxReplicationDecrease is None:
        return
    state = call.state
    here = {disk.id for disk in state.disks.values() if state.servers[disk.server].node == body.nodeId}
    good = {disk.id for disk in state.disks.values() if health.in_sync(call, disk)} - here
    for found in state.objects.values():
        for disks in disksets.placed(call, found):
            if not here & set(disks):
                continue
            left = len(good & set(disks))
            wanted = max(
                body.minOkReplicas or 0,
                0 if body.maxReplicationDecrease is None else found.replication - body.maxReplicationDecrease,
            )
            if left < wanted:
                text = (
                    f"Without node {body.nodeId} '{found.shown_name}' has {left} good copies, and {wanted} are wanted"
                )
                raise errors.busy(text)


def maintenance_complete(call: Call, body: MaintenanceCompleteDesc) -> Plan:
    if body.nodeId not in {found.id for found in _current(call)}:
        raise errors.missing("Maintenance of node", body.nodeId)
    return Plan(Ok(), [Drop("maintenance", body.nodeId)], touches=("maintenance",))
