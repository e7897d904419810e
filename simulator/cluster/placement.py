"""Placement groups and fault sets."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from simulator.api import errors
from simulator.api.schema.answers import FaultSet, GroupDesc, Ok
from simulator.api.schema.requests import GroupUpdateDesc
from simulator.cluster import relocator
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import Drop, Event, Group, Object, Put, Template


def groups_list(call: Call) -> dict[str, GroupDesc]:
    return {group.name: _describe(group) for group in call.state.groups.values()}


def group_describe(call: Call) -> GroupDesc:
    return _describe(call.state.group(call.args[0]))


def _describe(group: Group) -> GroupDesc:
    return GroupDesc(id=group.id, name=group.name, disks=list(group.disks))


def group_update(call: Call, body: GroupUpdateDesc) -> Plan:
    """Creates the group when it is missing."""
    state = call.state
    name = call.args[0]
    found = state.groups_by_name.get(name)
    old = Group(id=state.next_id["group"], name=name, disks=()) if found is None else state.groups[found]
    for disk in (*body.addDisks, *body.rmDisks):
        if disk not in state.disks:
            raise errors.missing("Disk", disk)
    both = sorted(set(body.addDisks) & set(body.rmDisks))
    if both:
        raise errors.invalid(f"Disk {both[0]} is asked to be both added and removed")
    new_name = body.rename or name
    if new_name != name and new_name in state.groups_by_name:
        raise errors.exists(new_name)
    disks = tuple(sorted((set(old.disks) | set(body.addDisks)) - set(body.rmDisks)))
    new = msgspec.structs.replace(old, name=new_name, disks=disks)
    if found is not None and new == old:
        return Plan(Ok())
    return Plan(Ok(), [Put(new), *_moves(call, old, new)])


def _moves(call: Call, old: Group, new: Group) -> Iterator[Event]:
    """Of the volumes and snapshots that are on other disks of the group, or on others instead."""
    if new.disks == old.disks:
        return
    after = call.state.with_records([new])
    for found in call.state.objects.values():
        if new.id in found.placement[:3]:
            yield from relocator.moved(call, found, found, after)


def group_delete(call: Call) -> Plan:
    """A group in use is kept whatever the settings say: volumes without a placement could not be shown."""
    state = call.state
    old = state.group(call.args[0])
    users: list[Object | Template] = [*state.objects.values(), *state.templates.values()]
    used = [user for user in users if old.id in (user.place_all, user.place_tail, user.place_head)]
    if used:
        raise errors.busy(f"Placement group '{old.name}' is used by {len(used)} volumes, snapshots and templates")
    return Plan(Ok(), [Drop("group", old.id)], touches=(f"group {old.id}",))


def fault_sets_list(_call: Call) -> dict[str, FaultSet]:
    """The seeded cluster has none."""
    return {}
