"""Extra `pool`: zone-wide pools are put into maintenance, and deleted (spec/action-table.md)."""

from __future__ import annotations

from harness.observers import World
from scenarios import templates
from scenarios.looks import fully_detached, gone, on_storpool, refused, reread_volume, serial
from scenarios.pools import (
    offering_on,
    on_template,
    pool_parameters,
    pool_url,
    pools,
    remove_pool,
    spare_pool,
    storpool_template,
    vm_on,
)
from scenarios.registry import scenario
from scenarios.snapshots import BACKUP
from scenarios.steps import (
    GIB,
    attach,
    booted_vm,
    compute_offering,
    data_volume,
    deploy,
    detach,
    expunge,
    idle_template,
    one,
    root_volume,
    setting,
    shared_template,
    stop,
    vm_by_id,
)


@scenario(
    "pool",
    "maintenance",
    "maintenance stops the VMs that use the pool, with HA too; cancelling it starts them (#11789, #12215)",
)
def maintenance(world: World) -> None:
    call = world.cloud.call
    with spare_pool(world) as pool:
        root_there, elsewhere = vm_on(world, pool), booted_vm(world)
        available = compute_offering(world, offerha=True)
        data_there = deploy(world, shared_template(world), serviceofferingid=available["id"])
        world.guest(str(data_there["id"])).boot_id()
        boot = world.guest(str(elsewhere["id"])).boot_id()
        offering = offering_on(world, pool)
        volume = attach(world, data_volume(world, 1, offering), data_there)
        mark = b"before the maintenance".ljust(4096, b".")
        world.guest(str(data_there["id"])).write(serial(volume), 0, mark)
        free = data_volume(world, 1, offering)
        stopped = stop(world, vm_on(world, pool))
        shown = one(call("enableStorageMaintenance", id=pool["id"]), "storagepool")
        with world.check("the pool is in Maintenance, and the VMs that use it are stopped"):
            assert shown["state"] == "Maintenance", shown
            states = [vm_by_id(world, str(vm["id"]))["state"] for vm in (root_there, data_there, elsewhere)]
            assert states == ["Stopped", "Stopped", "Running"], states
        for item in (root_volume(world, str(root_there["id"])), volume):
            fully_detached(world, item)
        for why, command, parameters in (
            ("to start a VM whose ROOT is there", "startVirtualMachine", {"id": root_there["id"]}),
            ("to start a VM that has a DATA volume there", "startVirtualMachine", {"id": data_there["id"]}),
            ("a new volume there", "attachVolume", {"id": free["id"], "virtualmachineid": elsewhere["id"]}),
            ("maintenance once more", "enableStorageMaintenance", {"id": pool["id"]}),
            ("to enable it past its maintenance", "updateStoragePool", {"id": pool["id"], "enabled": True}),
        ):
            with refused(world, why, 431, 533):
                call(command, **parameters)
        shown = one(call("cancelStorageMaintenance", id=pool["id"]), "storagepool")
        with world.check("the pool is Up, the VMs that ran run again, the one that was stopped does not"):
            assert shown["state"] == "Up", shown
            states = [vm_by_id(world, str(vm["id"]))["state"] for vm in (root_there, data_there, stopped)]
            assert states == ["Running", "Running", "Stopped"], states
        with world.check("their disks have what was written"):
            guest = world.guest(str(data_there["id"]))
            assert guest.boot_id() and guest.read(serial(volume), 0, len(mark)) == mark
        with world.check("a VM on another pool was not disturbed"):
            assert world.guest(str(elsewhere["id"])).boot_id() == boot
        with refused(world, "to cancel what is over", 431):
            call("cancelStorageMaintenance", id=pool["id"])
        for vm in (root_there, stopped):
            expunge(world, vm)
        call("deleteVolume", id=detach(world, volume)["id"])
        call("deleteVolume", id=free["id"])


