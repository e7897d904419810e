"""Row 18: volumes that do not go everywhere, encrypted ones and those of a VM with VM snapshots."""

from __future__ import annotations

from harness.observers import World
from scenarios import encrypted
from scenarios.looks import fully_attached, refused, reread, reread_volume
from scenarios.registry import scenario
from scenarios.snapshots import write
from scenarios.steps import attach, booted_vm, data_volume, detach, stop
from scenarios.storage_migration import anywhere, migrate, nfs_pool, other_pool, same_on_storpool
from scenarios.vm_snapshots import delete as delete_vm_snapshot
from scenarios.vm_snapshots import take as take_vm_snapshot


@scenario(18, "encrypted", "an encrypted volume goes from StorPool to StorPool, live and not; to NFS it is refused")
def encrypted_volume(world: World) -> None:
    nfs = nfs_pool(world)
    vm = booted_vm(world)
    before = attach(world, data_volume(world, offering_id=anywhere(world, encrypt=True)), vm)
    encrypted.write(world, vm, before, "word")
    volume = migrate(world, before, other_pool(world).id, livemigrate=True)
    same_on_storpool(world, before, volume, other_pool(world))
    fully_attached(world, vm, volume)
    encrypted.reads(world, vm, volume, "word")
    before = detach(world, volume)
    with refused(world, "an encrypted volume to a pool that is not StorPool's", 431):
        migrate(world, before, str(nfs["id"]))
    volume = migrate(world, before, world.environment.pools[0].id)
    same_on_storpool(world, before, volume, world.environment.pools[0])
    encrypted.reads(world, vm, attach(world, volume, vm), "word")


@scenario(18, "vm-snapshots", "volumes of a VM with VM snapshots stay where they are until those are gone")
def with_vm_snapshots(world: World) -> None:
    vm = booted_vm(world)
    volume = attach(world, data_volume(world, offering_id=anywhere(world)), vm)
    write(world, vm, volume, "word")
    taken = take_vm_snapshot(world, vm)
    with refused(world, "a volume of a VM with a VM snapshot", 431):
        migrate(world, volume, other_pool(world).id, livemigrate=True)
    vm = stop(world, vm)
    with refused(world, "a VM with a VM snapshot", 431):
        world.cloud.call("migrateVirtualMachine", virtualmachineid=vm["id"], storageid=other_pool(world).id)
    delete_vm_snapshot(world, taken)
    moved = migrate(world, reread_volume(world, volume), other_pool(world).id)
    same_on_storpool(world, volume, moved, other_pool(world))
    with world.check("the VM is Stopped as before"):
        assert reread(world, vm)["state"] == "Stopped"
