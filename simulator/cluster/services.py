"""Services, disks, clients and peers, as far as clients of the API look at them."""

from __future__ import annotations

from typing import Any

import msgspec

from simulator.api import errors
from simulator.api.schema.answers import (
    ClientConfigStatus,
    ClusterStatus,
    DiskDescription,
    DiskObject,
    DiskSummary,
    MgmtService,
    NetDesc,
    Ok,
    PeerDesc,
    ServerService,
    Service,
    Task,
)
from simulator.cluster import disksets
from simulator.cluster.effects import Attach, Effect
from simulator.cluster.plan import Call, Hold, Plan
from simulator.cluster.records import Client, Disk, Put
from simulator.cluster.summary import links

ALLOCATION_GROUP = 512 << 20
"""Bytes that one of a disk's allocation groups holds; cinder computes capacities from them (spec 6.4)."""
OBJECT_OK = 1
_MGMT_NODE = 1
_PEER_MGMT = 0xF000
_PEER_CLIENT = 0x8000


def services_list(call: Call) -> ClusterStatus:
    status = servers_list(call)
    status.clients = {client.id: _client(call, client) for client in call.state.clients.values()}
    return status


def servers_list(call: Call) -> ClusterStatus:
    version, started = call.settings.version, int(call.started)
    mgmt = MgmtService(
        id=1, nodeId=_MGMT_NODE, version=version, startTime=started, status="running", active=True, prio=0
    )
    servers = {
        server.id: ServerService(
            id=server.id,
            nodeId=server.node,
            version=version,
            startTime=started,
            status="running",
            missingDisks=[],
            pendingDisks=[],
        )
        for server in call.state.servers.values()
    }
    return ClusterStatus(
        clusterStatus="running", mgmt={1: mgmt}, clients={}, servers=servers, bridges={}, iscsiTargets={}
    )


def _client(call: Call, client: Client) -> Service:
    return Service(
        id=client.id,
        nodeId=client.node,
        version=call.settings.version,
        startTime=int(call.started) if client.running else None,
        status="running" if client.running else "down",
    )


def disks_list(call: Call) -> dict[int, DiskSummary]:
    return {disk.id: _disk(call, disk) for disk in call.state.disks.values()}


def server_disks_list(call: Call) -> dict[int, DiskSummary]:
    server = int(call.args[0])
    if server not in call.state.servers:
        raise errors.missing("Server", server)
    return {disk.id: _disk(call, disk) for disk in call.state.disks.values() if disk.server == server}


def disk_describe(call: Call) -> DiskDescription:
    return _describe(call, _find_disk(call, call.args[0]))


def server_disk_describe(call: Call) -> DiskDescription:
    disk = _find_disk(call, call.args[1])
    if disk.server != int(call.args[0]):
        raise errors.missing("Disk", f"{disk.id} of server {call.args[0]}")
    return _describe(call, disk)


def _find_disk(call: Call, number: str) -> Disk:
    found = call.state.disks.get(int(number))
    if found is None:
        raise errors.missing("Disk", number)
    return found


def _describe(call: Call, disk: Disk) -> DiskDescription:
    """One entry for each volume or snapshot that has a copy here: its first object stands for all of them."""
    state = call.state
    here = [
        found for found in state.objects.values() if any(disk.id in disks for disks in disksets.placed(state, found))
    ]
    objects = {
        index: DiskObject(
            objectId=0,
            generation=state.generation,
            version=1,
            volume=found.shown_name,
            parentVolume=state.objects[found.parent].shown_name if found.parent else "",
            onDiskSize=0,
            storedSize=0,
            state=OBJECT_OK,
            volumeId=found.id,
        )
        for index, found in enumerate(here)
    }
    return DiskDescription(objects=objects, **_disk_fields(call, disk))


def _disk(call: Call, disk: Disk) -> DiskSummary:
    return DiskSummary(**_disk_fields(call, disk))


