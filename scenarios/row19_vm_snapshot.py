"""Row 19: VM snapshot. Seen from outside: spec/action-table.md row 19."""

from __future__ import annotations

from collections.abc import Callable

from harness.observers import Json, World
from scenarios import looks, snapshots
from scenarios.looks import fully_attached, refused
from scenarios.registry import scenario
from scenarios.steps import (
    MISSING,
    attach,
    change_offering,
    data_volume,
    deploy,
    detach,
    disk_offering,
    expunge,
    idle_vm,
    resize,
    setting,
    shared_template,
    start,
    stop,
    tag_vm,
)
from scenarios.vm_snapshots import (
    AT,
    counted,
    delete,
    disks_of,
    group_of,
    is_whole,
    reads_all,
    revert,
    take,
    unchanged,
    vm_snapshots_of,
    vm_with_disks,
    write_all,
)
from scenarios.vm_snapshots import on_pool as seen_on_pool


@scenario(19, "running", "a running VM with ROOT and two DATA disks: one group of StorPool snapshots, the VM runs on")
def running(world: World) -> None:
    vm, disks = vm_with_disks(world, "before")
    boot, seen = world.guest(str(vm["id"])).boot_id(), seen_on_pool(world, disks)
    snapshot = take(world, vm, name="first", description="of all disks")
    with world.check("CloudStack shows it Ready, current, of disks only"):
        shown = {name: snapshot.get(name) for name in ("state", "type", "current", "displayname", "description")}
        wanted = {"state": "Ready", "type": "Disk", "current": True, "displayname": "first"}
        assert shown == {**wanted, "description": "of all disks"}, snapshot
        assert snapshot["virtualmachineid"] == vm["id"], snapshot
    is_whole(world, vm, snapshot, disks)
    unchanged(world, disks, seen)
    for volume in disks:
        fully_attached(world, vm, volume)
    with world.check("the guest was never down, and writes and reads on"):
        assert world.guest(str(vm["id"])).boot_id() == boot
        reads_all(world, vm, disks, "before")
        write_all(world, vm, disks, "after")
        reads_all(world, vm, disks, "after")


@scenario(19, "stopped", "a stopped VM, twice: the second has the first as its parent")
def stopped(world: World) -> None:
    vm, disks = vm_with_disks(world, "before")
    vm = stop(world, vm)
    first = take(world, vm, name="")
    second = take(world, vm, name="second")
    is_whole(world, vm, first, disks)
    is_whole(world, vm, second, disks)
    with world.check("parent and current one"):
        by_id = {item["id"]: item for item in vm_snapshots_of(world, vm)}
        assert set(by_id) == {first["id"], second["id"]}, by_id
        assert (by_id[first["id"]]["current"], by_id[second["id"]]["current"]) == (False, True), by_id
        assert "parent" not in by_id[first["id"]] and by_id[second["id"]]["parent"] == first["id"], by_id
        assert by_id[second["id"]]["parentName"] == first["displayname"], by_id
    with world.check("names are CloudStack's"):
        assert first["name"].startswith(f"{vm['instancename']}_VS_") and first["displayname"] == first["name"], first
    with world.check("the list can be narrowed"):
        for filters, wanted in (({"name": "second"}, [second["id"]]), ({"state": "Error"}, [])):
            answer = world.cloud.call("listVMSnapshot", virtualmachineid=vm["id"], listall=True, **filters)
            assert [item["id"] for item in answer.get("vmSnapshot", [])] == wanted, (filters, answer)
    vm = start(world, vm)
    with world.check("the VM starts and has its data"):
        reads_all(world, vm, disks, "before")


@scenario(19, "moment", "a guest that writes to one disk after the other: every disk is of the same moment")
def moment(world: World) -> None:
    vm, disks = vm_with_disks(world, "before")
    data = disks[1:]
    guest = world.guest(str(vm["id"]))
    taken: list[Json] = []
    with guest.counting([looks.serial(volume) for volume in data], AT):
        world.wait_until("the guest counts", lambda: guest.read(looks.serial(data[-1]), AT, 1024).strip().isdigit())
        for _ in range(3):
            before = counted(world, vm, data[-1])
            taken.append(take(world, vm))
            world.wait_until("the guest counts on", lambda: counted(world, vm, data[-1]) > before)  # noqa: B023
    end = [counted(world, vm, volume) for volume in data]
    last = 0
    for number, snapshot in enumerate(taken, 1):
        vm = stop(world, vm)
        revert(world, snapshot)
        vm = start(world, vm)
        world.guest(str(vm["id"])).boot_id()
        first, second = (counted(world, vm, volume) for volume in data)
        with world.check(f"snapshot {number}: what was written later is on no disk without what was written earlier"):
            assert first - 1 <= second <= first, f"the disks are at {first} and {second}"
        with world.check(f"snapshot {number} is of the time between the one before and the end"):
            assert last < first < end[0], (last, first, end)
        last = first


