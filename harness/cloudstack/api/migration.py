"""Migrating VMs between hosts."""

from __future__ import annotations

from harness.cloudstack.api import migrate_storage
from harness.cloudstack.api.command import Command, Json, listing, object_job
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.infrastructure import list_hosts
from harness.cloudstack.api.lookup import by_uuid, entity, matching, optional, owner
from harness.cloudstack.api.parameters import LIST, Request
from harness.cloudstack.api.vm_view import FIELDS, virtual_machine
from harness.cloudstack.orchestration import placement
from harness.cloudstack.orchestration.migration import check_migratable
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import HostRow, Vm
from harness.cloudstack.services import Services
from harness.spi.errors import InsufficientCapacity, InvalidParameter
from harness.spi.states import VmState


def migrate_vm(services: Services, request: Request) -> Json:
    if request.text("storageid"):
        return migrate_storage.migrate_vm_storage(services, request)
    vm_id, host_id = check_migrate(services, request)
    services.migrations.migrate(vm_id, host_id)
    with services.records.read() as tx:
        return virtual_machine(tx, tx.get(Vm, vm_id), owner(tx))


def check_migrate(services: Services, request: Request) -> tuple[int, int]:
    with services.records.read() as tx:
        vm, host = entity(tx, Vm, request, "virtualmachineid"), optional(tx, HostRow, request, "hostid")
        if host is None and not request.flag("autoselect"):
            raise ApiError(PARAMETER, "Either hostId or storageId must be specified")
        if host is None:
            host = _choose(tx, vm)
        check_migratable(tx, vm, host)
    return vm.id, host.id


def _choose(tx: Transaction, vm: Vm) -> HostRow:
    return placement.host_for(tx, vm, avoid=() if vm.host_id is None else (vm.host_id,))


def find_hosts(services: Services, request: Request) -> list[Json]:
    """Every host but the VM's own, and whether the VM can be migrated there."""
    hosts = list_hosts(services, Request(request.command, request.user_id, {}))
    with services.records.read() as tx:
        vm = by_uuid(tx, Vm, request.need("virtualmachineid"), "virtualmachineid")
        if vm.state is not VmState.RUNNING:
            raise ApiError(
                PARAMETER, f"Unable to find hosts for migration: VM {vm.display_name} is not running, it is {vm.state}"
            )
        own = None if vm.host_id is None else tx.get(HostRow, vm.host_id).uuid
        shown = [
            {
                **host,
                "suitableformigration": _suits(tx, vm, by_uuid(tx, HostRow, host["id"], "id")),
                "requiresStorageMotion": False,
            }
            for host in hosts
            if host["id"] != own
        ]
    return matching(shown, request)


def _suits(tx: Transaction, vm: Vm, host: HostRow) -> bool:
    try:
        check_migratable(tx, vm, host)
    except (InvalidParameter, InsufficientCapacity):
        return False
    return True


def check(services: Services, request: Request) -> object:
    """`storageid` is for the volumes of a VM that does not run."""
    if request.text("storageid"):
        return migrate_storage.check_vm_storage(services, request)
    return check_migrate(services, request)


COMMANDS: tuple[Command, ...] = (
    object_job(
        "migrateVirtualMachine",
        "virtualmachine",
        "virtualmachineid:uuid* hostid:uuid storageid:uuid autoselect:boolean",
        FIELDS,
        migrate_vm,
        check=check,
    ),
    listing(
        "findHostsForMigration",
        "host",
        f"{LIST} virtualmachineid:uuid*",
        "id:string name:string zoneid:string zonename:string podid:string podname:string clusterid:string"
        " clustername:string state:string type:string resourcestate:string hypervisor:string lastpinged:date"
        " created:date suitableformigration:boolean requiresStorageMotion:boolean",
        find_hosts,
    ),
)
