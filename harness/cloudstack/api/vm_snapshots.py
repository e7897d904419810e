"""VM snapshots (spec/cloudstack-api.md section 1)."""

from __future__ import annotations

from datetime import UTC, datetime

from harness.cloudstack.api.command import Command, Created, Json, job, listing, object_job
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import clean, entity, matching, named, optional, owner, tags_of, time, zone_of
from harness.cloudstack.api.parameters import OWNED, Request
from harness.cloudstack.api.vm_view import FIELDS as VM_FIELDS
from harness.cloudstack.api.vm_view import virtual_machine
from harness.cloudstack.orchestration.vm_snapshot_rules import (
    check_deletable,
    check_revertable,
    check_room,
    check_takeable,
)
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import Vm, VmSnapshot
from harness.cloudstack.services import Services
from harness.spi.states import VmSnapshotState, VmState


def create_vm_snapshot(services: Services, request: Request) -> Created:
    uuid = services.runtime.uuid()
    with services.records.read() as tx:
        vm = entity(tx, Vm, request, "virtualmachineid")
        check_takeable(tx, vm)
    _check_kind(services, request, vm)
    with services.records.transaction("vm snapshot allocated") as tx:
        vm = entity(tx, Vm, request, "virtualmachineid")
        name = f"{vm.instance_name}_VS_{datetime.fromtimestamp(tx.now, UTC):%Y%m%d%H%M%S}"
        display_name = named(request) if request.text("name") else name
        check_room(tx, vm, display_name)
        check_takeable(tx, vm)
        row = tx.insert(
            VmSnapshot(
                uuid=uuid,
                name=name,
                display_name=display_name,
                description=request.text("description"),
                vm_id=vm.id,
                state=VmSnapshotState.ALLOCATED,
                created=tx.now,
            )
        )
    return Created(row.id, row.uuid, "VMSnapshot")


def take_vm_snapshot(services: Services, request: Request) -> Json:
    return _show(services, services.vm_snapshots.take(request.created))


def revert_to_vm_snapshot(services: Services, request: Request) -> Json:
    vm_id = services.vm_snapshots.revert(check_revert(services, request))
    with services.records.read() as tx:
        return virtual_machine(tx, tx.get(Vm, vm_id), owner(tx))


def check_revert(services: Services, request: Request) -> int:
    with services.records.read() as tx:
        row = entity(tx, VmSnapshot, request, "vmsnapshotid")
        check_revertable(tx, row, tx.find(Vm, id=row.vm_id))
    return row.id


def delete_vm_snapshot(services: Services, request: Request) -> None:
    snapshot_id = check_delete(services, request)
    if snapshot_id is not None:
        services.vm_snapshots.delete(snapshot_id)


def check_delete(services: Services, request: Request) -> int | None:
    """None for one that was deleted: whoever asks again, because no answer came, has what he wants."""
    with services.records.read() as tx:
        known = tx.find(VmSnapshot, uuid=request.need("vmsnapshotid"))
        if known is not None and known.removed is not None:
            return None
        row = entity(tx, VmSnapshot, request, "vmsnapshotid")
        check_deletable(tx, row)
    return row.id


def list_vm_snapshots(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        common = owner(tx)
        one, vm = optional(tx, VmSnapshot, request, "vmsnapshotid"), optional(tx, Vm, request, "virtualmachineid")
        rows = [
            vm_snapshot(tx, row, common)
            for row in tx.all(VmSnapshot, removed=None)
            if (one is None or row.id == one.id) and (vm is None or row.vm_id == vm.id)
        ]
    ids, name = request.items("vmsnapshotids"), request.text("name")
    rows = [row for row in rows if (not ids or row["id"] in ids) and (name is None or row["displayname"] == name)]
    return matching(rows, request, "state")


def vm_snapshot(tx: Transaction, row: VmSnapshot, common: Json) -> Json:
    vm = tx.get(Vm, row.vm_id)
    place = zone_of(tx, vm.data_center_id)
    parent = None if row.parent is None else tx.find(VmSnapshot, id=row.parent)
    return common | clean(
        id=row.uuid,
        name=row.name,
        displayname=row.display_name,
        description=row.description,
        state=row.state.value,
        type=row.type,
        current=row.current,
        parent=parent and parent.uuid,
        parentName=parent and parent.display_name,
        virtualmachineid=vm.uuid,
        virtualmachinename=vm.display_name,
        zoneid=place.uuid,
        zonename=place.name,
        hypervisor="KVM",
        created=time(row.created),
        tags=tags_of(tx, "VMSnapshot", row.uuid),
    )


def _show(services: Services, row: VmSnapshot) -> Json:
    with services.records.read() as tx:
        return vm_snapshot(tx, row, owner(tx))


def _check_kind(services: Services, request: Request, vm: Vm) -> None:
    """Memory and a quiesced guest are refused: to go on without them would not be what was asked for."""
    memory = request.flag("snapshotmemory")
    if memory and vm.state is not VmState.RUNNING:
        raise ApiError(PARAMETER, "Can not snapshot memory when VM is not in running state")
    services.vm_snapshots.check_can(vm.id, memory=memory)
    if request.flag("quiescevm") and vm.state is VmState.RUNNING:
        raise ApiError(
            PARAMETER,
            f"can't handle quiescevm equal true for VM {vm.display_name}: nobody asks its guest to hold still. Its"
            " disks are snapshotted at one point in time; stop the VM, or have the guest flush, and leave it out",
        )


_FIELDS = (
    "id:string name:string displayname:string description:string state:string type:string current:boolean"
    " parent:string parentName:string virtualmachineid:string virtualmachinename:string zoneid:string"
    " zonename:string hypervisor:string created:date account:string domain:string domainid:string tags:set"
)

COMMANDS: tuple[Command, ...] = (
    object_job(
        "createVMSnapshot",
        "vmsnapshot",
        "virtualmachineid:uuid* name:string description:string snapshotmemory:boolean quiescevm:boolean",
        _FIELDS,
        take_vm_snapshot,
        create_vm_snapshot,
    ),
    object_job(
        "revertToVMSnapshot",
        "virtualmachine",
        "vmsnapshotid:uuid*",
        VM_FIELDS,
        revert_to_vm_snapshot,
        check=check_revert,
    ),
    job("deleteVMSnapshot", "vmsnapshotid:uuid*", delete_vm_snapshot, check=check_delete),
    listing(
        "listVMSnapshot",
        "vmSnapshot",
        f"{OWNED} vmsnapshotid:uuid vmsnapshotids:list virtualmachineid:uuid name:string state:string",
        _FIELDS,
        list_vm_snapshots,
    ),
)
