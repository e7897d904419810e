"""Disks: what they hold, and what operators do with them (spec storpool-api 2.2, 2.3, 6.4, 7.9)."""

from __future__ import annotations

from typing import Any

import msgspec

from simulator.api import errors
from simulator.api.schema.answers import DiskDescription, DiskObject, DiskSummary, Ok
from simulator.api.schema.disks import DiskDescUpdate, DiskRequests, DownDisk
from simulator.cluster import disksets, health, usage
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import Disk, Drop, Event, Object, Put

ALLOCATION_GROUP = 512 << 20
"""Bytes that one of a disk's allocation groups holds; cinder computes capacities from them (spec 6.4)."""
OBJECTS = 30000
"""Entries and objects for which a disk has room, as in the vendor's sample."""
_OK, _RECOVERING = 1, 3


def disks_list(call: Call) -> dict[int, DiskSummary | DownDisk]:
    counts, used = objects_by_disk(call), usage.used_by_disk(call)
    return {disk.id: _summary(call, disk, counts, used) for disk in call.state.disks.values()}


def server_disks_list(call: Call) -> dict[int, DiskSummary | DownDisk]:
    server = int(call.args[0])
    if server not in call.state.servers:
        raise errors.missing("Server", server)
    return {number: shown for number, shown in disks_list(call).items() if shown.serverId == server}


def disk_describe(call: Call) -> DiskDescription:
    return _describe(call, _find(call, call.args[0]))


def server_disk_describe(call: Call) -> DiskDescription:
    disk = _find(call, call.args[1])
    if disk.server != int(call.args[0]):
        raise errors.missing("Disk", f"{disk.id} of server {call.args[0]}")
    return _describe(call, disk)


def objects_by_disk(call: Call) -> dict[int, int]:
    """How many objects of volumes and snapshots each disk holds a copy of."""
    counts = dict.fromkeys(call.state.disks, 0)
    for found in call.state.objects.values():
        for disk, count in share(call, found).items():
            counts[disk] += count
    return counts


def share(call: Call, found: Object) -> dict[int, int]:
    """How many of its objects each disk holds a copy of."""
    return disksets.spread(found, disksets.placed(call, found))


def _find(call: Call, number: str) -> Disk:
    found = call.state.disks.get(int(number))
    if found is None:
        raise errors.missing("Disk", number)
    return found


def _find_up(call: Call) -> Disk:
    disk = _find(call, call.args[0])
    if not health.disk_up(call.state, disk):
        raise errors.invalid(f"Disk {disk.id} is down")
    return disk


def _describe(call: Call, disk: Disk) -> DiskDescription:
    """One entry for each volume or snapshot that has a copy here: its first object stands for all of them."""
    state = call.state
    if not health.disk_up(state, disk):
        raise errors.invalid(f"Disk {disk.id} is down, and what it holds cannot be seen")
    here = [found for found in state.objects.values() if disk.id in share(call, found)]
    objects = {
        index: DiskObject(
            objectId=0,
            generation=state.generation,
            version=1,
            volume=found.shown_name,
            parentVolume=state.objects[found.parent].shown_name if found.parent else "",
            onDiskSize=usage.on_disks(call, found)[disk.id],
            storedSize=usage.on_disks(call, found)[disk.id],
            state=_OK if health.in_sync(call, disk) else _RECOVERING,
            volumeId=found.id,
        )
        for index, found in enumerate(here)
    }
    used = usage.used_by_disk(call)[disk.id]
    return DiskDescription(objects=objects, **_up_fields(call, disk, objects_by_disk(call), used))


def _summary(call: Call, disk: Disk, counts: dict[int, int], used: dict[int, int]) -> DiskSummary | DownDisk:
    if health.disk_up(call.state, disk):
        return DiskSummary(**_up_fields(call, disk, counts, used[disk.id]))
    return DownDisk(generationLeft=health.generation_left(call.state, disk), **_fields(disk))


def _fields(disk: Disk) -> dict[str, Any]:  # Any: each field has its own type
    return {
        "id": disk.id,
        "serverId": disk.server,
        "ssd": disk.ssd,
        "model": "SPLAB-SSD" if disk.ssd else "SPLAB-HDD",
        "serial": f"SPLAB{disk.id:06}",
        "description": disk.description,
        "softEject": disk.soft_eject,
    }


