"""Snapshots, and what moves a volume in the snapshot tree (spec storpool-api 7.2 and 7.4)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET

from simulator.api import errors
from simulator.api.schema.answers import GroupSnapshot, GroupSnapshots, Ok, SnapshotCreated, Summary
from simulator.api.schema.requests import (
    GroupSnapshotsSpec,
    SnapshotUpdateDesc,
    VolumeFreezeDesc,
    VolumeRebaseDesc,
    VolumeRevertDesc,
    VolumeSnapshotDesc,
)
from simulator.cluster import policy, relocator
from simulator.cluster.effects import Attach, Clone, CloneGroup, Delete, Effect
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import NO_PARENT, Drop, Event, Object, Put
from simulator.cluster.remote import client_title
from simulator.cluster.summary import links, summary
from simulator.cluster.volumes import (
    check_name_free,
    check_no_target,
    check_not_transient,
    detach_all,
    generated_name,
    global_id,
    relink,
)


def snapshots_list(call: Call) -> list[Summary]:
    """Those that are being deleted included."""
    return [summary(call, found) for found in call.state.objects.values() if found.snapshot]


def snapshot_list(call: Call) -> list[Summary]:
    return [summary(call, call.state.snapshot(call.args[0]))]


def volume_list_snapshots(call: Call) -> list[Summary]:
    return [summary(call, found) for found in call.state.ancestors(call.state.volume(call.args[0]))]


def delete_date(call: Call, date: int | None, after: int | None) -> int | None:
    """Unix seconds, 0 for never, None when neither is given; never in the past."""
    if date is not None and after is not None:
        raise errors.invalid("Give either targetDeleteDate or deleteAfter, not both")
    if after is not None:
        return int(call.now) + after if after else 0
    if date and date < call.now:
        raise errors.invalid(f"targetDeleteDate {date} is in the past; it is {int(call.now)} now")
    return date


@dataclass(frozen=True, slots=True)
class _Taken:
    """A snapshot that is about to be taken."""

    volume: Object
    snapshot: Object
    name: str
    """That nobody else may take meanwhile."""
    placement: policy.Placement
    moving: list[Event]
    """Where the snapshot is, while the volume is relocated."""

    @property
    def events(self) -> list[Event]:
        parent = msgspec.structs.replace(self.volume, parent=self.snapshot.id)
        return [Put(self.snapshot), *self.moving, Put(parent)]

    @property
    def clone(self) -> Clone:
        return Clone(self.volume.id, self.snapshot.id, self.volume.size)


def _take(call: Call, volume: Object, serial: int, body: VolumeSnapshotDesc) -> _Taken:
    """The snapshot becomes the volume's parent; the volume's old parent becomes the snapshot's."""
    check_name_free(call, body.name)
    placement = policy.of_source(volume)
    if body.template:
        placement = msgspec.convert(
            {**placement, **policy.of_template(call.state.template(body.template))}, policy.Placement
        )
    name = body.name or (generated_name(volume, serial) if volume.name and not volume.name.startswith("~") else "")
    if not body.name:
        check_name_free(call, name)
    snapshot = Object(
        id=serial,
        name=name,
        global_id=global_id(call, serial),
        snapshot=True,
        size=volume.size,
        created=int(call.now),
        visible_id=serial,
        parent=volume.parent,
        original_parent=volume.parent,
        tags=policy.merge_tags({}, body.tags),
        taken_on=volume.visible_id,
        auto_name=not body.name,
        bound=bool(body.bind),
        delete_date=delete_date(call, body.targetDeleteDate, body.deleteAfter) or 0,
        vag=policy.allocation_group(volume, placement),
        abandoned=volume.abandoned,
        **placement,
    )
    return _Taken(volume, snapshot, name, placement, relocator.inherited(call, volume, snapshot))


def snapshot_create(call: Call, body: VolumeSnapshotDesc | None) -> Plan:
    """One snapshot of one volume."""
    state = call.state
    taken = _take(call, state.volume(call.args[0]), state.next_serial, body or VolumeSnapshotDesc())
    policy.check_space(call)
    snapshot = taken.snapshot
    answer = SnapshotCreated(snapshotGlobalId=snapshot.global_id, snapshotVisibleVolumeId=snapshot.id)
    if snapshot.auto_name and snapshot.name:
        answer.autoName = snapshot.name
    return Plan(
        answer, taken.events, [taken.clone], (taken.volume.id, taken.name), policy.uses(taken.placement), serials=1
    )


def snapshot_create_group(call: Call, body: GroupSnapshotsSpec) -> Plan:
    """Snapshots of several volumes at one point in time; all of them or none (spec 7.5)."""
    state = call.state
    taken: list[_Taken] = []
    for at, item in enumerate(body.volumes):
        wanted = VolumeSnapshotDesc(name=item.name, tags={**(body.tags or {}), **(item.tags or {})})
        taken.append(_take(call, state.volume(item.volume), state.next_serial + at, wanted))
    for what, found in (("Volume", [one.volume.shown_name for one in taken]), ("Name", [one.name for one in taken])):
        twice = sorted(name for name, count in Counter(found).items() if count > 1 and name)
        if twice:
            raise errors.invalid(f"{what} '{twice[0]}' is in the group more than once")
    policy.check_space(call)
    answer = GroupSnapshots(
        snapshots=[
            GroupSnapshot(
                volume=one.volume.shown_name,
                volumeGlobalId=one.volume.global_id,
                snapshot=one.snapshot.name or UNSET,
                remoteId=one.snapshot.global_id,
                snapshotGlobalId=one.snapshot.global_id,
            )
            for one in taken
        ]
    )
    return Plan(
        answer,
        [event for one in taken for event in one.events],
        [CloneGroup(tuple(one.clone for one in taken))],
        tuple(touched for one in taken for touched in (one.volume.id, one.name)),
        tuple(dict.fromkeys(used for one in taken for used in policy.uses(one.placement))),
        serials=len(taken),
    )