@scenario(19, "pools", "disks on two pools, with a limit, a tier and a policy: one group, none of which is lost")
def pools(world: World) -> None:
    first, second = world.environment.pools[:2]
    limited = disk_offering(world, miniops=100, maxiops=800, tags=first.tag)
    elsewhere = disk_offering(world, tags=second.tag)
    vm, disks = vm_with_disks(world, "before", data_volume(world, 1, limited), data_volume(world, 1, elsewhere))
    tag_vm(world, vm, vc_policy="daily")
    seen = seen_on_pool(world, disks)
    snapshot = take(world, vm)
    is_whole(world, vm, snapshot, disks)
    with world.check("one snapshot on the second pool"):
        templates = [item["templateName"] for item in group_of(world, snapshot)]
        assert templates.count(second.storpool_template) == 1, templates
    write_all(world, vm, disks, "after")
    vm = stop(world, vm)
    revert(world, snapshot)
    unchanged(world, disks, seen)
    vm = start(world, vm)
    with world.check("the guest reads what every disk had"):
        reads_all(world, vm, disks, "before")


@scenario(
    19, "guards", "a VM with VM snapshots: no disk comes, goes, or changes its size; without them all of it works"
)
def guards(world: World) -> None:
    vm, disks = vm_with_disks(world, "before")
    spare, volume = data_volume(world), disks[1]
    with setting(world, snapshots.BACKUP, "false", "true"):
        own = snapshots.take(world, volume)
    snapshot = take(world, vm)
    _refused_with(
        world,
        "Unable to attach volume, please specify a VM that does not have VM snapshots",
        lambda: attach(world, spare, vm),
    )
    _refused_with(
        world,
        "Unable to detach volume, please specify a VM that does not have VM snapshots",
        lambda: detach(world, volume),
    )
    _refused_with(world, "VM snapshots, so it cannot be resized", lambda: resize(world, volume, 2))
    vm = stop(world, vm)
    _refused_with(world, "its VM has VM snapshots", lambda: world.cloud.call("revertSnapshot", id=own["id"]))
    with world.check("an offering of the same size is taken"):
        change_offering(world, volume, disk_offering(world, disksize=1))
    vm = start(world, vm)
    for disk in disks_of(world, vm):
        fully_attached(world, vm, disk)
    delete(world, snapshot)
    resize(world, disks[2], 3)
    attach(world, spare, vm)
    detach(world, volume)
    with world.check("a snapshot of the disks that the VM has now"):
        now = disks_of(world, vm)
        assert {disk["id"] for disk in now} == {disks[0]["id"], disks[2]["id"], spare["id"]}, now
    is_whole(world, vm, take(world, vm), now)


def _refused_with(world: World, text: str, work: Callable[[], object]) -> None:
    with refused(world, text, 431, saying=text):
        work()


@scenario(
    19,
    "refusals",
    "memory, a guest that should hold still, names, numbers and VMs that cannot be: each with its reason",
)
def refusals(world: World) -> None:
    vm = idle_vm(world)

    def taking(**parameters: str | int | bool) -> Callable[[], object]:
        return lambda: take(world, vm, **parameters)

    _refused_with(world, "StorPool snapshots disks only, not the memory of a VM", taking(snapshotmemory=True))
    _refused_with(world, "can't handle quiescevm equal true", taking(quiescevm=True))
    _refused_with(world, "Value greater than max allowed length 255", taking(name="n" * 256))
    with refused(world, "a VM that does not exist", 431):
        world.cloud.call("createVMSnapshot", virtualmachineid=MISSING)
    with world.check("nothing of what was refused is listed"):
        assert vm_snapshots_of(world, vm) == []
    take(world, vm, name="one", quiescevm=False, snapshotmemory=False)
    _refused_with(world, "already exists", taking(name="one"))
    with setting(world, "vmsnapshot.max", "1", "10"):
        _refused_with(world, "a VM can just have : 1 VM snapshots", taking(name="two"))
    vm = stop(world, vm)
    _refused_with(world, "Can not snapshot memory when VM is not in running state", taking(snapshotmemory=True))
    take(world, vm, name="quiet", quiescevm=True)
    never = deploy(world, shared_template(world), startvm=False)
    _refused_with(world, "is not on primary storage yet", lambda: take(world, never))
    world.cloud.call("destroyVirtualMachine", id=vm["id"])
    _refused_with(world, "is not in the running or Stopped state", taking())
    expunge(world, vm)