@scenario(
    "pool", "delete", "a pool in use is not deleted; one that is not goes with all of it that is on StorPool (#12451)"
)
def delete(world: World) -> None:
    call = world.cloud.call
    with storpool_template(world) as name:
        pool = one(call("createStoragePool", **pool_parameters(world, pool_url(world, name))), "storagepool")
        vm = vm_on(world, pool)
        root = root_volume(world, str(vm["id"]))
        volume = attach(world, data_volume(world, 1, offering_on(world, pool)), vm)
        with refused(world, "to delete a pool that is Up", 431):
            call("deleteStoragePool", id=pool["id"])
        with setting(world, BACKUP, "false", "true"):
            snapshot = one(call("createSnapshot", volumeid=volume["id"]), "snapshot")
        call("enableStorageMaintenance", id=pool["id"])
        for forced in (False, True):
            with refused(world, f"to delete a pool that VMs use, forced {forced}", 431):
                call("deleteStoragePool", id=pool["id"], forced=forced)
        call("cancelStorageMaintenance", id=pool["id"])
        expunge(world, vm)
        gone(world, root)
        volume = reread_volume(world, volume)
        fully_detached(world, volume)
        call("enableStorageMaintenance", id=pool["id"])
        for forced in (False, True):
            with refused(world, f"to delete a pool with a detached volume, forced {forced}", 431):
                call("deleteStoragePool", id=pool["id"], forced=forced)
        call("destroyVolume", id=volume["id"])
        with refused(world, "to delete a pool with a snapshot", 431):
            call("deleteStoragePool", id=pool["id"], forced=True)
        call("deleteSnapshot", id=snapshot["id"])
        with refused(world, "to delete a pool with a destroyed volume", 431):
            call("deleteStoragePool", id=pool["id"])
        with world.check("up to here its volume is there"):
            assert on_storpool(world, volume)["size"] == GIB
        call("deleteStoragePool", id=pool["id"], forced=True)
        with world.check("the pool is gone, and with it volume, cached template and check volume"):
            assert pool["id"] not in [item["id"] for item in pools(world)]
            left = on_template(world, name)
            assert left == [], f"left on StorPool template {name}: {left}"
        gone(world, volume)
        again = one(call("createStoragePool", **pool_parameters(world, pool_url(world, name))), "storagepool")
        with world.check("the StorPool template can be another pool's"):
            assert again["state"] == "Up", again
        remove_pool(world, again)


@scenario("pool", "template", "a pool that has the StorPool snapshot of a template is deleted after that template")
def holds_a_template(world: World) -> None:
    with spare_pool(world) as pool:
        vm = stop(world, vm_on(world, pool))
        made = templates.from_volume(world, root_volume(world, str(vm["id"])))
        expunge(world, vm)
        world.cloud.call("enableStorageMaintenance", id=pool["id"])
        for forced in (False, True):
            with refused(world, f"to delete a pool with a template's own snapshot, forced {forced}", 431):
                world.cloud.call("deleteStoragePool", id=pool["id"], forced=forced)
        with world.check("the template's snapshot is there"):
            assert templates.mirror_of(world, made)
        templates.delete(world, made)
        templates.nothing_left(world, made)


@scenario("pool", "delete-cache-lost", "a pool whose cached template StorPool has lost is deleted all the same")
def delete_cache_lost(world: World) -> None:
    with spare_pool(world) as pool:
        template_id = idle_template(world)
        expunge(world, vm_on(world, pool))
        found = [
            item
            for item in world.storpool.snapshots()
            if (item.get("tags") or {}).get("uuid") == template_id
            and item.get("templateName") == pool["storpool_template"]
        ]
        with world.check("the template is cached there"):
            assert len(found) == 1, found
        world.storpool.lose_snapshot("~" + str(found[0]["globalId"]))
    with world.check("deleted"):
        assert pool["id"] not in [item["id"] for item in pools(world)]
