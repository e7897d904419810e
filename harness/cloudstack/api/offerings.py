"""Service offerings (compute) and disk offerings."""

from __future__ import annotations

from harness.cloudstack.api.command import Command, Json, deleting, listing, sync
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import clean, entity, matching, named, time
from harness.cloudstack.api.parameters import OWNED, Request
from harness.cloudstack.orchestration.encryption import check_kept
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import DiskOffering, ServiceOffering
from harness.cloudstack.services import Services

GIB = 1 << 30


def create_disk_offering(services: Services, request: Request) -> Json:
    name, size, encrypt = named(request), request.natural("disksize"), request.flag("encrypt")
    if encrypt:
        check_kept(services.context.passphrases)
    customized = request.flag("customized")
    if not customized and not size:
        raise ApiError(PARAMETER, "Disksize is required for a non-customized disk offering and must be at least 1 GB")
    if customized and size:
        raise ApiError(PARAMETER, "Disksize is not allowed for a customized disk offering")
    uuid = services.runtime.uuid()
    with services.records.transaction("disk offering") as tx:
        row = _insert_disk_offering(tx, request, uuid, name, (size or 0) * GIB, compute_only=False, encrypt=encrypt)
        for key, value in request.pairs("details").items():
            tx.set_detail("disk_offering_details", row.id, key, value)
        return disk_offering(tx, row)


def create_service_offering(services: Services, request: Request) -> Json:
    name = named(request)
    cpu, speed, memory = request.natural("cpunumber", 1), request.natural("cpuspeed"), request.natural("memory", 32)
    if cpu is None or memory is None:
        raise ApiError(PARAMETER, "cpunumber and memory are required for a compute offering that is not customized")
    root, encrypt = request.natural("rootdisksize"), request.flag("encryptroot")
    if encrypt:
        check_kept(services.context.passphrases)
    uuids = services.runtime.uuid(), services.runtime.uuid()
    with services.records.transaction("service offering") as tx:
        size = (root or 0) * GIB
        disk = _insert_disk_offering(tx, request, uuids[0], name, size, compute_only=True, encrypt=encrypt)
        row = tx.insert(
            ServiceOffering(
                uuid=uuids[1],
                name=name,
                display_text=request.text("displaytext") or name,
                cpu=cpu,
                speed=speed or 0,
                ram_size=memory,
                disk_offering_id=disk.id,
                ha_enabled=request.flag("offerha"),
                state="Active",
                created=tx.now,
            )
        )
        for key, value in request.pairs("serviceofferingdetails").items():
            tx.set_detail("service_offering_details", row.id, key, value)
        return service_offering(tx, row)


def delete_disk_offering(services: Services, request: Request) -> None:
    with services.records.transaction("disk offering deleted") as tx:
        row = entity(tx, DiskOffering, request, "id")
        if row.compute_only:
            raise ApiError(PARAMETER, f"{row.name} belongs to a compute offering; delete that one")
        tx.update(row, removed=tx.now, state="Inactive")


def delete_service_offering(services: Services, request: Request) -> None:
    with services.records.transaction("service offering deleted") as tx:
        row = entity(tx, ServiceOffering, request, "id")
        tx.update(row, removed=tx.now, state="Inactive")
        tx.update(tx.get(DiskOffering, row.disk_offering_id), removed=tx.now, state="Inactive")


