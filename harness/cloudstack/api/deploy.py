"""deployVirtualMachine: the rows of a new VM, then its first start."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from harness.cloudstack.api.command import Created, Json
from harness.cloudstack.api.errors import CAPACITY, PARAMETER, ApiError
from harness.cloudstack.api.lookup import entity, optional, owner
from harness.cloudstack.api.offerings import GIB
from harness.cloudstack.api.parameters import Request
from harness.cloudstack.api.vm_view import virtual_machine
from harness.cloudstack.api.volumes import check_in_zone, check_snapshot_usable, data_volume, volume_size
from harness.cloudstack.orchestration.encryption import check_source
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import (
    DiskOffering,
    HostRow,
    ImageStore,
    Nic,
    ServiceOffering,
    Snapshot,
    Template,
    TemplateStore,
    Vm,
    Volume,
    Zone,
)
from harness.cloudstack.services import Services
from harness.spi.objects import ImageFormat, VolumeType
from harness.spi.states import StoreRefState, VmState, VolumeState

CREATE = (
    "zoneid:uuid* serviceofferingid:uuid* templateid:uuid volumeid:uuid snapshotid:uuid name:string displayname:string"
    " diskofferingid:uuid size:long rootdisksize:long overridediskofferingid:uuid hostid:uuid clusterid:uuid podid:uuid"
    " startvm:boolean details:map hypervisor:string account:string domainid:uuid networkids:list securitygroupids:list"
    " securitygroupnames:list keypair:string userdata:string group:string projectid:uuid password:string"
    " displayvm:boolean iptonetworklist:map ipaddress:string macaddress:string affinitygroupids:list"
)

_HOST_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class _Uuids:
    vm: str
    nic: str
    root: str
    data: str


def create_vm(services: Services, request: Request) -> Created:
    """All rows of the VM, in one transaction: VM Stopped, volumes Allocated, its address taken."""
    uuids = _Uuids(*(services.runtime.uuid() for _ in range(4)))
    with services.records.transaction("vm allocated") as tx:
        place = entity(tx, Zone, request, "zoneid")
        offering = entity(tx, ServiceOffering, request, "serviceofferingid")
        optional(tx, HostRow, request, "hostid")
        if sum(1 for name in ("templateid", "volumeid", "snapshotid") if request.text(name)) != 1:
            raise ApiError(PARAMETER, "Please provide exactly one of templateid, volumeid and snapshotid")
        template = optional(tx, Template, request, "templateid")
        from_iso = template is not None and template.format is ImageFormat.ISO
        vm = _insert_vm(tx, request, uuids, offering, template, place)
        _insert_nic(tx, services, vm, uuids.nic)
        if request.text("volumeid"):
            _take_volume(tx, request, vm)
        elif from_iso:
            _insert_empty_root(tx, request, vm, uuids.root)
        else:
            _insert_root(tx, request, vm, uuids.root, offering, template)
        if not from_iso:
            _insert_data(tx, request, vm, uuids.data)
        for key, value in request.pairs("details").items():
            tx.set_detail("user_vm_details", vm.id, key[:255], value)
    return Created(vm.id, vm.uuid, "VirtualMachine")


def deploy_vm(services: Services, request: Request) -> Json:
    with services.records.read() as tx:
        host = optional(tx, HostRow, request, "hostid")
        borrowed = optional(tx, Volume, request, "volumeid")
    if request.flag("startvm", default=True):
        services.vms.deploy(request.created, host.id if host else None)
    with services.records.read() as tx:
        vm = tx.get(Vm, request.created)
        shown = virtual_machine(tx, vm, owner(tx))
        borrowed = tx.get(Volume, borrowed.id) if borrowed else None
    if borrowed is not None and borrowed.path is not None:
        services.volumes.tell_attached(vm.uuid, borrowed)
    return shown


def _insert_vm(
    tx: Transaction,
    request: Request,
    uuids: _Uuids,
    offering: ServiceOffering,
    template: Template | None,
    place: Zone,
) -> Vm:
    name = request.text("name") or f"VM-{uuids.vm}"
    if not _HOST_NAME.fullmatch(name):
        raise ApiError(
            PARAMETER,
            "Invalid name. Vm name can contain ASCII letters 'a' through 'z', 'A' through 'Z', the digits '0' through"
            " '9', and the hyphen ('-'), must be between 1 and 63 characters long, and can't start or end with '-' and"
            " can't start with digit",
        )
    if tx.find(Vm, name=name, removed=None):
        raise ApiError(PARAMETER, f"The vm with hostName {name} already exists in the network domain")
    if template is not None:
        ref = tx.find(TemplateStore, template_id=template.id, state=StoreRefState.READY)
        if ref is None:
            raise ApiError(PARAMETER, f"Template {template.name} is not ready: see status in listTemplates")
        if tx.get(ImageStore, ref.store_id).data_center_id != place.id:
            raise ApiError(PARAMETER, f"The template {template.name} is not available for use in zone {place.name}")
    iso = template if template is not None and template.format is ImageFormat.ISO else None
    if iso is not None and not iso.bootable:
        raise ApiError(PARAMETER, f"Installing from ISO requires an ISO that is bootable: {iso.name} is not")
    number = tx.integer("SELECT MAX(id) FROM vm_instance") + 1
    return tx.insert(
        Vm(
            uuid=uuids.vm,
            name=name,
            instance_name=f"i-2-{number}-VM",
            display_name=request.text("displayname") or name,
            state=VmState.STOPPED,
            data_center_id=place.id,
            service_offering_id=offering.id,
            guest_os_id=template.guest_os_id if template else 1,
            vm_template_id=template.id if template else None,
            host_id=None,
            last_host_id=None,
            created=tx.now,
            update_time=tx.now,
            iso_id=iso.id if iso else None,
        )
    )


def _insert_nic(tx: Transaction, services: Services, vm: Vm, uuid: str) -> None:
    taken = {nic.ip4_address for nic in tx.all(Nic, removed=None)}
    free = next((address for address in services.config.guest_addresses if address.ip not in taken), None)
    if free is None:
        raise ApiError(CAPACITY, f"Unable to acquire Guest IP address: all {len(taken)} of the guest network are taken")
    tx.insert(
        Nic(
            uuid=uuid,
            instance_id=vm.id,
            mac_address=free.mac,
            ip4_address=free.ip,
            bridge=services.config.bridge,
            device_id=0,
        )
    )


def _take_volume(tx: Transaction, request: Request, vm: Vm) -> None:
    """Deploy from an existing volume: it becomes the VM's ROOT volume."""
    row = entity(tx, Volume, request, "volumeid")
    if row.state is not VolumeState.READY or row.instance_id is not None:
        raise ApiError(
            PARAMETER, f"Volume {row.name} cannot be the ROOT volume: it must be Ready and attached to no VM"
        )
    if row.data_center_id != vm.data_center_id:
        raise ApiError(PARAMETER, f"Volume {row.name} is not in the zone that the VM is to be deployed in")
    tx.update(row, instance_id=vm.id, device_id=0, volume_type=VolumeType.ROOT, attached=tx.now, updated=tx.now)


