"""migrateVolume, and what migrateVirtualMachine does with a storage pool (spec/cloudstack-plugin.md 4.18)."""

from __future__ import annotations

from harness.cloudstack.api.command import Command, Json, object_job
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import entity, optional, owner
from harness.cloudstack.api.parameters import Request
from harness.cloudstack.api.vm_view import virtual_machine
from harness.cloudstack.api.volumes import VOLUME_FIELDS, volume
from harness.cloudstack.orchestration.storage_migration import Move, check_vm
from harness.cloudstack.orchestration.storage_migration_checks import check_migratable
from harness.cloudstack.records.rows import DiskOffering, StoragePool, Vm, Volume
from harness.cloudstack.services import Services


def migrate_volume(services: Services, request: Request) -> Json:
    volume_id, move = check_volume(services, request)
    services.storage_migrations.migrate(volume_id, move)
    with services.records.read() as tx:
        return volume(tx, tx.get(Volume, volume_id), owner(tx))


def check_volume(services: Services, request: Request) -> tuple[int, Move]:
    with services.records.read() as tx:
        row, pool = entity(tx, Volume, request, "volumeid"), entity(tx, StoragePool, request, "storageid")
        offering = optional(tx, DiskOffering, request, "newdiskofferingid")
        live = request.flag("livemigrate")
        offering_id = offering.id if offering else None
        check_migratable(tx, row, pool, offering_id, live=live)
        return row.id, Move(pool_id=pool.id, disk_offering_id=offering_id, live=live)


def migrate_vm_storage(services: Services, request: Request) -> Json:
    """Of a stopped VM, every volume."""
    vm_id, pool_id = check_vm_storage(services, request)
    services.storage_migrations.migrate_vm(vm_id, pool_id)
    with services.records.read() as tx:
        return virtual_machine(tx, tx.get(Vm, vm_id), owner(tx))


def check_vm_storage(services: Services, request: Request) -> tuple[int, int]:
    if request.text("hostid") is not None and request.text("storageid") is not None:
        raise ApiError(PARAMETER, "Only one of hostId and storageId can be specified")
    with services.records.read() as tx:
        vm, pool = entity(tx, Vm, request, "virtualmachineid"), entity(tx, StoragePool, request, "storageid")
        check_vm(tx, vm, pool)
        return vm.id, pool.id


COMMANDS: tuple[Command, ...] = (
    object_job(
        "migrateVolume",
        "volume",
        "volumeid:uuid* storageid:uuid* livemigrate:boolean newdiskofferingid:uuid",
        VOLUME_FIELDS,
        migrate_volume,
        check=check_volume,
    ),
)
