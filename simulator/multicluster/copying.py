"""Copies of what other locations offer, exports and backups (spec storpool-api 7.5, 7.8)."""

from __future__ import annotations

from collections.abc import Generator

import msgspec
from msgspec import UNSET

from simulator.api import errors
from simulator.api.errors import Refused
from simulator.api.schema.answers import Ok
from simulator.api.schema.transfers import (
    Backup,
    FromRemoteDesc,
    Offer,
    RemoteObject,
    RemoteSnapshots,
    RemoteVolumes,
    SnapshotsRemoteUnexportDesc,
    SnapshotUnexportDesc,
    TakeBackupDesc,
    VolumeBackedUp,
    VolumeBackupDesc,
    VolumeFromRemoteDesc,
    VolumesBackedUp,
    VolumesGroupBackupDesc,
)
from simulator.cluster.exports import unexported_from
from simulator.cluster.remote import Neighbour, registered_location
from simulator.multicluster.flow import Ask, Flow, Got, Here, bridge


def clusters_at(here: Here, location: str) -> list[Neighbour]:
    """Those of the location that are reached. Raises `Refused` when it is unknown or none is."""
    registered_location(here.call.state, location)
    found = here.neighbours(location=location)
    if not found:
        text = f"No cluster of location '{location}' can be reached: register it with a bridge, or see whether it runs"
        raise errors.unavailable(text)
    return found


def _offers(here: Here, clusters: list[Neighbour], **only: str) -> Generator[Ask, Got, list[tuple[Neighbour, Offer]]]:
    found = []
    for cluster in clusters:
        got = yield bridge(cluster.cluster_id, "Offers", {"cluster": here.cluster_id, **only})
        found += [(cluster, msgspec.convert(one, Offer)) for one in got.data["offers"]]
    return found


def snapshot_from_remote(here: Here, body: FromRemoteDesc) -> Flow:
    """A copy of an exported snapshot, under its global id."""
    yield from _from_remote(here, body, volume=False)
    return Ok(generation=here.call.state.generation)


def volume_from_remote(here: Here, body: VolumeFromRemoteDesc) -> Flow:
    """A volume with the contents of an exported snapshot."""
    yield from _from_remote(here, body, volume=True)
    return Ok(generation=here.call.state.generation)


def _from_remote(here: Here, body: FromRemoteDesc, *, volume: bool) -> Generator[Ask, Got, float]:
    if not volume and here.call.state.find("~" + body.remoteId) is not None:
        raise errors.exists("~" + body.remoteId)
    clusters = clusters_at(here, body.remoteLocation)
    offers = yield from _offers(here, clusters, globalId=body.remoteId)
    if not offers or not offers[0][1].snapshot:
        raise errors.missing(f"Snapshot exported by location '{body.remoteLocation}':", "~" + body.remoteId)
    cluster, offer = offers[0]
    wanted = {"source": cluster.cluster_id, "offer": offer, "wanted": body, "volume": volume}
    got = yield bridge("", "Fetch", wanted)
    return float(got.data["until"])


def snapshots_remote_list(here: Here) -> Flow:
    shown = yield from _remote_list(here, snapshots=True)
    return RemoteSnapshots(snapshots=shown)


def volumes_remote_list(here: Here) -> Flow:
    shown = yield from _remote_list(here, snapshots=False)
    return RemoteVolumes(volumes=shown)


def _remote_list(here: Here, *, snapshots: bool) -> Generator[Ask, Got, list[RemoteObject]]:
    offers = yield from _offers(here, here.neighbours())
    return [_remote(here, cluster, offer) for cluster, offer in offers if offer.snapshot == snapshots]


def _remote(here: Here, cluster: Neighbour, offer: Offer) -> RemoteObject:
    local = here.call.state.find("~" + offer.globalId)
    return RemoteObject(
        # The bindings' pattern has no generated names, which hold an `@`.
        name=offer.name if offer.name and not offer.autoName else "~" + offer.globalId,
        location=cluster.location,
        creationTimestamp=offer.created,
        size=offer.size,
        remoteId=offer.globalId,
        onVolume=offer.takenOnName or UNSET,
        localSnapshot=local.shown_name if local is not None and local.snapshot else UNSET,
        tags=offer.tags,
        createdFromGlobalId=offer.globalId,
        createdFromVisibleVolumeId=offer.takenOn or offer.visibleId,
    )


