"""The small cluster that an empty state starts with (design section 7)."""

from __future__ import annotations

from simulator.cluster.records import Client, Disk, Event, Group, Put, Server

SERVERS = (1, 2, 3)
CLIENTS = (1, 2, 3)


def events() -> list[Event]:
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
    return made
