"""Services, clients and peers, and what is under way among them (spec storpool-api 2.1, 2.2, 6.5)."""

from __future__ import annotations

import msgspec

from simulator.api import errors
from simulator.api.schema.answers import (
    ClientConfigStatus,
    ClusterStatus,
    MgmtService,
    NetDesc,
    Ok,
    PeerDesc,
    ServerService,
    Service,
    Task,
)
from simulator.api.schema.disks import ClientRequests, PeerService, PeersQuery, PeersRequests, PeerStatus
from simulator.cluster import health
from simulator.cluster.disks import objects_by_disk
from simulator.cluster.effects import Attach, Effect
from simulator.cluster.plan import Call, Hold, Plan
from simulator.cluster.records import Client, Put, Server
from simulator.cluster.summary import links

_RECOVERY, _DRAINING = 2, 3
_MGMT_NODE = 1
_PEER_MGMT = 0xF000
_PEER_CLIENT = 0x8000


def services_list(call: Call) -> ClusterStatus:
    status = servers_list(call)
    status.clients = {client.id: _client(call, client) for client in call.state.clients.values()}
    return status


def servers_list(call: Call) -> ClusterStatus:
    """An error when the cluster is not operational."""
    if not health.operational(call.state):
        raise errors.unavailable("The cluster is not operational: too few servers run")
    return servers_list_blocked(call)


def servers_list_blocked(call: Call) -> ClusterStatus:
    """As `servers_list`, also of a cluster that is not operational, with the disks that it waits for."""
    version, started = call.settings.version, int(call.started)
    mgmt = MgmtService(
        id=1, nodeId=_MGMT_NODE, version=version, startTime=started, status="running", active=True, prio=0
    )
    operational = health.operational(call.state)
    servers = {server.id: _server(call, server, operational=operational) for server in call.state.servers.values()}
    return ClusterStatus(
        clusterStatus="running" if operational else "down",
        mgmt={1: mgmt},
        clients={},
        servers=servers,
        bridges={},
        iscsiTargets={},
    )


def _server(call: Call, server: Server, *, operational: bool) -> ServerService:
    state = call.state
    up = health.server_up(server)
    disks = [disk for disk in state.disks.values() if disk.server == server.id]
    waited_for = [] if operational else [disk for disk in disks if not (disk.ignored or disk.ejected)]
    return ServerService(
        id=server.id,
        nodeId=server.node,
        version=call.settings.version,
        startTime=int(max(call.started, server.back_since)) if up else None,
        status=("running" if operational else "waiting") if up else "down",
        missingDisks=[disk.id for disk in waited_for if not health.disk_up(state, disk)],
        pendingDisks=[disk.id for disk in waited_for if health.disk_up(state, disk)],
    )


def _client(call: Call, client: Client) -> Service:
    return Service(
        id=client.id,
        nodeId=client.node,
        version=call.settings.version,
        startTime=int(call.started) if client.running else None,
        status="running" if client.running else "down",
    )


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


def server_down(call: Call) -> Plan:
    """Control: the server named in the path goes down, and its disks with it."""
    server = _find_server(call)
    if not health.server_up(server):
        return Plan(Ok())
    gone = msgspec.structs.replace(server, left_generation=call.state.generation)
    return Plan(Ok(), [Put(gone)], touches=(f"server {server.id}",))


def server_back(call: Call) -> Plan:
    """Control: the server runs again; its disks are brought up to date."""
    server = _find_server(call)
    if health.server_up(server):
        return Plan(Ok())
    back = msgspec.structs.replace(server, left_generation=-1, back_since=call.now)
    return Plan(Ok(), [Put(back)], touches=(f"server {server.id}",))


def _find_server(call: Call) -> Server:
    found = call.state.servers.get(int(call.args[0]))
    if found is None:
        raise errors.missing("Server", call.args[0])
    return found


def peers_list(call: Call) -> dict[int, PeerDesc]:
    running = {server.id: health.server_up(server) for server in call.state.servers.values()}
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


def tasks_list(call: Call) -> list[Task]:
    """Disks that are brought up to date, and disks that are drained."""
    counts = objects_by_disk(call)
    tasks = []
    for disk in call.state.disks.values():
        if not health.disk_up(call.state, disk):
            continue
        recovered, drained = health.recovered(call, disk), health.drained(call, disk)
        if recovered < 1.0:
            tasks.append(_task(disk.id, _RECOVERY, counts[disk.id], recovered))
        if disk.soft_eject == "on" and drained < 1.0:
            tasks.append(_task(disk.id, _DRAINING, counts[disk.id], drained))
    return tasks


def _task(disk: int, kind: int, objects: int, done: float) -> Task:
    completed = int(objects * done)
    return Task(
        diskId=disk,
        transactionId=disk << 8 | kind,
        allObjects=objects,
        completedObjects=completed,
        dispatchedObjects=min(objects, completed + 1),
        unresolvedObjects=0,
    )


def client_requests(call: Call) -> ClientRequests:
    """Requests of clients go to loop devices and are not seen here, so there are none."""
    return ClientRequests(clientId=call.state.client(int(call.args[0])).id, requests=[])


def peers_requests(call: Call, _body: PeersQuery | None) -> PeersRequests:
    """Each server and client has answered, or is down."""
    peers = [("server", server.id, server.id, health.server_up(server)) for server in call.state.servers.values()]
    peers += [("client", client.id, _PEER_CLIENT + client.id, client.running) for client in call.state.clients.values()]
    return PeersRequests(
        requests=[
            PeerStatus(
                peerId=peer,
                service=PeerService(type=kind, id=str(number)),
                status="peerDone" if up else "peer_down",
            )
            for kind, number, peer, up in peers
        ]
    )
