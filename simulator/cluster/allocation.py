"""Allocation groups: volumes and snapshots that share disk sets (spec storpool-api 2.7, 5.5, 6.3).

A new volume has a group of its own, with its serial as the id; what is made from a volume or snapshot with the same
placement is in the group of its source. A group has no placement of its own: members that have the same are on the same
disks.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from simulator.api import errors
from simulator.api.schema.answers import Ok
from simulator.api.schema.relocation import AbandonDiskDesc, UpdateVagDesc, VagDesc, VagUpdateDesc
from simulator.cluster import disksets, health, relocator
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import Event, Object, Put, Vag
from simulator.cluster.state import State
from simulator.cluster.summary import OBJECT_BYTES


def vag_list(call: Call) -> VagDesc:
    """Placement and template are those of its first member; chains are the sets on which its members are now."""
    state, number = call.state, int(call.args[0])
    members = _members(state, number)
    first = members[0]
    parent = state.objects.get(first.parent)
    largest = msgspec.structs.replace(first, size=disksets.MOST_SETS * OBJECT_BYTES, abandoned=())
    vag = state.vags.get(number, Vag(id=number))
    return VagDesc(
        name=number,
        vagId=number,
        parentVagId=0 if parent is None else parent.allocation_group,
        templateId=first.template,
        templateName=state.templates[first.template].name if first.template else "",
        placeAll=state.groups[first.place_all].name,
        placeTail=state.groups[first.place_tail].name,
        placeHead=state.groups[first.place_head].name,
        replication=first.replication,
        reuseServer=UNSET if first.reuse_server is None else first.reuse_server,
        chains=[list(one) for one in sorted({tuple(one) for found in members for one in disksets.placed(call, found)})],
        targetDiskSets=disksets.targets(state, largest),
        overrides={at: list(disks) for at, disks in sorted(vag.overrides.items())},
        diskSetsConstraintsViolated=any(_violated(state, found) for found in members),
    )


def _members(state: State, number: int) -> list[Object]:
    serials = state.vag_members.get(number)
    if serials is None:
        raise errors.missing("Allocation group", number)
    return [state.objects[serial] for serial in sorted(serials)]


def _violated(state: State, found: Object) -> bool:
    """Whether copies are missing, or share a server without leave."""
    for disks in disksets.targets(state, found):
        servers = {state.disks[disk].server for disk in disks}
        if len(disks) < found.replication or (len(servers) < len(disks) and not found.reuse_server):
            return True
    return False


def volume_update_vag(call: Call, body: UpdateVagDesc) -> Plan:
    return _update_vag(call, call.state.volume(call.args[0]), body)


def snapshot_update_vag(call: Call, body: UpdateVagDesc) -> Plan:
    return _update_vag(call, call.state.snapshot(call.args[0]), body)


def _update_vag(call: Call, found: Object, body: UpdateVagDesc) -> Plan:
    """To the group of its parent, back to one of its own, or to one whose members have its placement."""
    state = call.state
    if body.vagId == "parent":
        if not found.parent:
            raise errors.invalid(f"'{found.shown_name}' has no parent")
        number = state.objects[found.parent].allocation_group
    else:
        number = int(body.vagId)
    if number != found.id:
        for member in _members(state, number):
            if member.placement != found.placement:
                text = f"'{found.shown_name}' has another placement than '{member.shown_name}' of"
                raise errors.invalid(f"{text} allocation group {number}")
    if number == found.allocation_group:
        return Plan(Ok(), touches=(found.id,))
    new = msgspec.structs.replace(found, vag=number)
    return Plan(Ok(), [Put(new), *relocator.moved(call, found, new)], touches=(found.id,))


def vag_update(call: Call, body: VagUpdateDesc) -> Plan:
    """Change how many disk sets a group has: a power of two, and at most `MOST_SETS` here."""
    state, number, sets = call.state, int(body.vagId), body.targetsCount
    if sets & (sets - 1):
        raise errors.invalid(f"targetsCount {sets} is not a power of two")
    if sets > disksets.MOST_SETS:
        raise errors.invalid(f"targetsCount {sets}: this simulator has at most {disksets.MOST_SETS} disk sets a group")
    members = _members(state, number)
    old = state.vags.get(number, Vag(id=number))
    kept = {at: disks for at, disks in old.overrides.items() if at < sets}
    vag = msgspec.structs.replace(old, sets=sets, overrides=kept)
    after = state.with_records([vag])
    events: list[Event] = [Put(vag)]
    for found in members:
        events += relocator.moved(call, found, found, after)
    return Plan(Ok(), events)


def abandon_disk(call: Call, body: AbandonDiskDesc) -> Plan:
    """A volume or snapshot gives up its copies on a disk that is down; they are made again on other disks.

    Where no other disk can have them, they are made again on this one when it is back. `busy` while the disk is up, and
    when it has the last good copy of something.
    """
    state = call.state
    found = state.find(call.args[0])
    if found is None:
        raise errors.missing("Volume or snapshot", call.args[0])
    disk = state.disks.get(body.diskId)
    if disk is None:
        raise errors.missing("Disk", body.diskId)
    if health.disk_up(state, disk):
        raise errors.busy(f"Disk {disk.id} is up: eject it instead")
    placed = disksets.placed(call, found)
    if not any(disk.id in one for one in placed):
        raise errors.invalid(f"'{found.shown_name}' has no copies on disk {disk.id}")
    left = [[other for other in one if other != disk.id] for one in placed]
    for here, others in zip(placed, left, strict=True):
        if disk.id in here and not any(health.in_sync(call, state.disks[other]) for other in others):
            raise errors.busy(f"Disk {disk.id} has the last good copy of data of '{found.shown_name}'")
    new = msgspec.structs.replace(found, abandoned=tuple(sorted({*found.abandoned, disk.id})))
    return Plan(Ok(), [Put(new), relocator.began(call, found, left)], touches=(found.id,))
