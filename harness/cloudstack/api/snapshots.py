"""Volume snapshots."""

from __future__ import annotations

from harness.cloudstack import settings
from harness.cloudstack.api.command import Command, Created, Json, job, listing, object_job
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import by_uuid, clean, entity, matching, named, optional, owner, tags_of, time
from harness.cloudstack.api.parameters import OWNED, Request
from harness.cloudstack.orchestration import objects
from harness.cloudstack.orchestration.backup import (
    PRIMARY,
    SECONDARY,
    all_on_primary,
    on_image_store,
    on_primary,
    zone_id_of,
)
from harness.cloudstack.orchestration.encryption import check_plain, check_snapshot
from harness.cloudstack.orchestration.replication import check_copyable, check_destinations
from harness.cloudstack.orchestration.revert import check_revertable
from harness.cloudstack.orchestration.vm_snapshot_rules import check_idle
from harness.cloudstack.primary.drivers import is_default
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import ImageStore, Snapshot, SnapshotStore, StoragePool, Vm, Volume, Zone
from harness.cloudstack.services import Services
from harness.spi.objects import StoreRole
from harness.spi.states import SnapshotState, StoreRefState, VolumeState


def create_snapshot(services: Services, request: Request) -> Created:
    uuids = services.runtime.uuid(), services.runtime.uuid()
    with services.records.transaction("snapshot allocated") as tx:
        volume = entity(tx, Volume, request, "volumeid")
        if volume.state is not VolumeState.READY or volume.pool_id is None:
            raise ApiError(
                PARAMETER,
                f"VolumeId: {volume.uuid} is not in Ready state but {volume.state.value}. Cannot take snapshot.",
            )
        if is_default(objects.pool_store(tx, volume.pool_id)):
            raise ApiError(
                PARAMETER,
                f"VolumeId: {volume.uuid} is on a pool whose provider takes no snapshots here; migrate it to StorPool",
            )
        check_idle(tx, volume.instance_id)
        zones = destinations(tx, request, tx.get(Zone, volume.data_center_id))
        check_destinations(tx, zones)
        if request.text("locationtype"):
            raise ApiError(PARAMETER, f"VolumeId: {volume.uuid} LocationType is supported only for managed storage")
        check_snapshot(tx, volume)
        vm = None if volume.instance_id is None else tx.find(Vm, id=volume.instance_id)
        name = (
            named(request) if request.text("name") else f"{vm.name if vm else 'detached'}_{volume.name}_{uuids[0][:8]}"
        )
        row = tx.insert(
            Snapshot(
                uuid=uuids[1],
                name=name,
                volume_id=volume.id,
                state=SnapshotState.ALLOCATED,
                size=volume.size,
                data_center_id=volume.data_center_id,
                disk_offering_id=volume.disk_offering_id,
                created=tx.now,
                location_type=SECONDARY if settings.flag(tx, settings.BACKUP) else PRIMARY,
            )
        )
        tx.insert(
            SnapshotStore(
                store_id=volume.pool_id,
                store_role=StoreRole.PRIMARY,
                snapshot_id=row.id,
                volume_id=volume.id,
                state=StoreRefState.ALLOCATED,
                size=volume.size,
                physical_size=0,
                install_path=None,
            )
        )
    return Created(row.id, row.uuid, "Snapshot")


def take_snapshot(services: Services, request: Request) -> Json:
    row = services.snapshots.take(request.created)
    if row.state is SnapshotState.CREATED_ON_PRIMARY:
        if request.flag("asyncbackup"):
            services.backups.schedule(row.id)
        else:
            row = services.backups.back_up(row.id)
    with services.records.read() as tx:
        zones = destinations(tx, request, tx.get(Zone, row.data_center_id))
    if zones:
        services.replications.copy(row.id, [place.id for place in zones])
    return _show(services, row)


def copy_snapshot(services: Services, request: Request) -> Json:
    snapshot_id, source, zones = _copyable(services, request)
    services.replications.copy(snapshot_id, [place.id for place in zones], source.id)
    with services.records.read() as tx:
        row = tx.get(Snapshot, snapshot_id)
        return snapshot(tx, row, owner(tx), on_primary(tx, snapshot_id, zones[-1].id))


