"""What other locations and clusters may read here, and what they are told of it (spec storpool-api 5.3, 6.6, 7.8)."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from simulator.api import errors
from simulator.api.schema.answers import Ok
from simulator.api.schema.transfers import (
    Answered,
    BackupDone,
    ClusterChoice,
    DoneDesc,
    Export,
    Exports,
    Locate,
    Located,
    Offer,
    Offers,
    OffersAsked,
    Recovering,
    SnapshotExportDesc,
    SnapshotUnexportDesc,
)
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import COPY, OWNER, Bridge, Drop, Event, Exported, Location, Object, Put
from simulator.cluster.remote import Neighbour, neighbours, registered_location
from simulator.cluster.snapshots import delete_date
from simulator.cluster.state import State
from simulator.cluster.volumes import check_not_transient


def chosen_cluster(state: State, body: ClusterChoice) -> Neighbour:
    """The registered cluster that is named, or whose id is given."""
    if (body.cluster is None) == (body.clusterId is None):
        raise errors.invalid("Give either cluster or clusterId")
    for found in neighbours(state):
        if found.name == body.cluster or found.cluster_id == body.clusterId:
            return found
    raise errors.missing("Cluster", body.cluster or body.clusterId)


def snapshot_export(call: Call, body: SnapshotExportDesc) -> Plan:
    """To a location; once more changes nothing."""
    state = call.state
    found = state.snapshot(body.snapshot)
    check_not_transient(found)
    location = registered_location(state, body.location)
    touches = (found.id, "remote")
    if any(export.location == location.id and not export.backing_up_until for export in state.exported(found.id)):
        return Plan(Ok(), touches=touches)
    new = Exported(id=state.next_id["export"], object=found.id, location=location.id)
    return Plan(Ok(), [Put(new)], touches=touches)


def volume_export(call: Call, body: ClusterChoice) -> Plan:
    """To one cluster, whose clients may then attach it."""
    state = call.state
    found = state.volume(call.args[0])
    cluster = chosen_cluster(state, body)
    touches = (found.id, "remote")
    if any(export.cluster == cluster.record for export in state.exported(found.id)):
        return Plan(Ok(), touches=touches)
    location = registered_location(state, cluster.location).id
    new = Exported(id=state.next_id["export"], object=found.id, location=location, cluster=cluster.record)
    return Plan(Ok(), [Put(new)], touches=touches)


def unexported_from(call: Call, body: SnapshotUnexportDesc) -> list[Exported]:
    """The exports that the call takes back. Raises `Refused`."""
    state = call.state
    found = state.snapshot(body.snapshot)
    if bool(body.all) == (body.location is not None):
        raise errors.invalid("Give either location or all")
    if body.all:
        return state.exported(found.id)
    location = registered_location(state, body.location or "")
    exports = [export for export in state.exported(found.id) if export.location == location.id]
    if not exports:
        raise errors.missing("Export to", location.name)
    return exports


def unexport(call: Call, body: SnapshotUnexportDesc) -> Plan:
    """Whether it is still being copied there was asked before."""
    gone = unexported_from(call, body)
    found = call.state.snapshot(body.snapshot)
    return Plan(Ok(), [Drop("export", export.id) for export in gone], touches=(found.id, "remote"))


def exports_list(call: Call) -> Exports:
    return _exports(call, snapshots=True)


def volume_exports_list(call: Call) -> Exports:
    return _exports(call, snapshots=False)


def _exports(call: Call, *, snapshots: bool) -> Exports:
    state = call.state
    shown = []
    for export in state.table(Exported).values():
        found = state.objects[export.object]
        if found.snapshot != snapshots:
            continue
        shown.append(
            Export(
                snapshot=found.shown_name,
                location=state.table(Location)[export.location].name,
                globalId=found.global_id,
                backingUp=True if export.backing_up_until else UNSET,
                volumeId=found.id,
                visibleVolumeId=found.visible_id,
            )
        )
    return Exports(exports=shown)


# What other clusters ask.


def locate(call: Call, body: Locate) -> Located:
    found = call.state.find(body.object)
    if found is None:
        return Located()
    return Located(
        globalId=found.global_id,
        snapshot=found.snapshot,
        owner=found.state == OWNER,
        copy=found.state == COPY,
        attached=bool(found.attachments),
    )


def offers(call: Call, body: OffersAsked) -> Offers:
    """What the asking cluster may read; itself it is not told of anything else."""
    state = call.state
    asking = next((found for found in neighbours(state) if found.cluster_id == body.cluster), None)
    if asking is None:
        return Offers(offers=[])
    location = registered_location(state, asking.location).id
    visible = {
        export.object: None
        for export in state.table(Exported).values()
        if export.location == location and export.cluster in (0, asking.record)
    }
    found = [state.objects[serial] for serial in visible]
    return Offers(offers=[offer(state, one) for one in found if body.globalId in (None, one.global_id)])


def offer(state: State, found: Object, *, moves: bool = False) -> Offer:
    """All that a copy of the object needs to know."""
    template = state.templates[found.template].name if found.template else ""
    volume = state.objects.get(state.volumes_by_visible_id.get(found.taken_on, 0))
    return Offer(
        globalId=found.global_id,
        snapshot=found.snapshot,
        name=found.name,
        autoName=found.auto_name,
        size=found.size,
        created=found.created,
        visibleId=found.visible_id,
        takenOn=found.taken_on,
        takenOnName="" if volume is None else volume.shown_name,
        tags=dict(found.tags),
        template=template,
        placeAll=state.groups[found.place_all].name,
        placeTail=state.groups[found.place_tail].name,
        placeHead=state.groups[found.place_head].name,
        replication=found.replication,
        bw=found.bw,
        iops=found.iops,
        limitType=found.limit_type,
        ancestors=[one.global_id for one in state.ancestors(found)],
        bound=found.bound,
        deleteDate=found.delete_date,
        backupOf=found.backup_of,
        backupOfVisible=found.backup_of_visible,
        moves=moves,
    )


def recovering(call: Call, body: Recovering) -> Answered:
    """Whether the object's data is still arriving here."""
    found = call.state.find("~" + body.globalId)
    return Answered(yes=found is not None and call.now < found.recovering_until)


