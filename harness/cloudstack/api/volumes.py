"""Volumes (spec/cloudstack-api.md section 1)."""

from __future__ import annotations

import functools

import msgspec

from harness.cloudstack import settings
from harness.cloudstack.api.command import Command, Created, Json, deleting, listing, object_job
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import clean, entity, matching, named, optional, owner, tags_of, time, zone, zone_of
from harness.cloudstack.api.offerings import GIB, iops_of
from harness.cloudstack.api.parameters import OWNED, Request
from harness.cloudstack.orchestration.attachment import check_attachable, check_detachable
from harness.cloudstack.orchestration.backup import on_image_store, on_primary
from harness.cloudstack.orchestration.encryption import check_source
from harness.cloudstack.orchestration.volume import check_unattached
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import DiskOffering, Snapshot, StoragePool, Template, Vm, Volume, Zone
from harness.cloudstack.services import Services
from harness.spi.objects import VolumeType
from harness.spi.states import SnapshotState, VolumeState


def create_volume(services: Services, request: Request) -> Created:
    """A row in Allocated; it goes to a pool at its first use, one made from a snapshot at once."""
    if not request.text("diskofferingid") and not request.text("snapshotid"):
        raise ApiError(PARAMETER, "Missing parameter(s), either a positive volume size or a valid disk offering id")
    uuid = services.runtime.uuid()
    name = named(request) if request.text("name") else f"DATA-{uuid[:8]}"
    with services.records.transaction("volume allocated") as tx:
        snapshot = optional(tx, Snapshot, request, "snapshotid")
        offering = optional(tx, DiskOffering, request, "diskofferingid")
        if snapshot is not None:
            check_snapshot_usable(snapshot)
            offering = offering or tx.get(DiskOffering, snapshot.disk_offering_id)
        if offering is None or (offering.compute_only and snapshot is None):
            raise ApiError(PARAMETER, "Please specify a valid disk offering: this one is of a compute offering")
        if snapshot is not None:
            check_source(tx, snapshot, offering)
        size = volume_size(tx, offering, request.natural("size", 1))
        if snapshot is not None:
            size = max(size, snapshot.size)
        place = optional(tx, Zone, request, "zoneid")
        if snapshot is not None:
            place = place or zone_of(tx, snapshot.data_center_id)
            check_in_zone(tx, snapshot, place)
        row = data_volume(tx, uuid, name, offering, size, snapshot, place)
        low, high = iops_of(offering, request)
        row = tx.insert(msgspec.structs.replace(row, min_iops=low, max_iops=high))
    return Created(row.id, row.uuid, "Volume")


def finish_create_volume(services: Services, request: Request) -> Json:
    with services.records.read() as tx:
        row = tx.get(Volume, request.created)
        vm = optional(tx, Vm, request, "virtualmachineid")
    if row.snapshot_id is not None:
        try:
            services.volumes.ensure_ready(row.id)
        except Exception:
            services.volumes.delete(row.id)
            raise
    if vm is not None:
        services.attachments.attach(row.id, vm.id)
    return _show(services, row.id)


def attach_volume(services: Services, request: Request) -> Json:
    volume_id, vm_id = check_attach(services, request)
    services.attachments.attach(volume_id, vm_id, request.integer("deviceid"))
    return _show(services, volume_id)


def check_attach(services: Services, request: Request) -> tuple[int, int]:
    with services.records.read() as tx:
        row, vm = entity(tx, Volume, request, "id"), entity(tx, Vm, request, "virtualmachineid")
        check_attachable(tx, vm, row, request.integer("deviceid"))
        return row.id, vm.id


def detach_volume(services: Services, request: Request) -> Json:
    volume_id = check_detach(services, request)
    services.attachments.detach(volume_id)
    return _show(services, volume_id)


def check_detach(services: Services, request: Request) -> int:
    """By `id`, or by `virtualmachineid` and `deviceid`."""
    with services.records.read() as tx:
        row = optional(tx, Volume, request, "id")
        vm = optional(tx, Vm, request, "virtualmachineid")
        device_id = request.integer("deviceid")
        if row is None and vm is not None and device_id is not None:
            row = tx.find(Volume, instance_id=vm.id, device_id=device_id, removed=None)
        if row is None:
            raise ApiError(PARAMETER, "Please provide either a volume id, or a tuple(device id, instance id)")
        check_detachable(tx, row)
        return row.id