def destinations(tx: Transaction, request: Request, source: Zone) -> list[Zone]:
    """The zones that are to get a copy. Only the storage copies here, so `usestoragereplication` must be asked for."""
    names = [*request.items("zoneids"), *request.items("destzoneids")]
    if request.text("destzoneid"):
        names.append(request.need("destzoneid"))
    zones = [by_uuid(tx, Zone, name, "zoneids") for name in dict.fromkeys(names)]
    zones = [place for place in zones if place.id != source.id]
    if request.items("storageids"):
        raise ApiError(PARAMETER, "storageids is not supported; name zones, whose pools that take copies are used")
    if zones and not request.flag("usestoragereplication"):
        raise ApiError(
            PARAMETER,
            "Snapshots are copied between zones by the storage only; send usestoragereplication=true, and have"
            " use.storage.replication set for a pool of the other zone",
        )
    return zones


def archive_snapshot(services: Services, request: Request) -> Json:
    return _show(services, services.backups.archive(_archivable(services, request)))


def revert_snapshot(services: Services, request: Request) -> Json:
    return _show(services, services.reverts.revert(_revertable(services, request)))


def delete_snapshot(services: Services, request: Request) -> None:
    snapshot_id = _deletable(services, request)
    if snapshot_id is not None:
        with services.records.read() as tx:
            place = optional(tx, Zone, request, "zoneid")
        services.snapshots.delete(snapshot_id, None if place is None else place.id)