def list_disk_offerings(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        rows = [disk_offering(tx, row) for row in tx.all(DiskOffering, removed=None, compute_only=False)]
    return matching(rows, request, "id", "name")


def list_service_offerings(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        rows = [service_offering(tx, row) for row in tx.all(ServiceOffering, removed=None)]
    return matching(rows, request, "id", "name")


def disk_offering(tx: Transaction, row: DiskOffering) -> Json:
    return clean(
        id=row.uuid,
        name=row.name,
        displaytext=row.display_text,
        disksize=row.disk_size // GIB,
        iscustomized=row.customized,
        iscustomizediops=row.customized_iops,
        miniops=row.min_iops,
        maxiops=row.max_iops,
        encrypt=row.encrypt,
        tags=row.tags or None,
        storagetype="shared",
        provisioningtype="thin",
        displayoffering=True,
        state=row.state,
        created=time(row.created),
        details=tx.details("disk_offering_details", row.id) or None,
    )


def service_offering(tx: Transaction, row: ServiceOffering) -> Json:
    disk = tx.get(DiskOffering, row.disk_offering_id)
    return clean(
        id=row.uuid,
        name=row.name,
        displaytext=row.display_text,
        cpunumber=row.cpu,
        cpuspeed=row.speed,
        memory=row.ram_size,
        storagetype="shared",
        storagetags=disk.tags or None,
        rootdisksize=disk.disk_size // GIB or None,
        encryptroot=disk.encrypt,
        iscustomized=False,
        iscustomizediops=disk.customized_iops,
        miniops=disk.min_iops,
        maxiops=disk.max_iops,
        issystem=False,
        offerha=row.ha_enabled,
        diskofferingid=disk.uuid,
        diskofferingname=disk.name,
        state=row.state,
        created=time(row.created),
        serviceofferingdetails=tx.details("service_offering_details", row.id) or None,
    )


def asked_iops(request: Request) -> tuple[int | None, int | None]:
    """`miniops` and `maxiops`."""
    low, high = request.natural("miniops", 0), request.natural("maxiops", 0)
    if low is not None and high is not None and low > high:
        raise ApiError(PARAMETER, f"miniops {low} is more than maxiops {high}")
    return low, high


def iops_of(offering: DiskOffering, request: Request) -> tuple[int | None, int | None]:
    """Minimum and maximum of a volume: the offering's, or for one with customised IOPS those that are asked for."""
    return asked_iops(request) if offering.customized_iops else (offering.min_iops, offering.max_iops)


def _insert_disk_offering(
    tx: Transaction, request: Request, uuid: str, name: str, size: int, *, compute_only: bool, encrypt: bool
) -> DiskOffering:
    low, high = asked_iops(request)
    if request.text("storagetype") not in (None, "shared"):
        raise ApiError(PARAMETER, f"Invalid storagetype {request.text('storagetype')}: only shared storage is here")
    return tx.insert(
        DiskOffering(
            uuid=uuid,
            name=name,
            display_text=request.text("displaytext") or name,
            disk_size=size,
            tags=",".join(tag.strip() for tag in (request.text("tags") or "").split(",") if tag.strip()),
            customized=request.flag("customized"),
            compute_only=compute_only,
            customized_iops=request.flag("customizediops"),
            min_iops=low,
            max_iops=high,
            encrypt=encrypt,
            state="Active",
            created=tx.now,
        )
    )


_DISK = (
    "id:string name:string displaytext:string disksize:long iscustomized:boolean iscustomizediops:boolean miniops:long"
    " maxiops:long encrypt:boolean tags:string storagetype:string provisioningtype:string displayoffering:boolean"
    " state:string created:date details:map"
)
_SERVICE = (
    "id:string name:string displaytext:string cpunumber:integer cpuspeed:integer memory:integer storagetype:string"
    " storagetags:string rootdisksize:long encryptroot:boolean iscustomized:boolean iscustomizediops:boolean"
    " miniops:long maxiops:long issystem:boolean offerha:boolean diskofferingid:string diskofferingname:string"
    " state:string created:date serviceofferingdetails:map"
)
_COMMON = (
    "name:string* displaytext:string tags:string storagetype:string provisioningtype:string customizediops:boolean"
    " miniops:long maxiops:long hypervisorsnapshotreserve:integer cachemode:string domainid:list zoneid:list"
)

COMMANDS: tuple[Command, ...] = (
    sync(
        "createDiskOffering",
        "diskoffering",
        f"{_COMMON} disksize:long customized:boolean encrypt:boolean displayoffering:boolean details:map",
        _DISK,
        create_disk_offering,
    ),
    sync(
        "createServiceOffering",
        "serviceoffering",
        f"{_COMMON} cpunumber:integer cpuspeed:integer memory:integer rootdisksize:long encryptroot:boolean"
        " offerha:boolean hosttags:string issystem:boolean serviceofferingdetails:map",
        _SERVICE,
        create_service_offering,
    ),
    deleting("deleteDiskOffering", "id:uuid*", delete_disk_offering),
    deleting("deleteServiceOffering", "id:uuid*", delete_service_offering),
    listing(
        "listDiskOfferings", "diskoffering", f"{OWNED} id:uuid name:string zoneid:uuid", _DISK, list_disk_offerings
    ),
    listing(
        "listServiceOfferings",
        "serviceoffering",
        f"{OWNED} id:uuid name:string zoneid:uuid",
        _SERVICE,
        list_service_offerings,
    ),
)
