"""Operations that migrate VMs (row 6)."""

from __future__ import annotations

from harness.faults.marks import guest_reads, mark
from harness.faults.operation import Operation, Subject, running
from harness.observers import World
from scenarios import looks, migrating, row18_live, steps, storage_migration
from scenarios.encrypted import reads, with_data

DISKS = 2
"""DATA volumes beside the ROOT volume: a destination that fails at a disk may have some of them already."""


def _vm_with_disks(world: World) -> Subject:
    vm = steps.booted_vm(world)
    volumes = [steps.attach(world, steps.data_volume(world), vm) for _ in range(DISKS)]
    for volume in volumes:
        mark(world, vm, volume)
    boot = world.guest(str(vm["id"])).boot_id()
    destination = migrating.other_host(world, vm)
    target = {"target": migrating.host_id(world, destination), "volumes": volumes, "boot": boot}
    return Subject(vm={**vm, **target}, volume=volumes[0])


def _vm_with_encrypted_disk(world: World) -> Subject:
    vm, volume = with_data(world, "moved")
    boot = world.guest(str(vm["id"])).boot_id()
    target = migrating.host_id(world, migrating.other_host(world, vm))
    return Subject(vm={**vm, "target": target, "volumes": [], "boot": boot}, volume=volume)


def _reads_on_target(world: World, subject: Subject) -> None:
    _migrated(world, subject)
    reads(world, looks.reread(world, subject.vm), looks.reread_volume(world, subject.volume), "moved")


def _reads_where_it_was(world: World, subject: Subject) -> None:
    _not_migrated(world, subject)
    reads(world, looks.reread(world, subject.vm), looks.reread_volume(world, subject.volume), "moved")


def _vm_with_free_volumes(world: World) -> Subject:
    """Its ROOT volume, too, may go to any pool."""
    offering = steps.compute_offering(world, tags="")
    vm = steps.deploy(world, steps.shared_template(world), serviceofferingid=offering["id"])
    world.guest(str(vm["id"])).boot_id()
    volume = steps.attach(world, steps.data_volume(world, offering_id=storage_migration.anywhere(world)), vm)
    mark(world, vm, volume)
    boot = world.guest(str(vm["id"])).boot_id()
    target = migrating.host_id(world, migrating.other_host(world, vm))
    moved = [steps.root_volume(world, str(vm["id"])), volume]
    return Subject(vm={**vm, "target": target, "volumes": [volume], "moved": moved, "boot": boot}, volume=volume)


def _migrate_with_volumes(world: World, subject: Subject) -> None:
    row18_live.migrate_with(world, subject.vm, str(subject.vm["target"]), *subject.vm["moved"])


def _migrated_with_volumes(world: World, subject: Subject) -> None:
    _migrated(world, subject)
    for before in subject.vm["moved"]:
        volume = looks.reread_volume(world, before)
        storage_migration.same_on_storpool(world, before, volume, storage_migration.other_pool(world))


def _not_migrated_with_volumes(world: World, subject: Subject) -> None:
    """A server that dies, or an answer that is lost, leaves each volume on either pool."""
    _not_migrated(world, subject)
    for before in subject.vm["moved"]:
        volume = looks.reread_volume(world, before)
        storage_migration.same_on_storpool(world, before, volume, steps.pool_of(world, volume))


def _migrate(world: World, subject: Subject) -> None:
    parameters = {"virtualmachineid": subject.vm["id"], "hostid": subject.vm["target"]}
    world.cloud.call("migrateVirtualMachine", **parameters)


def _there_and_back(world: World, subject: Subject) -> None:
    """What comes late of the first migration meets the second, which has the same hosts the other way round."""
    _migrate(world, subject)
    world.cloud.call("migrateVirtualMachine", virtualmachineid=subject.vm["id"], hostid=subject.vm["hostid"])


def _migrated(world: World, subject: Subject) -> None:
    _runs_on(world, subject, str(subject.vm["target"]))


def _not_migrated(world: World, subject: Subject) -> None:
    _runs_on(world, subject, str(subject.vm["hostid"]))


def _somewhere(world: World, subject: Subject) -> None:
    """At the first host; or at the other one, when a copy of the request for that came after all."""
    vm = running(world, subject, subject.vm)
    assert vm["hostid"] in (subject.vm["hostid"], subject.vm["target"]), vm
    _runs_on(world, subject, str(vm["hostid"]))


def _halfway(world: World, subject: Subject) -> None:
    """It is made again from where it is, so it is brought back to where it began."""
    vm = running(world, subject, subject.vm)
    _runs_on(world, subject, str(vm["hostid"]))
    if vm["hostid"] != subject.vm["hostid"]:
        world.cloud.call("migrateVirtualMachine", virtualmachineid=vm["id"], hostid=subject.vm["hostid"])


def _runs_on(world: World, subject: Subject, host_id: str) -> None:
    """With every disk attached there alone, all that it wrote, and never restarted, unless a fault ended its guest."""
    vm = running(world, subject, subject.vm)
    assert vm["hostid"] == host_id, f"VM {vm['id']} runs on host {vm['hostname']}"
    looks.fully_attached(world, vm, steps.root_volume(world, str(vm["id"])))
    for each in subject.vm["volumes"]:
        volume = looks.reread_volume(world, each)
        looks.fully_attached(world, vm, volume)
        guest_reads(world, vm, volume)
    boot = world.guest(str(vm["id"])).boot_id()
    assert subject.guests_ended or boot == subject.vm["boot"], "the guest was restarted"


MIGRATIONS: tuple[Operation, ...] = (
    Operation("6.migrate", "migrate a VM with three disks", _vm_with_disks, _migrate, _migrated, _not_migrated),
    Operation("6.back", "migrate a VM there and back", _vm_with_disks, _there_and_back, _somewhere, _halfway),
    Operation(
        "18.vm-live",
        "migrate a VM to another host and its ROOT and DATA volumes to another pool",
        _vm_with_free_volumes,
        _migrate_with_volumes,
        _migrated_with_volumes,
        _not_migrated_with_volumes,
    ),
    Operation(
        "encryption.migrate",
        "migrate a VM with an encrypted volume",
        _vm_with_encrypted_disk,
        _migrate,
        _reads_on_target,
        _reads_where_it_was,
    ),
)