def list_snapshots(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        common = owner(tx)
        rows = [
            snapshot(tx, row, common, ref)
            for row in tx.all(Snapshot, removed=None)
            for ref in _shown_refs(tx, row)[: 1 if request.flag("showunique") else None]
        ]
    ids = request.items("ids")
    rows = [row for row in rows if not ids or row["id"] in ids]
    return matching(rows, request, "id", "name", "volumeid", "zoneid", "snapshottype", "locationtype", "intervaltype")


def get_volume_snapshot_details(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        row = entity(tx, Snapshot, request, "snapshotid")
        details = tx.details("snapshot_details", row.id)
    return [{"snapshotDetailsName": name, "snapshotDetailsValue": value} for name, value in details.items()]


def snapshot(tx: Transaction, row: Snapshot, common: Json, ref: SnapshotStore | None) -> Json:
    """As the API shows it in one of its stores."""
    volume = tx.get(Volume, row.volume_id)
    store: StoragePool | ImageStore | None = None
    if ref is not None:
        primary = ref.store_role is StoreRole.PRIMARY
        store = tx.find(StoragePool, id=ref.store_id) if primary else tx.find(ImageStore, id=ref.store_id)
    place = tx.get(Zone, row.data_center_id if ref is None else zone_id_of(tx, ref))
    return common | clean(
        id=row.uuid,
        name=row.name,
        state=row.state.value,
        volumeid=volume.uuid,
        volumename=volume.name,
        volumetype=volume.volume_type.value,
        virtualsize=row.size,
        physicalsize=ref.physical_size if ref else None,
        snapshottype=row.snapshot_type,
        intervaltype=row.snapshot_type,
        locationtype=row.location_type,
        revertable=row.state is SnapshotState.BACKED_UP,
        datastoreid=store and store.uuid,
        datastorename=store and store.name,
        datastoretype=ref and ref.store_role.value,
        datastorestate=ref and ref.state.value,
        zoneid=place.uuid,
        zonename=place.name,
        created=time(row.created),
        tags=tags_of(tx, "Snapshot", row.uuid),
    )


def _shown_refs(tx: Transaction, row: Snapshot) -> list[SnapshotStore | None]:
    """Its stores, primary storage first; one None when it is nowhere. As in CloudStack each is listed by itself."""
    first, backup = on_primary(tx, row.id), on_image_store(tx, row.id)
    copies = [ref for ref in all_on_primary(tx, row.id) if ref != first]
    refs = [ref for ref in (first, backup, *copies) if ref is not None]
    return [*refs] if refs else [None]


def _show(services: Services, row: Snapshot) -> Json:
    with services.records.read() as tx:
        return snapshot(tx, row, owner(tx), _shown_refs(tx, row)[0])


def _revertable(services: Services, request: Request) -> int:
    with services.records.read() as tx:
        row = entity(tx, Snapshot, request, "id")
        check_revertable(tx, row)
    return row.id


def _copyable(services: Services, request: Request) -> tuple[int, Zone, list[Zone]]:
    with services.records.read() as tx:
        row = entity(tx, Snapshot, request, "id")
        source = optional(tx, Zone, request, "sourcezoneid") or tx.get(Zone, row.data_center_id)
        zones = destinations(tx, request, source)
        if not zones:
            raise ApiError(PARAMETER, "Please specify at least one destination zone other than the source, destzoneids")
        check_copyable(tx, row, zones, source.id)
    return row.id, source, zones


def _archivable(services: Services, request: Request) -> int:
    with services.records.read() as tx:
        row = entity(tx, Snapshot, request, "id")
        if row.state is not SnapshotState.BACKED_UP or on_primary(tx, row.id) is None:
            raise ApiError(
                PARAMETER,
                "Can only archive snapshots present on primary storage. Cannot find snapshot"
                f" {row.name} on primary storage",
            )
        check_plain(tx.get(Volume, row.volume_id), "archiving a snapshot")
    return row.id


def _deletable(services: Services, request: Request) -> int | None:
    """None for one that was deleted: whoever asks again, because no answer came, has what he wants."""
    with services.records.read() as tx:
        known = tx.find(Snapshot, uuid=request.need("id"))
        if known is not None and known.removed is not None:
            return None
        row = entity(tx, Snapshot, request, "id")
    if row.state not in (SnapshotState.BACKED_UP, SnapshotState.ERROR, SnapshotState.DESTROYING):
        raise ApiError(
            PARAMETER, f"Can't delete snapshot {row.name} due to it is in {row.state.value} Status, not BackedUp"
        )
    return row.id


_FIELDS = (
    "id:string name:string state:string volumeid:string volumename:string volumetype:string virtualsize:long"
    " physicalsize:long snapshottype:string intervaltype:string locationtype:string revertable:boolean"
    " datastoreid:string datastorename:string datastoretype:string datastorestate:string zoneid:string"
    " zonename:string created:date account:string domain:string domainid:string tags:set"
)

COMMANDS: tuple[Command, ...] = (
    object_job(
        "createSnapshot",
        "snapshot",
        "volumeid:uuid* name:string account:string domainid:uuid policyid:uuid quiescevm:boolean locationtype:string"
        " asyncbackup:boolean tags:map zoneids:list storageids:list usestoragereplication:boolean",
        _FIELDS,
        take_snapshot,
        create_snapshot,
    ),
    object_job(
        "copySnapshot",
        "snapshot",
        "id:uuid* sourcezoneid:uuid destzoneid:uuid destzoneids:list storageids:list usestoragereplication:boolean",
        _FIELDS,
        copy_snapshot,
        check=_copyable,
    ),
    object_job("archiveSnapshot", "snapshot", "id:uuid*", _FIELDS, archive_snapshot, check=_archivable),
    object_job("revertSnapshot", "snapshot", "id:uuid*", _FIELDS, revert_snapshot, check=_revertable),
    job("deleteSnapshot", "id:uuid* zoneid:uuid", delete_snapshot, check=_deletable),
    listing(
        "listSnapshots",
        "snapshot",
        f"{OWNED} id:uuid ids:list name:string volumeid:uuid zoneid:uuid showunique:boolean snapshottype:string"
        " locationtype:string intervaltype:string",
        _FIELDS,
        list_snapshots,
    ),
    listing(
        "getVolumeSnapshotDetails",
        "apivolumesnapshotdetails",
        "snapshotid:string*",
        "snapshotDetailsName:string snapshotDetailsValue:string",
        get_volume_snapshot_details,
    ),
)