def snapshot_unexport(here: Here, body: SnapshotUnexportDesc) -> Flow:
    """Refused with `busy` while somebody still copies it, unless `force`."""
    exports = unexported_from(here.call, body)
    found = here.call.state.snapshot(body.snapshot)
    if not body.force:
        locations = {export.location for export in exports}
        for other in here.neighbours():
            if registered_location(here.call.state, other.location).id not in locations:
                continue
            got = yield bridge(other.cluster_id, "Recovering", {"globalId": found.global_id})
            if got.data["yes"]:
                text = f"Snapshot '{found.shown_name}' is still recovering in location '{other.location}'"
                raise errors.busy(text)
    got = yield bridge("", "Unexport", body)
    return got.data


def snapshots_remote_unexport(here: Here, body: SnapshotsRemoteUnexportDesc) -> Flow:
    """One after the other, up to the first that is refused."""
    for item in body.remoteSnapshots:
        clusters = clusters_at(here, item.location)
        offers = yield from _offers(here, clusters, globalId=item.globalSnapshotId)
        if not offers:
            raise errors.missing(f"Snapshot exported by location '{item.location}':", "~" + item.globalSnapshotId)
        done = {
            "cluster": here.cluster_id,
            "globalId": item.globalSnapshotId,
            "targetDeleteDate": item.targetDeleteDate,
            "deleteAfter": item.deleteAfter,
        }
        yield bridge(offers[0][0].cluster_id, "Done", done)
    return Ok(generation=here.call.state.generation)


def snapshot_reconcile(here: Here) -> Flow:
    """The copy becomes the owner, or one that belongs to the owner in this location."""
    name = here.call.args[0]
    found = here.call.state.snapshot(name)
    owned = False
    for other in here.neighbours(own_location=True):
        got = yield bridge(other.cluster_id, "Locate", {"object": "~" + found.global_id})
        owned = owned or bool(got.data.get("owner"))
    got = yield bridge("", "Reconcile", {"snapshot": name, "owner": not owned})
    return got.data


def volume_backup(here: Here, body: VolumeBackupDesc) -> Flow:
    """A snapshot of the volume, copied to the location; it goes here when it has arrived there."""
    backups = yield from _back_up(
        here, VolumesGroupBackupDesc(location=body.location, volumes=[body.volume], tags=body.tags)
    )
    [backup] = backups.values()
    generation = here.call.state.generation
    return VolumeBackedUp(globalId=backup.snapshotGlobalId, remoteId=backup.remoteId, generation=generation)


def volumes_group_backup(here: Here, body: VolumesGroupBackupDesc) -> Flow:
    backups = yield from _back_up(here, body)
    return VolumesBackedUp(backups=backups, generation=here.call.state.generation)


def _back_up(here: Here, body: VolumesGroupBackupDesc) -> Generator[Ask, Got, dict[str, Backup]]:
    target = clusters_at(here, body.location)[0]
    taken = yield bridge("", "BackupBegin", body)
    backups: dict[str, Backup] = {}
    for one in taken.data["snapshots"]:
        global_id = one["snapshotGlobalId"]
        wanted = {"source": here.cluster_id, "globalId": global_id, "tags": body.tags or {}}
        try:
            got = yield bridge(target.cluster_id, "TakeBackup", wanted)
        except Refused:
            for left in taken.data["snapshots"]:
                yield bridge("", "BackingUp", {"globalId": left["snapshotGlobalId"], "until": here.now()})
            raise
        yield bridge("", "BackingUp", {"globalId": global_id, "until": got.data["until"]})
        backups[one["volume"]] = Backup(remoteId=global_id, snapshotGlobalId=global_id)
    return backups


def take_backup(here: Here, body: TakeBackupDesc) -> Flow:
    """At the location: copy a snapshot that the asking cluster exports to it."""
    source = next((found for found in here.neighbours() if found.cluster_id == body.source), None)
    if source is None:
        raise errors.missing("Cluster", "~" + body.source)
    offers = yield from _offers(here, [source], globalId=body.globalId)
    if not offers:
        raise errors.missing("Snapshot", "~" + body.globalId)
    offer = offers[0][1]
    wanted = FromRemoteDesc(
        remoteLocation=source.location,
        remoteId=body.globalId,
        template=offer.template if offer.template in here.call.state.templates_by_name else None,
        tags=body.tags,
    )
    got = yield bridge("", "Fetch", {"source": body.source, "offer": offer, "wanted": wanted, "backup": True})
    return got.data