def _disk_fields(call: Call, disk: Disk) -> dict[str, Any]:
    """Fields of `DiskSummary` (Any: each has its own type).

    The pool's bytes are spread evenly over the disks, as many copies as the default replication says.
    """
    share = call.settings.default_replication / max(1, len(call.state.disks))
    capacity, free = (int(amount * share) for amount in call.capacity)
    groups = max(1, capacity // ALLOCATION_GROUP)
    allocated = min(groups, -(-(capacity - free) // ALLOCATION_GROUP))
    pieces = len(call.state.objects)
    return {
        "id": disk.id,
        "serverId": disk.server,
        "ssd": disk.ssd,
        "model": "SPLAB-SSD" if disk.ssd else "SPLAB-HDD",
        "serial": f"SPLAB{disk.id:06}",
        "description": disk.description,
        "device": f"/dev/sd{'b' if disk.ssd else 'a'}1",
        "sectorsCount": groups * ALLOCATION_GROUP // 512,
        "empty": not pieces,
        "entriesCount": 30000,
        "entriesAllocated": min(30000, pieces),
        "entriesFree": 30000 - min(30000, pieces),
        "objectsCount": 30000,
        "objectsAllocated": min(30000, pieces),
        "objectsFree": 30000 - min(30000, pieces),
        "objectsOnDiskSize": capacity - free,
        "agCount": groups,
        "agAllocated": allocated,
        "agFree": groups - allocated,
    }


def clients_config_dump(call: Call) -> list[ClientConfigStatus]:
    return [config_status(call, client) for client in call.state.clients.values()]


def client_config_wait(call: Call) -> list[ClientConfigStatus] | Hold:
    """Blocks until the client has the current configuration; a running one has it as soon as its change is answered."""
    client = call.state.clients.get(int(call.args[0]))
    if client is None:
        raise errors.invalid("No such client registered")
    return [config_status(call, client)] if client.running else Hold((client.id,))


def config_status(call: Call, client: Client) -> ClientConfigStatus:
    generation = call.state.generation
    return ClientConfigStatus(
        id=client.id,
        generation=generation,
        clientGeneration=generation if client.running else client.left_generation,
        configStatus="ok" if client.running else "down",
        delay=0,
    )


def client_down(call: Call) -> Plan:
    """Control: the client named in the path goes down. Its links stay as they are."""
    client = call.state.client(int(call.args[0]))
    if not client.running:
        return Plan(Ok())
    gone = msgspec.structs.replace(client, left_generation=call.state.generation)
    return Plan(Ok(), [Put(gone)], touches=(f"client {client.id}",))


def client_up(call: Call) -> Plan:
    """Control: the client is back, and runs as soon as it has the links that it missed."""
    state = call.state
    client = state.client(int(call.args[0]))
    if client.running:
        return Plan(Ok())
    seen = [state.objects[serial] for serial in state.positions.get(client.id, {}).values()]
    effects: list[Effect] = [
        Attach(found.id, links(found, client.id), found.attachments[client.id].rights == "ro") for found in seen
    ]
    touches: tuple[int | str, ...] = (f"client {client.id}", *(found.id for found in seen))
    return Plan(Ok(), [Put(msgspec.structs.replace(client, left_generation=-1))], effects, touches)


def peers_list(call: Call) -> dict[int, PeerDesc]:
    running = {server.id: True for server in call.state.servers.values()}
    running.update({_PEER_CLIENT + client.id: client.running for client in call.state.clients.values()})
    running[_PEER_MGMT + 1] = True
    return {
        peer: PeerDesc(
            beaconStatus="NODE_UP" if up else "NODE_DOWN",
            clusterStatus="CNODE_UP" if up else "CNODE_DOWN",
            joined=up,
            nonVoting=peer >= _PEER_CLIENT,
            networks={net: NetDesc(mac=f"02:00:00:{peer >> 8:02x}:{peer & 255:02x}:{net:02x}") for net in (0, 1)},
            rdma={},
        )
        for peer, up in running.items()
    }


def tasks_list(_call: Call) -> list[Task]:
    """Recovery and relocation never run here: there is one copy of the data."""
    return []
