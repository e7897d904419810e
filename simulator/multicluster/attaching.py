"""Attachments of volumes and snapshots of other clusters (spec storpool-api 5.4, 7.6).

A snapshot stays where it is, and is attached from there. A volume moves here before it is attached, or stays too: its
cluster then keeps the attachment, under a number that stands for a client of another cluster, and the device leads to
that cluster's contents.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import msgspec

from simulator.api import errors
from simulator.api.errors import Refused
from simulator.api.schema.answers import Ok
from simulator.api.schema.requests import ReassignItem, ReassignWaitDesc
from simulator.multicluster.addressing import home_of
from simulator.multicluster.flow import Ask, Flow, Got, Here, bridge
from simulator.multicluster.moving import take_over

Body = ReassignWaitDesc | list[ReassignItem]


def concerns_others(here: Here, body: Body, *, multicluster: bool) -> bool:
    """Whether an item names what is not here and may be elsewhere."""
    if not here.neighbours():
        return False
    return any(_may_be_elsewhere(here, item, multicluster=multicluster) for item in _items(body))


def _may_be_elsewhere(here: Here, item: ReassignItem, *, multicluster: bool) -> bool:
    if (item.volume is None) == (item.snapshot is None) or not (multicluster or item.allowRemoteExported):
        return False
    return here.call.state.find(item.volume or item.snapshot or "") is None


def _items(body: Body) -> list[ReassignItem]:
    return body.reassign if isinstance(body, ReassignWaitDesc) else body


def reassign(here: Here, body: Body, call: str, *, multicluster: bool) -> Flow:
    """Items of what is elsewhere first, one after the other; then those of this cluster in one change."""
    for item in _items(body):
        for client in (*(item.rw or ()), *(item.ro or ())):
            here.call.state.client(client)
    local: list[ReassignItem] = []
    for item in _items(body):
        if not _may_be_elsewhere(here, item, multicluster=multicluster):
            local.append(item)
        elif not multicluster:
            yield from _attach_exported(here, item)
        elif (yield from _came_here(here, item)):
            local.append(item)
    if not local:
        return Ok(generation=here.call.state.generation)
    wanted: Any = [_plain(item) for item in local]
    if isinstance(body, ReassignWaitDesc):
        wanted = ReassignWaitDesc(reassign=wanted, attachTimeout=body.attachTimeout)
    got = yield bridge("", f"MultiCluster/{call}", wanted)
    return got.data


def _came_here(here: Here, item: ReassignItem) -> Generator[Ask, Got, bool]:
    """Whether it is in this cluster now; else what is asked for was done where it is."""
    name = item.volume or item.snapshot or ""
    home = yield from home_of(name, here.neighbours(own_location=True))
    if not home:
        raise errors.missing("Snapshot" if item.volume is None else "Volume", name)
    if item.volume is None or not (yield from _moves_here(item, home)):
        yield _there(here, home, item)
        return False
    on_attached = item.onRemoteAttached if item.onRemoteAttached != "export" else None
    yield from take_over(here, name, home, on_attached, volume=True)
    return True


def _moves_here(item: ReassignItem, home: str) -> Generator[Ask, Got, bool]:
    """Only to be attached does a volume move, and not out of the hands of those who have it unless they may lose it."""
    if not (item.rw or item.ro) or item.mcMode == "export":
        return False
    located = (yield bridge(home, "Locate", {"object": item.volume})).data
    if not located.get("attached"):
        return True
    match item.onRemoteAttached:
        case "fail":
            raise errors.busy(f"Volume '{item.volume}' is attached in cluster {home}")
        case "detach" | "detachForce":
            return True
    return False


def _attach_exported(here: Here, item: ReassignItem) -> Generator[Ask, Got, None]:
    """Of a cluster that exports the volume to this one."""
    for other in here.neighbours():
        got = yield bridge(other.cluster_id, "Offers", {"cluster": here.cluster_id})
        for offer in got.data["offers"]:
            if not offer["snapshot"] and item.volume in ("~" + offer["globalId"], offer["name"]):
                yield _there(here, other.cluster_id, item)
                return
    raise errors.missing("Volume", item.volume)


def _there(here: Here, home: str, item: ReassignItem) -> Ask:
    if (item.rw or item.ro) and not here.shares_devices(home):
        text = (
            f"'{item.volume or item.snapshot}' is in cluster {home} of another process, whose devices cannot lead here"
        )
        raise Refused("notImplemented", text)
    return bridge(home, "Reassign", {"cluster": here.cluster_id, "reassign": [_plain(item)]})


def _plain(item: ReassignItem) -> ReassignItem:
    """Without what was already decided; of a snapshot, to be refused with it."""
    if item.volume is None:
        return item
    return msgspec.structs.replace(item, allowRemoteExported=None, onRemoteAttached=None, mcMode=None)
