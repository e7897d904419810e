"""migrateVirtualMachineWithVolume."""

from __future__ import annotations

from harness.cloudstack.api.command import Command, Json, object_job
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import by_uuid, entity, optional, owner
from harness.cloudstack.api.parameters import Request
from harness.cloudstack.api.vm_view import FIELDS, virtual_machine
from harness.cloudstack.orchestration import migration, placement, storage_migration_checks
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import HostRow, StoragePool, Vm, Volume
from harness.cloudstack.services import Services
from harness.spi.states import VmState


def migrate(services: Services, request: Request) -> Json:
    vm_id, host_id, pools = check(services, request)
    services.volumes_migrations.migrate(vm_id, host_id, pools)
    with services.records.read() as tx:
        return virtual_machine(tx, tx.get(Vm, vm_id), owner(tx))


def check(services: Services, request: Request) -> tuple[int, int | None, dict[int, int]]:
    """The VM, the host if it is to be another one, and the pool of each volume."""
    with services.records.read() as tx:
        vm, host = entity(tx, Vm, request, "virtualmachineid"), optional(tx, HostRow, request, "hostid")
        wanted = _wanted(tx, vm, request)
        if host is None and not request.maps.get("migrateto") and not request.flag("autoselect"):
            raise ApiError(PARAMETER, "Either hostId or migrateto must be specified, or autoselect")
        if vm.state is not VmState.RUNNING:
            raise ApiError(PARAMETER, f"VM {vm.display_name} is not Running, it is {vm.state.value}: use migrateVolume")
        if host is None and request.flag("autoselect"):
            host = placement.host_for(tx, vm, avoid=() if vm.host_id is None else (vm.host_id,))
        if host is not None:
            migration.check_migratable(tx, vm, host)
        for volume, pool in wanted:
            storage_migration_checks.check_migratable(tx, volume, pool, None, live=True)
        return vm.id, host.id if host else None, {volume.id: pool.id for volume, pool in wanted}


def _wanted(tx: Transaction, vm: Vm, request: Request) -> list[tuple[Volume, StoragePool]]:
    """Volumes that are on their pool already have nothing to do, as after a request that was interrupted."""
    found = []
    for entry in request.maps.get("migrateto", []):
        lower = {key.lower(): value for key, value in entry.items()}
        if not lower.get("volume") or not lower.get("pool"):
            raise ApiError(PARAMETER, "Invalid parameter migrateto: each entry needs a volume and a pool")
        volume = by_uuid(tx, Volume, lower["volume"], "migrateto")
        if volume.instance_id != vm.id:
            raise ApiError(PARAMETER, f"There is no volume {volume.uuid} attached to the virtual machine {vm.uuid}")
        pool = by_uuid(tx, StoragePool, lower["pool"], "migrateto")
        if volume.pool_id != pool.id:
            found.append((volume, pool))
    return found


COMMANDS: tuple[Command, ...] = (
    object_job(
        "migrateVirtualMachineWithVolume",
        "virtualmachine",
        "virtualmachineid:uuid* hostid:uuid migrateto:map autoselect:boolean",
        FIELDS,
        migrate,
        check=check,
    ),
)