def _insert_root(
    tx: Transaction,
    request: Request,
    vm: Vm,
    uuid: str,
    offering: ServiceOffering,
    template: Template | None,
) -> None:
    override = optional(tx, DiskOffering, request, "overridediskofferingid")
    if override is not None and override.compute_only:
        raise ApiError(PARAMETER, "overridediskofferingid names the disk offering of a compute offering")
    disk = override or tx.get(DiskOffering, offering.disk_offering_id)
    snapshot = optional(tx, Snapshot, request, "snapshotid")
    if snapshot is not None:
        check_snapshot_usable(snapshot)
        check_in_zone(tx, snapshot, tx.get(Zone, vm.data_center_id))
        check_source(tx, snapshot, disk)
    least = template.size if template else snapshot.size if snapshot else 0
    asked = _root_size(tx, request, disk, override)
    if asked is not None and asked < least:
        raise ApiError(
            PARAMETER, f"Unable to create VM: a root disk of {asked} bytes is smaller than its source of {least} bytes"
        )
    tx.insert(
        Volume(
            uuid=uuid,
            name=f"ROOT-{vm.id}",
            volume_type=VolumeType.ROOT,
            state=VolumeState.ALLOCATED,
            size=asked or max(disk.disk_size, least),
            data_center_id=vm.data_center_id,
            disk_offering_id=disk.id,
            created=tx.now,
            instance_id=vm.id,
            device_id=0,
            template_id=template.id if template else None,
            snapshot_id=snapshot.id if snapshot else None,
            min_iops=disk.min_iops,
            max_iops=disk.max_iops,
        )
    )


def _root_size(tx: Transaction, request: Request, disk: DiskOffering, override: DiskOffering | None) -> int | None:
    """Bytes that were asked for with `rootdisksize` (GiB), in either of its two places; None when they were not."""
    text = request.text("rootdisksize")
    if text is None:
        found = {key.lower(): value for key, value in request.pairs("details").items()}
        text = found.get("rootdisksize")
    if text is None:
        return volume_size(tx, override, None) if override is not None and override.customized else None
    if not text.isdigit() or not text.isascii() or len(text) > 9 or int(text) < 1:
        raise ApiError(PARAMETER, "Root disk size should be a positive number of GB")
    return max(int(text) * GIB, disk.disk_size if override is not None else 0)


def _insert_empty_root(tx: Transaction, request: Request, vm: Vm, uuid: str) -> None:
    """Deploy from an ISO: the disk offering is that of the ROOT volume, which is empty."""
    offering = optional(tx, DiskOffering, request, "diskofferingid")
    override = optional(tx, DiskOffering, request, "overridediskofferingid")
    disk = offering or override
    if disk is None:
        raise ApiError(PARAMETER, "Installing from ISO requires a disk offering to be specified for the root disk.")
    if offering is not None and override is not None:
        raise ApiError(
            PARAMETER, "Either diskofferingid or overridediskofferingid is the offering of the root disk, not both"
        )
    if disk.compute_only:
        raise ApiError(PARAMETER, "diskofferingid names the disk offering of a compute offering")
    size = volume_size(tx, disk, request.natural("size", 1))
    row = data_volume(tx, uuid, f"ROOT-{vm.id}", disk, size, place=tx.get(Zone, vm.data_center_id))
    tx.insert(msgspec.structs.replace(row, volume_type=VolumeType.ROOT, instance_id=vm.id, device_id=0))


def _insert_data(tx: Transaction, request: Request, vm: Vm, uuid: str) -> None:
    offering = optional(tx, DiskOffering, request, "diskofferingid")
    if offering is None:
        return
    if offering.compute_only:
        raise ApiError(PARAMETER, "diskofferingid names the disk offering of a compute offering")
    size = volume_size(tx, offering, request.natural("size", 1))
    row = tx.insert(data_volume(tx, uuid, f"DATA-{vm.id}", offering, size, place=tx.get(Zone, vm.data_center_id)))
    tx.update(row, instance_id=vm.id, device_id=1)