def delete_volume(services: Services, request: Request) -> None:
    services.volumes.delete(_deletable(services, request))


def destroy_volume(services: Services, request: Request) -> Json:
    volume_id = _deletable(services, request)
    shown = _show(services, volume_id)
    services.volumes.destroy(volume_id)
    if request.flag("expunge"):
        services.volumes.expunge(volume_id)
        return shown | {"state": VolumeState.EXPUNGED.value}
    return _show(services, volume_id)


def list_volumes(services: Services, request: Request) -> list[Json]:
    conditions, values = ["removed IS NULL"], []
    for name, column in (("id", "uuid"), ("type", "volume_type"), ("name", "name"), ("state", "state")):
        value = request.text(name)
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value.upper() if name == "type" else value)
    if request.text("virtualmachineid") is not None:
        conditions.append("instance_id IN (SELECT id FROM vm_instance WHERE uuid = ?)")
        values.append(request.need("virtualmachineid"))
    with services.records.read() as tx:
        common = owner(tx)
        if request.text("isencrypted") is not None:
            conditions.append(f"encrypt_format IS {'NOT NULL' if request.flag('isencrypted') else 'NULL'}")
        rows = tx.select(Volume, f"{' AND '.join(conditions)} ORDER BY id", values)
        shown = [_with_space(services, volume(tx, row, common)) for row in rows]
    ids = request.items("ids")
    return matching(
        (row for row in shown if not ids or row["id"] in ids), request, "storageid", "zoneid", "diskofferingid"
    )


def _with_space(services: Services, shown: Json) -> Json:
    """With what it really takes, as far as StorPool has told."""
    space = services.context.driver.volume_stats(str(shown["path"])) if "path" in shown else None
    return shown if space is None else shown | {"physicalsize": space.used}


def volume(tx: Transaction, row: Volume, common: Json) -> Json:
    """As the API shows it; `virtualmachineid` and `storageid` are absent while it has none."""
    vm = None if row.instance_id is None else tx.find(Vm, id=row.instance_id)
    pool = None if row.pool_id is None else tx.find(StoragePool, id=row.pool_id)
    offering = tx.get(DiskOffering, row.disk_offering_id)
    template = None if row.template_id is None else tx.find(Template, id=row.template_id)
    snapshot = None if row.snapshot_id is None else tx.find(Snapshot, id=row.snapshot_id)
    place = zone_of(tx, row.data_center_id)
    return common | clean(
        id=row.uuid,
        name=row.name,
        type=row.volume_type.value,
        state=row.state.value,
        size=row.size,
        virtualsize=row.size,
        path=row.path,
        deviceid=row.device_id,
        zoneid=place.uuid,
        zonename=place.name,
        virtualmachineid=vm and vm.uuid,
        vmname=vm and vm.instance_name,
        vmdisplayname=vm and vm.display_name,
        vmstate=vm and vm.state.value,
        storageid=pool and pool.uuid,
        storage=pool and pool.name,
        diskofferingid=offering.uuid,
        diskofferingname=offering.name,
        templateid=template and template.uuid,
        templatename=template and template.name,
        snapshotid=snapshot and snapshot.uuid,
        hypervisor="KVM",
        storagetype="shared",
        provisioningtype="thin",
        miniops=row.min_iops,
        maxiops=row.max_iops,
        encryptformat=row.encrypt_format,
        created=time(row.created),
        attached=time(row.attached),
        destroyed=row.state in (VolumeState.DESTROY, VolumeState.EXPUNGING),
        tags=tags_of(tx, "Volume", row.uuid),
    )


