"""Virtual machines."""

from __future__ import annotations

import functools

from harness.cloudstack.api.command import Command, Json, job, listing, object_job, sync
from harness.cloudstack.api.deploy import CREATE, create_vm, deploy_vm
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import entity, matching, optional, owner
from harness.cloudstack.api.parameters import OWNED, Request
from harness.cloudstack.api.vm_view import FIELDS, virtual_machine
from harness.cloudstack.records.rows import HostRow, Vm, Volume
from harness.cloudstack.services import Services
from harness.spi.states import VmState


def start_vm(services: Services, request: Request) -> Json:
    vm_id, host_id = check_start(services, request)
    services.vms.start(vm_id, host_id)
    return _show(services, vm_id)


def check_start(services: Services, request: Request) -> tuple[int, int | None]:
    with services.records.read() as tx:
        vm, host = entity(tx, Vm, request, "id"), optional(tx, HostRow, request, "hostid")
    if vm.state is not VmState.STOPPED:
        raise ApiError(PARAMETER, f"VM {vm.display_name} cannot be started: it is {vm.state.value}, not Stopped")
    return vm.id, host.id if host else None


def stop_vm(services: Services, request: Request) -> Json:
    vm_id = check_stop(services, request)
    services.vms.stop(vm_id, request.flag("forced"))
    return _show(services, vm_id)


def check_stop(services: Services, request: Request) -> int:
    with services.records.read() as tx:
        vm = entity(tx, Vm, request, "id")
    if vm.state not in (VmState.RUNNING, VmState.STOPPED, VmState.STOPPING):
        raise ApiError(PARAMETER, f"VM {vm.display_name} cannot be stopped: it is {vm.state.value}")
    return vm.id


def destroy_vm(services: Services, request: Request) -> Json:
    vm_id, volume_ids = check_destroy(services, request)
    services.vms.destroy(vm_id)
    shown = _show(services, vm_id)
    if request.flag("expunge"):
        services.vms.expunge(vm_id)
        shown["state"] = VmState.EXPUNGING.value
    for volume_id in volume_ids:
        services.volumes.delete(volume_id)
    return shown


def check_destroy(services: Services, request: Request) -> tuple[int, list[int]]:
    """`volumeids` are DATA volumes of the VM that are deleted with it."""
    with services.records.read() as tx:
        vm = entity(tx, Vm, request, "id")
        volumes = []
        for uuid in request.items("volumeids"):
            row = tx.find(Volume, uuid=uuid, instance_id=vm.id, volume_type="DATADISK", removed=None)
            if row is None:
                raise ApiError(PARAMETER, f"volume {uuid[:255]} is not a DATA volume of VM {vm.display_name}")
            volumes.append(row.id)
    if vm.state in (VmState.STARTING, VmState.MIGRATING, VmState.EXPUNGING):
        raise ApiError(PARAMETER, f"VM {vm.display_name} cannot be destroyed: it is {vm.state.value}")
    return vm.id, volumes


def expunge_vm(services: Services, request: Request) -> None:
    services.vms.expunge(check_expunge(services, request))


def check_expunge(services: Services, request: Request) -> int:
    with services.records.read() as tx:
        vm = entity(tx, Vm, request, "id")
    if vm.state not in (VmState.DESTROYED, VmState.EXPUNGING, VmState.ERROR):
        raise ApiError(PARAMETER, f"Please destroy vm with specified vmId before expunge; it is {vm.state.value}")
    return vm.id


def recover_vm(services: Services, request: Request) -> Json:
    with services.records.read() as tx:
        vm = entity(tx, Vm, request, "id")
    if vm.state is not VmState.DESTROYED:
        raise ApiError(PARAMETER, f"VM {vm.display_name} cannot be recovered: it is {vm.state.value}, not Destroyed")
    services.vms.recover(vm.id)
    return _show(services, vm.id)


def list_vms(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        common = owner(tx)
        wanted = request.text("id")
        rows = tx.all(Vm, removed=None) if wanted is None else tx.all(Vm, removed=None, uuid=wanted)
        shown = [virtual_machine(tx, row, common) for row in rows]
    ids = request.items("ids")
    shown = [row for row in shown if not ids or row["id"] in ids]
    return matching(
        shown, request, "name", "state", "zoneid", "hostid", "templateid", "serviceofferingid", "hypervisor"
    )


def _show(services: Services, vm_id: int) -> Json:
    with services.records.read() as tx:
        return virtual_machine(tx, tx.get(Vm, vm_id), owner(tx))


_job = functools.partial(object_job, noun="virtualmachine", fields=FIELDS)

COMMANDS: tuple[Command, ...] = (
    _job("deployVirtualMachine", parameters=CREATE, run=deploy_vm, create=create_vm),
    _job(
        "startVirtualMachine",
        parameters="id:uuid* hostid:uuid clusterid:uuid podid:uuid considerlasthost:boolean",
        run=start_vm,
        check=check_start,
    ),
    _job("stopVirtualMachine", parameters="id:uuid* forced:boolean", run=stop_vm, check=check_stop),
    _job(
        "destroyVirtualMachine",
        parameters="id:uuid* expunge:boolean volumeids:list",
        run=destroy_vm,
        check=check_destroy,
    ),
    job("expungeVirtualMachine", "id:uuid*", expunge_vm, check=check_expunge),
    sync("recoverVirtualMachine", "virtualmachine", "id:uuid*", FIELDS, recover_vm),
    listing(
        "listVirtualMachines",
        "virtualmachine",
        f"{OWNED} id:uuid ids:list name:string state:string zoneid:uuid hostid:uuid templateid:uuid"
        " serviceofferingid:uuid hypervisor:string details:list",
        FIELDS,
        list_vms,
    ),
)
