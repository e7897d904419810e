"""Which other locations and clusters are known, and the bridges that lead there (spec storpool-api 2.12, 7.8)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET

from simulator.api import errors
from simulator.api.schema.answers import Ok
from simulator.api.schema.remote import (
    BridgeAddDesc,
    BridgeDesc,
    BridgeRemoveDesc,
    Bridges,
    ClusterAddDesc,
    ClusterDesc,
    ClusterRemoveDesc,
    ClusterRenameDesc,
    Clusters,
    LocationAddDesc,
    LocationDesc,
    LocationRemoveDesc,
    LocationRenameDesc,
    Locations,
    LocationUpdateDesc,
)
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import Bridge, Drop, Exported, Location, Put, RemoteCluster
from simulator.cluster.state import State
from simulator.ports import FOREIGN

_TOUCHES = ("remote",)
"""Changes of what is known of others are few, and each looks at all of it."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another cluster, as it is registered here."""

    record: int
    """Of `RemoteCluster`."""
    cluster_id: str
    """`<location>.<sub-cluster>`."""
    name: str
    location: str
    """Its name."""
    bridged: bool
    """A bridge to it, or to its location, is registered."""


def neighbours(state: State) -> list[Neighbour]:
    locations, bridges = state.table(Location), state.table(Bridge).values()
    return [
        Neighbour(
            found.id,
            f"{locations[found.location].location_id}.{found.cluster_id}",
            found.name,
            locations[found.location].name,
            any(bridge.location == found.location and bridge.cluster in (0, found.id) for bridge in bridges),
        )
        for found in state.table(RemoteCluster).values()
    ]


def neighbour(state: State, reference: str) -> Neighbour | None:
    """By name, or by `~<location>.<sub-cluster>`."""
    for found in neighbours(state):
        if reference in (found.name, f"~{found.cluster_id}"):
            return found
    return None