def snapshot_update(call: Call, body: SnapshotUpdateDesc | None) -> Plan:
    """An empty update changes nothing, and serves clients to learn the cluster's id."""
    body = body or SnapshotUpdateDesc()
    old = call.state.snapshot(call.args[0])
    changed: dict[str, Any] = {}
    if body.template is not None:
        changed.update(policy.of_template(call.state.template(body.template)))
    changed.update(policy.chosen(call, body))
    touches: tuple[int | str, ...] = (old.id,)
    if body.rename is not None and body.rename != old.name:
        check_name_free(call, body.rename)
        changed.update(name=body.rename, auto_name=False)
        touches = (old.id, body.rename)
    if body.bind is not None:
        changed["bound"] = body.bind
    date = delete_date(call, body.targetDeleteDate, body.deleteAfter)
    if date is not None:
        changed["delete_date"] = date
    if body.tags:
        changed["tags"] = policy.merge_tags(old.tags, body.tags)
    if not changed:
        return Plan(Ok(), touches=touches)
    new = msgspec.structs.replace(old, **changed)
    events = [Put(new), *relocator.moved(call, old, new)]
    return Plan(Ok(), events, relink(call, old, new), touches, policy.uses(policy.of_source(new)))


def snapshot_delete(call: Call) -> Plan:
    """Leaves the name space at once and stays listed until its data is merged into its children."""
    return _delete(call, call.state.snapshot(call.args[0]))


def snapshot_delete_by_id(call: Call) -> Plan:
    return _delete(call, call.state.snapshot("~" + call.args[0]))


def _delete(call: Call, old: Object) -> Plan:
    if old.attachments:
        clients = ", ".join(client_title(call.state, client) for client in sorted(old.attachments))
        raise errors.busy(f"Snapshot '{old.shown_name}' is attached to client {clients}")
    if old.id in call.state.exports:
        raise errors.busy(f"Snapshot '{old.shown_name}' is exported")
    return Plan(Ok(), [Put(deleting(call, old))], touches=(old.id,))


def deleting(call: Call, old: Object) -> Object:
    settings = call.settings
    name = settings.deleting_name.format(name=old.name or old.global_id, global_id=old.global_id)
    gone_at = max(call.now + settings.snapshot_removal_seconds, old.recovering_until)
    return msgspec.structs.replace(old, name=name, gone_at=gone_at)


def volume_revert(call: Call, body: VolumeRevertDesc) -> Plan:
    """A new volume on top of the snapshot takes the name's place (spec 7.4): new global id, same visible id.

    An unnamed volume keeps its old id, with `~`, as its name, so that it is still found by it.
    """
    state = call.state
    old = state.volume(call.args[0])
    snapshot = state.snapshot(body.toSnapshot)
    check_not_transient(snapshot)
    if old.attachments and call.settings.revert_attached == "refuse":
        raise errors.busy(f"Volume '{old.shown_name}' is attached")
    policy.check_space(call)
    serial = state.next_serial
    new = msgspec.structs.replace(
        old,
        id=serial,
        name=old.shown_name,
        global_id=global_id(call, serial),
        size=snapshot.size if body.revertSize else old.size,
        parent=snapshot.id,
        original_parent=snapshot.id,
        vag=old.allocation_group,
    )
    effects: list[Effect] = [Clone(snapshot.id, serial, new.size), *detach_all(old, force=True)]
    effects += [
        Attach(serial, links(new, client, at.cluster), at.rights == "ro")
        for client, at in old.attachments.items()
        if state.runs(client)
    ]
    events: list[Event] = [Drop("object", old.id), Put(new)]
    events += [Put(msgspec.structs.replace(export, object=serial)) for export in state.exported(old.id)]
    return Plan(Ok(), events, effects, (old.id,), (snapshot.id,), [Delete(old.id)], serials=1)


def volume_freeze(call: Call, body: VolumeFreezeDesc | None) -> Plan:
    """The volume becomes a snapshot under the same name and id."""
    body = body or VolumeFreezeDesc()
    old = call.state.volume(call.args[0])
    if old.attachments:
        raise errors.busy(f"Volume '{old.shown_name}' is attached")
    check_no_target(call, old)
    date = delete_date(call, body.targetDeleteDate, body.deleteAfter)
    return Plan(
        Ok(), [Put(msgspec.structs.replace(old, snapshot=True, delete_date=date or 0))], touches=(old.id, old.name)
    )


def volume_rebase(call: Call, body: VolumeRebaseDesc | None) -> Plan:
    return _rebase(call, call.state.volume(call.args[0]), body)


def snapshot_rebase(call: Call, body: VolumeRebaseDesc | None) -> Plan:
    return _rebase(call, call.state.snapshot(call.args[0]), body)


def _rebase(call: Call, old: Object, body: VolumeRebaseDesc | None) -> Plan:
    """To one of the ancestors, or to no parent at all. Contents stay."""
    name = body.parentName if body is not None else None
    parent = NO_PARENT
    if name:
        parent = call.state.snapshot(name).id
        if parent not in {found.id for found in call.state.ancestors(old)}:
            raise errors.invalid(f"Snapshot '{name}' is not an ancestor of '{old.shown_name}'")
    if parent == old.parent:
        return Plan(Ok(), touches=(old.id,))
    return Plan(Ok(), [Put(msgspec.structs.replace(old, parent=parent))], touches=(old.id, parent))
