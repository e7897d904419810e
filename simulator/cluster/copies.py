"""Local copies of what another cluster offers, and backups there (spec storpool-api 7.5, 7.8).

The contents are here before the copy is: whoever reads it, reverts to it or makes a volume of it has the data at once,
as StorPool's clients have, who are sent to the remote cluster for what has not arrived. How long a cluster says that it
is recovering is the setting `remote_recovery_seconds`.
"""

from __future__ import annotations

import msgspec

from simulator.api import errors
from simulator.api.schema.answers import Ok
from simulator.api.schema.requests import GroupSnapshotSpec, GroupSnapshotsSpec, Policy
from simulator.api.schema.transfers import Answered, FetchDesc, ReconcileDesc, VolumesGroupBackupDesc
from simulator.cluster import policy
from simulator.cluster.effects import Fetch
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import COPY, NO_PARENT, OWNER, Event, Exported, Object, Put
from simulator.cluster.remote import registered_location
from simulator.cluster.snapshots import snapshot_create_group
from simulator.cluster.state import State
from simulator.cluster.volumes import check_name_free, global_id

BACKUP_SECONDS = 3600.0
"""After which a backup whose end was never heard of is given up."""


def nearest(state: State, ancestors: list[str]) -> Object | None:
    """The nearest of these ancestors that is here too."""
    for one in ancestors:
        found = state.find("~" + one)
        if found is not None and found.snapshot and found.global_id == one:
            return found
    return None


def fetch(call: Call, body: FetchDesc) -> Plan:
    """A snapshot under the same global id, or a volume; on top of the nearest ancestor that is here."""
    state, offer, wanted = call.state, body.offer, body.wanted
    if not body.volume and state.find("~" + offer.globalId) is not None:
        raise errors.exists("~" + offer.globalId)
    check_name_free(call, wanted.name)
    template = state.template(wanted.template) if wanted.template else None
    chosen = Policy(
        placeAll=wanted.placeAll,
        placeTail=wanted.placeTail,
        placeHead=wanted.placeHead,
        replication=wanted.replication,
    )
    placement = policy.resolve(call, chosen, template, None)
    policy.check_space(call)
    parent = nearest(state, offer.ancestors)
    serial = state.next_serial
    ancestor = NO_PARENT if parent is None else parent.id
    until = call.now + call.settings.remote_recovery_seconds
    new = Object(
        id=serial,
        name=wanted.name or "",
        global_id=global_id(call, serial) if body.volume else offer.globalId,
        snapshot=not body.volume,
        size=offer.size,
        created=int(call.now) if body.volume else offer.created,
        visible_id=serial,
        parent=ancestor,
        original_parent=ancestor,
        tags=policy.merge_tags(offer.tags, wanted.tags),
        auto_name=not body.volume and not wanted.name,
        state="clusterLocalAutoReconcile" if body.volume else "clusterLocal",
        recovering_until=until,
        backup_of=offer.globalId if body.backup else "",
        backup_of_visible=offer.visibleId if body.backup else 0,
        vag=policy.allocation_group(parent, placement) if parent is not None else 0,
        **placement,
    )
    events: list[Event] = [Put(new)]
    if wanted.export:
        location = registered_location(state, wanted.remoteLocation)
        events.append(Put(Exported(id=state.next_id["export"], object=serial, location=location.id)))
    return Plan(
        Answered(until=until),
        events,
        [Fetch(serial, offer.size, body.source, offer.globalId, ancestor)],
        ("~" + offer.globalId, wanted.name or "", *(("remote",) if wanted.export else ())),
        (*policy.uses(placement), *((ancestor,) if ancestor else ())),
        serials=1,
    )


def backup_begin(call: Call, body: VolumesGroupBackupDesc) -> Plan:
    """Snapshots of the volumes at one point in time, exported to the location for as long as it copies them."""
    location = registered_location(call.state, body.location)
    volumes = [GroupSnapshotSpec(volume=volume) for volume in body.volumes]
    plan = snapshot_create_group(call, GroupSnapshotsSpec(volumes=volumes, tags=body.tags))
    first = call.state.next_id["export"]
    for at in range(len(volumes)):
        plan.events.append(
            Put(
                Exported(
                    id=first + at,
                    object=call.state.next_serial + at,
                    location=location.id,
                    backing_up_until=call.now + BACKUP_SECONDS,
                )
            )
        )
    plan.touches = (*plan.touches, "remote")
    return plan


def reconcile(call: Call, body: ReconcileDesc) -> Plan:
    """The copy of a remote snapshot becomes its owner, or one of the copies of whom owns it in this location."""
    found = call.state.snapshot(body.snapshot)
    if call.now < found.recovering_until:
        raise errors.busy(f"Snapshot '{found.shown_name}' is still recovering from remote")
    state = OWNER if body.owner else COPY
    if found.state in (OWNER, state):
        return Plan(Ok(), touches=(found.id,))
    return Plan(Ok(), [Put(msgspec.structs.replace(found, state=state))], touches=(found.id,))
