"""resizeVolume, changeOfferingForVolume and scaleVirtualMachine (spec/cloudstack-plugin.md 4.15 and 4.26)."""

from __future__ import annotations

from harness.cloudstack import settings
from harness.cloudstack.api.command import Command, Json, object_job
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import entity, optional, owner
from harness.cloudstack.api.offerings import GIB, iops_of
from harness.cloudstack.api.parameters import Request
from harness.cloudstack.api.vm_view import FIELDS, virtual_machine
from harness.cloudstack.api.volumes import VOLUME_FIELDS, volume
from harness.cloudstack.orchestration import objects
from harness.cloudstack.orchestration.encryption import check_offerings
from harness.cloudstack.orchestration.resize import Change, check_changeable, check_size_changeable
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import DiskOffering, ServiceOffering, Vm, Volume
from harness.cloudstack.services import Services
from harness.spi.objects import VolumeType
from harness.spi.states import VmState

SAME = (
    "To change a volume's size without providing a new disk offering, its current disk offering must be customizable"
    " or it must be a root volume (if providing a disk offering, make sure it is different from the current one)."
)


def resize_volume(services: Services, request: Request) -> Json:
    return _change(services, *check_resize(services, request))


def check_resize(services: Services, request: Request) -> tuple[int, Change]:
    """Size and limits follow; the StorPool template stays where it is."""
    with services.records.read() as tx:
        row = entity(tx, Volume, request, "id")
        check_changeable(tx, row)
        offering = optional(tx, DiskOffering, request, "diskofferingid")
        if offering is None and request.integer("size") is None:
            raise ApiError(PARAMETER, "Please provide a new size, a new disk offering or both")
        return row.id, _wanted(tx, row, offering, request, moves=False)


def change_offering(services: Services, request: Request) -> Json:
    return _change(services, *check_offering(services, request))


def check_offering(services: Services, request: Request) -> tuple[int, Change]:
    """Size, limits, tier and StorPool template follow."""
    with services.records.read() as tx:
        row = entity(tx, Volume, request, "id")
        check_changeable(tx, row)
        return row.id, _wanted(tx, row, entity(tx, DiskOffering, request, "diskofferingid"), request, moves=True)


def scale_vm(services: Services, request: Request) -> Json:
    """Compute of a stopped VM, and size and limits of its ROOT volume."""
    vm_id, offering = check_scale(services, request)
    with services.records.read() as tx:
        roots = [row for row in objects.volumes_of(tx, vm_id) if row.volume_type is VolumeType.ROOT]
        disk = tx.get(DiskOffering, offering.disk_offering_id)
        changes = [(row.id, _wanted(tx, row, disk, request, moves=False)) for row in roots]
    for volume_id, change in changes:
        services.resizes.change(volume_id, change)
    with services.records.transaction("vm scaled") as tx:
        vm = tx.update(tx.get(Vm, vm_id), service_offering_id=offering.id)
        return virtual_machine(tx, vm, owner(tx))


def check_scale(services: Services, request: Request) -> tuple[int, ServiceOffering]:
    with services.records.read() as tx:
        vm = entity(tx, Vm, request, "id")
        offering = entity(tx, ServiceOffering, request, "serviceofferingid")
        if vm.state is not VmState.STOPPED:
            raise ApiError(
                PARAMETER,
                f"Unable to scale VM {vm.display_name} dynamically: it must be Stopped, and is {vm.state.value}",
            )
        if vm.service_offering_id == offering.id:
            raise ApiError(PARAMETER, f"Not upgrading vm {vm.display_name} since it already has the requested offering")
        return vm.id, offering


def _change(services: Services, volume_id: int, change: Change) -> Json:
    services.resizes.change(volume_id, change)
    with services.records.read() as tx:
        return volume(tx, tx.get(Volume, volume_id), owner(tx))


def _wanted(tx: Transaction, row: Volume, offering: DiskOffering | None, request: Request, *, moves: bool) -> Change:
    """The change that was asked for; raises `ApiError` with CloudStack's texts for one that cannot be."""
    shrink_ok, asked = request.flag("shrinkok"), request.natural("size", 1)
    current = tx.get(DiskOffering, row.disk_offering_id)
    if offering is None:
        root = row.volume_type is VolumeType.ROOT
        if not root and not current.customized:
            raise ApiError(PARAMETER, SAME)
        size = row.size if asked is None else asked * GIB
        limits = (row.min_iops, row.max_iops)
    else:
        _check_kind(row, offering)
        check_offerings(current, offering)
        size = _size(row, offering, asked)
        limits = iops_of(offering, request)
    largest = int(settings.value(tx, "storage.max.volume.size") or 0)
    if size > largest * GIB and size > row.size:
        raise ApiError(PARAMETER, f"Volume size can't exceed {largest} GB (storage.max.volume.size)")
    if size < row.size and not shrink_ok:
        raise ApiError(
            PARAMETER,
            f"Going from existing size of {row.size} to size of {size} would shrink the volume. "
            "Need to sign off by supplying the shrinkok parameter with value of true.",
        )
    check_size_changeable(tx, row, size)
    return Change(
        size=size,
        disk_offering_id=(offering or current).id,
        min_iops=limits[0],
        max_iops=limits[1],
        new_offering=offering is not None,
        moves=moves and offering is not None,
        shrink_ok=shrink_ok,
    )


def _check_kind(row: Volume, offering: DiskOffering) -> None:
    """A ROOT volume goes to the disk offering of a compute offering, a DATA volume to any other."""
    root = row.volume_type is VolumeType.ROOT
    if root and not offering.compute_only:
        raise ApiError(
            PARAMETER, f"The offering of ROOT volume {row.name} changes only to a system disk offering (compute only)"
        )
    if not root and offering.compute_only:
        raise ApiError(
            PARAMETER, f"Disk offering {offering.name} is of a compute offering, and {row.name} is a DATA disk"
        )


def _size(row: Volume, offering: DiskOffering, asked: int | None) -> int:
    if offering.compute_only:
        return asked * GIB if asked is not None else offering.disk_size or row.size
    if offering.customized:
        if asked is None:
            raise ApiError(PARAMETER, "The new disk offering requires that a size be specified.")
        return asked * GIB
    if asked is not None:
        raise ApiError(PARAMETER, "You cannot pass in a custom disk size to a non-custom disk offering.")
    return offering.disk_size


_SIZE = "size:long miniops:long maxiops:long shrinkok:boolean automigrate:boolean"

COMMANDS: tuple[Command, ...] = (
    object_job(
        "resizeVolume",
        "volume",
        f"id:uuid* diskofferingid:uuid {_SIZE}",
        VOLUME_FIELDS,
        resize_volume,
        check=check_resize,
    ),
    object_job(
        "changeOfferingForVolume",
        "volume",
        f"id:uuid* diskofferingid:uuid* {_SIZE}",
        VOLUME_FIELDS,
        change_offering,
        check=check_offering,
    ),
    object_job(
        "scaleVirtualMachine",
        "virtualmachine",
        "id:uuid* serviceofferingid:uuid* miniops:long maxiops:long shrinkok:boolean automigrate:boolean details:map",
        FIELDS,
        scale_vm,
        check=check_scale,
    ),
)