def _up_fields(call: Call, disk: Disk, counts: dict[int, int], used: int) -> dict[str, Any]:
    """Fields of `DiskSummary`. The pool's bytes are spread evenly over the disks (`simulator.cluster.usage`)."""
    size = usage.disk_size(call)
    used = min(size, used)
    groups = max(1, size // ALLOCATION_GROUP)
    allocated = min(groups, -(-used // ALLOCATION_GROUP))
    pieces = min(OBJECTS, counts[disk.id])
    return {
        **_fields(disk),
        "device": f"/dev/sd{'b' if disk.ssd else 'a'}1",
        "sectorsCount": groups * ALLOCATION_GROUP // 512,
        "empty": not pieces,
        "entriesCount": OBJECTS,
        "entriesAllocated": pieces,
        "entriesFree": OBJECTS - pieces,
        "objectsCount": OBJECTS,
        "objectsAllocated": pieces,
        "objectsFree": OBJECTS - pieces,
        "objectsOnDiskSize": used,
        "agCount": groups,
        "agAllocated": allocated,
        "agFree": groups - allocated,
        **_scrubbing(call, disk, used),
    }


def _scrubbing(call: Call, disk: Disk, used: int) -> dict[str, Any]:
    paused = {"scrubbingPaused": bool(disk.scrub_paused_since), "lastScrubCompleted": health.last_scrub(call, disk)}
    done = health.scrubbed(call, disk)
    if not disk.scrub_started or done >= 1.0:
        return paused
    seconds = call.settings.disk_scrub_seconds
    held = disk.scrub_paused_seconds + (call.now - disk.scrub_paused_since if disk.scrub_paused_since else 0.0)
    return {
        **paused,
        "scrubbingStartedBefore": int(call.now - disk.scrub_started),
        "scrubbedBytes": int(used * done),
        "scrubbingBW": 0 if disk.scrub_paused_since else int(used / seconds),
        "scrubbingFinishAfter": int(seconds * (1 - done)),
        "scrubbingPausedFor": int(held),
    }


def disk_requests(call: Call) -> DiskRequests:
    """Requests of clients go to loop devices and are not seen here, so there are none."""
    return DiskRequests(diskId=_find_up(call).id, requests=[])


def set_description(call: Call, body: DiskDescUpdate) -> Plan:
    return _change(_find(call, call.args[0]), description=body.description)


def eject(call: Call) -> Plan:
    """The disk is used no more at once. There is one copy of the data here, so its volumes show others in its place."""
    disk = _find_up(call)
    return _change(disk, left_generation=call.state.generation, ejected=True, soft_eject="off")


def forget(call: Call) -> Plan:
    """A disk that is down goes from the cluster and its groups; `busy` while it is up."""
    state = call.state
    disk = _find(call, call.args[0])
    if health.disk_up(state, disk):
        raise errors.busy(f"Disk {disk.id} is up: eject it first")
    events: list[Event] = [
        Put(msgspec.structs.replace(group, disks=tuple(other for other in group.disks if other != disk.id)))
        for group in state.groups.values()
        if disk.id in group.disks
    ]
    return Plan(Ok(), [*events, Drop("disk", disk.id)], touches=(f"disk {disk.id}",))


def ignore(call: Call) -> Plan:
    """A cluster that starts does not wait for this disk, which must be down."""
    disk = _find(call, call.args[0])
    if health.disk_up(call.state, disk):
        raise errors.busy(f"Disk {disk.id} is up")
    return _change(disk, ignored=True)


def soft_eject(call: Call) -> Plan:
    """Begin to drain the disk, or go on with it."""
    disk = _find_up(call)
    if disk.soft_eject == "on":
        return Plan(Ok())
    done = disk.drained_seconds if disk.soft_eject == "paused" else 0.0
    return _change(disk, soft_eject="on", drained_since=call.now, drained_seconds=done)


def soft_eject_pause(call: Call) -> Plan:
    disk = _find_up(call)
    if disk.soft_eject != "on":
        raise errors.invalid(f"Disk {disk.id} is not being ejected")
    return _change(disk, soft_eject="paused", drained_seconds=disk.drained_seconds + call.now - disk.drained_since)


def soft_eject_cancel(call: Call) -> Plan:
    """The disk's data returns."""
    disk = _find_up(call)
    if disk.soft_eject == "off":
        raise errors.invalid(f"Disk {disk.id} is not being ejected")
    return _change(disk, soft_eject="off", drained_since=0.0, drained_seconds=0.0)


def retrim(call: Call) -> Plan:
    _find_up(call)
    return Plan(Ok())


def scrub_start(call: Call) -> Plan:
    """One that runs goes on; while scrubbing is paused it waits from its start on."""
    disk = _find_up(call)
    if disk.scrub_started and health.scrubbed(call, disk) < 1.0:
        return Plan(Ok())
    return _change(
        disk,
        last_scrub=health.last_scrub(call, disk),
        scrub_started=call.now,
        scrub_paused_seconds=0.0,
        scrub_paused_since=call.now if disk.scrub_paused_since else 0.0,
    )


def scrub_pause(call: Call) -> Plan:
    disk = _find_up(call)
    if disk.scrub_paused_since:
        return Plan(Ok())
    changed: dict[str, Any] = {"scrub_paused_since": call.now}
    if health.scrubbed(call, disk) >= 1.0:
        changed |= {"scrub_started": 0.0, "last_scrub": health.last_scrub(call, disk)}
    return _change(disk, **changed)


def scrub_continue(call: Call) -> Plan:
    disk = _find_up(call)
    if not disk.scrub_paused_since:
        return Plan(Ok())
    held = call.now - disk.scrub_paused_since if disk.scrub_started else 0.0
    return _change(disk, scrub_paused_since=0.0, scrub_paused_seconds=disk.scrub_paused_seconds + held)


def disk_down(call: Call) -> Plan:
    """Control: the disk named in the path fails."""
    disk = _find(call, call.args[0])
    if disk.left_generation >= 0:
        return Plan(Ok())
    return _change(disk, left_generation=call.state.generation)


def disk_back(call: Call) -> Plan:
    """Control: the disk is back, with what it held then; it is brought up to date, also one that was ejected."""
    disk = _find(call, call.args[0])
    if disk.left_generation < 0:
        return Plan(Ok())
    return _change(disk, left_generation=-1, back_since=call.now, ejected=False, ignored=False)


def _change(disk: Disk, **changed: Any) -> Plan:  # Any: as in `_fields`
    new = msgspec.structs.replace(disk, **changed)
    return Plan(Ok(), [] if new == disk else [Put(new)], touches=(f"disk {disk.id}",))