def client_title(state: State, client: int) -> str:
    """For texts: `2`, and `2 of cluster NAME` of a client of another cluster."""
    if client < FOREIGN:
        return str(client)
    found = state.table(RemoteCluster).get(client // FOREIGN)
    whose = "another cluster" if found is None else f"cluster {found.name}"
    return f"{client % FOREIGN} of {whose}"


def locations_list(call: Call) -> Locations:
    return Locations(
        locations=[
            LocationDesc(
                id=found.location_id,
                name=found.name,
                sendBufferSize=found.send_buffer,
                recvBufferSize=found.receive_buffer,
            )
            for found in call.state.table(Location).values()
        ]
    )


def location_add(call: Call, body: LocationAddDesc) -> Plan:
    """The cluster's own location may be added too: bridges and clusters name it."""
    state = call.state
    for found in state.table(Location).values():
        if body.name == found.name:
            raise errors.exists(body.name)
        if body.id == found.location_id:
            raise errors.exists(body.id)
    new = Location(id=state.next_id["location"], location_id=body.id, name=body.name)
    return Plan(Ok(), [Put(new)], touches=_TOUCHES)


def location_remove(call: Call, body: LocationRemoveDesc) -> Plan:
    """Refused with `busy` while a cluster or a bridge is registered there, or something is exported to it."""
    state = call.state
    found = registered_location(state, body.location)
    users = [cluster.name for cluster in state.table(RemoteCluster).values() if cluster.location == found.id]
    users += [bridge.ip for bridge in state.table(Bridge).values() if bridge.location == found.id]
    users += [f"export {export.id}" for export in state.table(Exported).values() if export.location == found.id]
    if users:
        raise errors.busy(f"Location '{found.name}' is used by {', '.join(users)}")
    return Plan(Ok(), [Drop("location", found.id)], touches=_TOUCHES)


def location_update(call: Call, body: LocationUpdateDesc) -> Plan:
    found = registered_location(call.state, body.location)
    changed: dict[str, Any] = {}
    if body.sendBufferSize is not None:
        changed["send_buffer"] = body.sendBufferSize
    if body.recvBufferSize is not None:
        changed["receive_buffer"] = body.recvBufferSize
    return Plan(Ok(), [Put(msgspec.structs.replace(found, **changed))] if changed else [], touches=_TOUCHES)


def location_rename(call: Call, body: LocationRenameDesc) -> Plan:
    found = registered_location(call.state, body.location)
    if body.name == found.name:
        return Plan(Ok())
    if any(other.name == body.name for other in call.state.table(Location).values()):
        raise errors.exists(body.name)
    return Plan(Ok(), [Put(msgspec.structs.replace(found, name=body.name))], touches=_TOUCHES)


def registered_location(state: State, name: str) -> Location:
    found = next((found for found in state.table(Location).values() if found.name == name), None)
    if found is None:
        raise errors.missing("Location", name)
    return found


def clusters_list(call: Call) -> Clusters:
    locations = call.state.table(Location)
    return Clusters(
        clusters=[
            ClusterDesc(id=found.cluster_id, location=locations[found.location].name, name=found.name)
            for found in call.state.table(RemoteCluster).values()
        ]
    )


def cluster_add(call: Call, body: ClusterAddDesc) -> Plan:
    """Without a name it is called by its location and id."""
    state = call.state
    location = registered_location(state, body.location)
    name = body.name or f"{location.location_id}.{body.id}"
    for found in state.table(RemoteCluster).values():
        if found.name == name:
            raise errors.exists(name)
        if (found.location, found.cluster_id) == (location.id, body.id):
            raise errors.exists(f"{location.location_id}.{body.id}")
    new = RemoteCluster(id=state.next_id["remote-cluster"], cluster_id=body.id, location=location.id, name=name)
    return Plan(Ok(), [Put(new)], touches=_TOUCHES)


def cluster_remove(call: Call, body: ClusterRemoveDesc) -> Plan:
    """Refused with `busy` while a bridge is registered for it."""
    state = call.state
    by_id = body.location is not None and body.id is not None
    if (body.name is not None) == by_id or (body.location is None) != (body.id is None):
        raise errors.invalid("Give either name, or location and id")
    if body.name is not None:
        found = _cluster(state, body.name)
    else:
        found = _cluster_by_id(state, registered_location(state, body.location or ""), body.id or "")
    bridges = [bridge.ip for bridge in state.table(Bridge).values() if bridge.cluster == found.id]
    if any(client // FOREIGN == found.id for client, held in state.positions.items() if held):
        raise errors.busy(f"Clients of cluster '{found.name}' have volumes attached")
    if any(export.cluster == found.id for export in state.table(Exported).values()):
        raise errors.busy(f"Volumes are exported to cluster '{found.name}'")
    if bridges:
        raise errors.busy(f"Cluster '{found.name}' is reached by the bridges {', '.join(bridges)}")
    return Plan(Ok(), [Drop("remote-cluster", found.id)], touches=_TOUCHES)


def cluster_rename(call: Call, body: ClusterRenameDesc) -> Plan:
    found = _cluster(call.state, body.cluster)
    if body.name == found.name:
        return Plan(Ok())
    if any(other.name == body.name for other in call.state.table(RemoteCluster).values()):
        raise errors.exists(body.name)
    return Plan(Ok(), [Put(msgspec.structs.replace(found, name=body.name))], touches=_TOUCHES)


def _cluster(state: State, name: str) -> RemoteCluster:
    found = next((found for found in state.table(RemoteCluster).values() if found.name == name), None)
    if found is None:
        raise errors.missing("Cluster", name)
    return found


def _cluster_by_id(state: State, location: Location, id: str) -> RemoteCluster:
    for found in state.table(RemoteCluster).values():
        if (found.location, found.cluster_id) == (location.id, id):
            return found
    raise errors.missing("Cluster", f"{location.location_id}.{id}")


def bridges_list(call: Call) -> Bridges:
    locations, clusters = call.state.table(Location), call.state.table(RemoteCluster)
    shown = []
    for found in call.state.table(Bridge).values():
        cluster = clusters[found.cluster].name if found.cluster else UNSET
        location = locations[found.location].name
        shown.append(
            BridgeDesc(
                ip=found.ip,
                publicKey=found.public_key,
                minimumDeleteDelay=UNSET if found.minimum_delete_delay is None else found.minimum_delete_delay,
                noCrypto=UNSET if found.no_crypto is None else found.no_crypto,
                location=location,
                cluster=cluster,
                remote=location if cluster is UNSET else cluster,
            )
        )
    return Bridges(remoteBridges=shown)


def bridge_add(call: Call, body: BridgeAddDesc) -> Plan:
    """For a location, or for one cluster; an address leads to one of them only."""
    state = call.state
    if (body.location is None) == (body.remote is None):
        raise errors.invalid("Give either location or remote")
    try:
        ip = str(ipaddress.ip_address(body.ip))
    except ValueError:
        raise errors.invalid(f"'{body.ip}' is not an IP address") from None
    if any(found.ip == ip for found in state.table(Bridge).values()):
        raise errors.exists(ip)
    cluster = None if body.remote is None else _cluster(state, body.remote)
    location = registered_location(state, body.location or "").id if cluster is None else cluster.location
    new = Bridge(
        id=state.next_id["bridge"],
        ip=ip,
        public_key=body.publicKey,
        location=location,
        cluster=0 if cluster is None else cluster.id,
        minimum_delete_delay=body.minimumDeleteDelay,
        no_crypto=body.noCrypto,
    )
    return Plan(Ok(), [Put(new)], touches=_TOUCHES)


def bridge_remove(call: Call, body: BridgeRemoveDesc) -> Plan:
    found = next((found for found in call.state.table(Bridge).values() if found.ip == body.ip), None)
    if found is None:
        raise errors.missing("Bridge", body.ip)
    return Plan(Ok(), [Drop("bridge", found.id)], touches=_TOUCHES)
