"""The small cluster that an empty state starts with (design section 7)."""

from __future__ import annotations

from simulator.cluster.records import Bridge, Client, Disk, Event, Group, Location, Put, RemoteCluster, Server
from simulator.settings import Settings

SERVERS = (1, 2, 3)
CLIENTS = (1, 2, 3)


def events(settings: Settings) -> list[Event]:
    """Servers 1 to 3 with a hard disk and an SSD each, groups default, hdd and ssd, clients 1 to 3."""
    made: list[Event] = []
    hdd, ssd = [], []
    for server in SERVERS:
        made.append(Put(Server(id=server, node=server)))
        hdd.append(100 * server + 1)
        ssd.append(100 * server + 2)
        made.append(Put(Disk(id=hdd[-1], server=server, ssd=False)))
        made.append(Put(Disk(id=ssd[-1], server=server, ssd=True)))
    made.extend(Put(Client(id=client, node=client)) for client in CLIENTS)
    groups = {"default": sorted(hdd + ssd), "hdd": hdd, "ssd": ssd}
    made.extend(Put(Group(id=at, name=name, disks=tuple(groups[name]))) for at, name in enumerate(groups, 1))
    return made + _registered(settings)


def _registered(settings: Settings) -> list[Event]:
    """Locations and clusters, and a bridge to each other cluster, at an address for documentation only (RFC 5737)."""
    made: list[Event] = []
    locations: dict[str, int] = {}
    for at, known in enumerate(settings.known_clusters, 1):
        location_id, _, cluster_id = known.cluster_id.partition(".")
        if location_id not in locations:
            locations[location_id] = len(locations) + 1
            made.append(Put(Location(id=locations[location_id], location_id=location_id, name=known.location)))
        location = locations[location_id]
        made.append(Put(RemoteCluster(id=at, cluster_id=cluster_id, location=location, name=known.name)))
        if known.cluster_id == settings.cluster_id:
            continue
        made.append(Put(Bridge(id=at, ip=f"192.0.2.{at}", public_key=f"0.0.0.{at}", location=location, cluster=at)))
    return made