def done(call: Call, body: DoneDesc) -> Plan:
    """A location needs a snapshot no more, and may set when it is deleted, if its bridge allows that."""
    state = call.state
    found = state.snapshot("~" + body.globalId)
    asking = next((one for one in neighbours(state) if one.cluster_id == body.cluster), None)
    gone = [] if asking is None else state.exported(found.id)
    if asking is not None:
        location = registered_location(state, asking.location).id
        gone = [export for export in gone if export.location == location]
    if asking is None or not gone:
        raise errors.missing("Exported snapshot", "~" + body.globalId)
    date = delete_date(call, body.targetDeleteDate, body.deleteAfter)
    events: list[Event] = [Drop("export", export.id) for export in gone]
    if date:
        delays = [
            bridge.minimum_delete_delay
            for bridge in state.table(Bridge).values()
            if bridge.location == location and bridge.minimum_delete_delay is not None
        ]
        if not delays:
            raise errors.invalid("The bridge to this location allows no date of deletion: it has no minimumDeleteDelay")
        date = max(date, int(call.now) + max(delays))
        events.append(Put(msgspec.structs.replace(found, delete_date=date)))
    return Plan(Ok(), events, touches=(found.id, "remote"))


def backing_up(call: Call, body: BackupDone) -> Plan:
    """The location has what it needs of the snapshot from this time on."""
    state = call.state
    found = state.snapshot("~" + body.globalId)
    exports = [export for export in state.exported(found.id) if export.backing_up_until]
    events: list[Event] = [Put(msgspec.structs.replace(export, backing_up_until=body.until)) for export in exports]
    return Plan(Ok(), events, touches=(found.id, "remote"))