def volume_size(tx: Transaction, offering: DiskOffering, size_gib: int | None) -> int:
    """Bytes of a new volume: the offering's, or for a customized one the size that was asked for in GiB."""
    if not offering.customized:
        return offering.disk_size
    if size_gib is None:
        raise ApiError(PARAMETER, f"Disk offering {offering.name} is customized; a custom disk size (GB) must be given")
    largest = int(settings.value(tx, "storage.max.volume.size") or 0)
    if size_gib > largest:
        raise ApiError(PARAMETER, f"Invalid size for custom volume: {size_gib} GB is more than {largest} GB")
    return size_gib * GIB


def data_volume(
    tx: Transaction,
    uuid: str,
    name: str,
    offering: DiskOffering,
    size: int,
    snapshot: Snapshot | None = None,
    place: Zone | None = None,
) -> Volume:
    """A new DATA volume's row, to be inserted; in the first zone unless `place` is another."""
    return Volume(
        uuid=uuid,
        name=name,
        volume_type=VolumeType.DATADISK,
        state=VolumeState.ALLOCATED,
        size=size,
        data_center_id=(place or zone(tx)).id,
        disk_offering_id=offering.id,
        created=tx.now,
        snapshot_id=snapshot.id if snapshot else None,
        min_iops=offering.min_iops,
        max_iops=offering.max_iops,
    )


def check_snapshot_usable(snapshot: Snapshot) -> None:
    if snapshot.state is not SnapshotState.BACKED_UP:
        raise ApiError(
            PARAMETER,
            f"Snapshot {snapshot.name} is not in BackedUp state yet but {snapshot.state.value}, and can't be used",
        )


def check_in_zone(tx: Transaction, snapshot: Snapshot, place: Zone) -> None:
    """Refuses a snapshot that nothing in the zone has: the volume would be empty, or in another zone."""
    if on_primary(tx, snapshot.id, place.id) is None and on_image_store(tx, snapshot.id, place.id) is None:
        raise ApiError(
            PARAMETER,
            f"Snapshot {snapshot.name} is not in zone {place.name}; copy it there first, with copySnapshot",
        )


def _deletable(services: Services, request: Request) -> int:
    with services.records.read() as tx:
        row = entity(tx, Volume, request, "id")
        check_unattached(tx, row)
        return row.id


def _show(services: Services, volume_id: int) -> Json:
    with services.records.read() as tx:
        return volume(tx, tx.get(Volume, volume_id), owner(tx))


VOLUME_FIELDS = (
    "id:string name:string type:string state:string size:long virtualsize:long physicalsize:long path:string"
    " deviceid:long zoneid:string zonename:string virtualmachineid:string vmname:string vmdisplayname:string"
    " vmstate:string storageid:string storage:string diskofferingid:string diskofferingname:string templateid:string"
    " templatename:string snapshotid:string hypervisor:string storagetype:string provisioningtype:string miniops:long"
    " maxiops:long encryptformat:string created:date attached:date destroyed:boolean account:string domain:string"
    " domainid:string tags:set"
)
_job = functools.partial(object_job, noun="volume", fields=VOLUME_FIELDS)

COMMANDS: tuple[Command, ...] = (
    _job(
        "createVolume",
        parameters="account:string projectid:uuid domainid:uuid diskofferingid:uuid name:string size:long miniops:long"
        " maxiops:long snapshotid:uuid zoneid:uuid displayvolume:boolean virtualmachineid:uuid customid:string",
        run=finish_create_volume,
        create=create_volume,
    ),
    _job(
        "attachVolume",
        parameters="id:uuid* virtualmachineid:uuid* deviceid:long",
        run=attach_volume,
        check=check_attach,
    ),
    _job(
        "detachVolume",
        parameters="id:uuid deviceid:long virtualmachineid:uuid",
        run=detach_volume,
        check=check_detach,
    ),
    deleting("deleteVolume", "id:uuid*", delete_volume),
    _job("destroyVolume", parameters="id:uuid* expunge:boolean", run=destroy_volume, check=_deletable),
    listing(
        "listVolumes",
        "volume",
        f"{OWNED} id:uuid ids:list name:string type:string virtualmachineid:uuid zoneid:uuid storageid:string"
        " diskofferingid:uuid state:string isencrypted:boolean",
        VOLUME_FIELDS,
        list_volumes,
    ),
)
