"""Operations on VM snapshots: take one of a running and of a stopped VM, revert, delete (rows 19, 20, 21)."""

from __future__ import annotations

from harness.faults.marks import AFTER, MARK, PLACE, asked_again, in_memory, stored
from harness.faults.operation import REFUSALS, Operation, Subject, running
from harness.observers import Json, World
from scenarios import looks, steps, vm_snapshots
from simulator.ports import OutOfSpace

DISCARDED = 3600.0
"""Virtual seconds in which what an operation left is removed, as it must wait for requests that may come late."""


def _vm(world: World) -> Subject:
    """A running VM with a ROOT and two DATA disks, with the mark on the DATA disks."""
    vm = steps.booted_vm(world)
    for size in (1, 2):
        steps.attach(world, steps.data_volume(world, size), vm)
    _write(world, vm, 0, MARK)
    return Subject(vm=vm)


def _stopped_vm(world: World) -> Subject:
    subject = _vm(world)
    subject.vm = steps.stop(world, subject.vm)
    return subject


def _vm_with_snapshot(world: World) -> Subject:
    subject = _vm(world)
    subject.snapshot = vm_snapshots.take(world, subject.vm)
    return subject


def _changed_since(world: World) -> Subject:
    subject = _vm_with_snapshot(world)
    _write(world, subject.vm, 0, AFTER)
    subject.vm = steps.stop(world, subject.vm)
    return subject


def _data(world: World, vm: Json) -> list[Json]:
    return vm_snapshots.disks_of(world, vm)[1:]


def _write(world: World, vm: Json, place: int, data: bytes) -> None:
    guest = world.guest(str(vm["id"]))
    for volume in _data(world, vm):
        guest.write(looks.serial(volume), place, data)


def _read(world: World, vm: Json, place: int) -> list[bytes]:
    guest = world.guest(str(vm["id"]))
    guest.boot_id()
    return [guest.read(looks.serial(volume), place, len(MARK)) for volume in _data(world, vm)]


def _holds(world: World, vm: Json, place: int, wanted: bytes) -> None:
    seen = _read(world, vm, place)
    assert seen == [wanted, wanted], f"the disks hold {[each[:32] for each in seen]}, expected {wanted[:32]!r}"


def _take(world: World, subject: Subject) -> None:
    subject.name = world.name("vm-snapshot")
    world.cloud.call("createVMSnapshot", virtualmachineid=subject.vm["id"], name=subject.name)


def _named(world: World, subject: Subject) -> Json | None:
    found = [s for s in vm_snapshots.vm_snapshots_of(world, subject.vm) if s["displayname"] == subject.name]
    return found[0] if found else None


def _whole(world: World, subject: Subject, snapshot: Json) -> None:
    """StorPool has it once, of every disk, with the mark."""
    disks = vm_snapshots.disks_of(world, subject.vm)
    vm_snapshots.is_whole(world, subject.vm, snapshot, disks)
    sizes = sorted(int(volume["size"]) for volume in disks)[-2:]
    for item in vm_snapshots.group_of(world, snapshot):
        if item["size"] in sizes and item["size"] != disks[0]["size"]:
            stored(world, str(item["globalId"]))


def _taken(world: World, subject: Subject) -> None:
    snapshot = _named(world, subject)
    assert snapshot is not None and snapshot["state"] == "Ready", f"VM snapshot {subject.name} is {snapshot}"
    _whole(world, subject, snapshot)
    vm = looks.reread(world, subject.vm)
    if vm["state"] == "Running":
        _holds(world, vm, 0, MARK)
    others = [item for item in _groups(world) if item["tags"]["uuid"] != snapshot["id"]]
    assert others == [], f"StorPool has snapshots of another one, too: {others}"


def _groups(world: World) -> list[Json]:
    kinds = ("group", "temporary")
    return [s for s in world.storpool.snapshots() if (s.get("tags") or {}).get("cs") in kinds and not s["deleted"]]


def _not_taken(world: World, subject: Subject) -> None:
    """None, or one in Error that left nothing."""
    snapshot = _named(world, subject)
    assert snapshot is None or snapshot["state"] == "Error", f"VM snapshot {subject.name} is {snapshot}"
    world.wait_until("StorPool has none of its snapshots", lambda: _groups(world) == [], DISCARDED)


def _revert(world: World, subject: Subject) -> None:
    """And use the disks at once, as their next user would: that must survive every request that comes late.

    After an error the VM is started: if it starts, its disks are of one moment.
    """
    try:
        vm_snapshots.revert(world, subject.snapshot)
    except REFUSALS:
        _start_at_once(world, subject)
        raise
    processes = in_memory(world).processes
    # A revert makes a new object; the ROOT disk is the first that is reverted.
    for key in sorted(processes.storpool().object_keys().values())[-2:]:
        processes.blocks.write(key, PLACE, AFTER)
    subject.written = "reverted"


def _start_at_once(world: World, subject: Subject) -> None:
    try:
        vm = steps.start(world, subject.vm)
        first, second = _read(world, vm, 0)
    except (*REFUSALS, TimeoutError):
        return
    if first != second or first not in (MARK, AFTER):
        subject.wrong = f"it started with {first[:32]!r} and {second[:32]!r}"
        return
    try:
        _write(world, vm, PLACE, AFTER)
    except OutOfSpace:
        return
    subject.written = "reverted" if first == MARK else "as before"


def _settled(world: World, subject: Subject, place_zero: bytes, name: str) -> None:
    assert not subject.wrong, subject.wrong
    state = vm_snapshots.vm_snapshot_by_id(world, str(subject.snapshot["id"]))["state"]
    assert state == "Ready", f"the VM snapshot is {state}"
    vm = looks.reread(world, subject.vm)
    vm = vm if vm["state"] == "Running" else steps.start(world, vm)
    _holds(world, vm, 0, place_zero)
    if subject.written == name and not asked_again(world, "vm snapshot revert"):
        _holds(world, vm, PLACE, AFTER)
    for volume in vm_snapshots.disks_of(world, vm):
        looks.fully_attached(world, vm, volume)
    subject.vm = steps.stop(world, vm)
    _whole(world, subject, subject.snapshot)
    kept = [item for item in _groups(world) if item["tags"]["cs"] == "temporary"]
    assert kept == [], f"what was kept meanwhile is still there: {kept}"


def _reverted(world: World, subject: Subject) -> None:
    _settled(world, subject, MARK, "reverted")


def _not_reverted(world: World, subject: Subject) -> None:
    _settled(world, subject, AFTER, "as before")


def _delete(world: World, subject: Subject) -> None:
    vm_snapshots.delete(world, subject.snapshot)


def _deleted(world: World, subject: Subject) -> None:
    vm_snapshots.nothing_left(world, subject.snapshot)
    vm = running(world, subject, subject.vm)
    _holds(world, vm, 0, MARK)
    for volume in vm_snapshots.disks_of(world, vm):
        looks.fully_attached(world, vm, volume)


def _not_deleted(world: World, subject: Subject) -> None:
    """It can be used as before, or it is in Error, where it can only be deleted again."""
    snapshot = vm_snapshots.vm_snapshot_by_id(world, str(subject.snapshot["id"]))
    if snapshot["state"] == "Ready":
        _whole(world, subject, snapshot)
    else:
        assert snapshot["state"] == "Error", snapshot


VM_SNAPSHOTS: tuple[Operation, ...] = (
    Operation("19.running", "take a VM snapshot of a running VM", _vm, _take, _taken, _not_taken),
    Operation("19.stopped", "take a VM snapshot of a stopped VM", _stopped_vm, _take, _taken, _not_taken),
    Operation("20.revert", "revert a VM to a VM snapshot", _changed_since, _revert, _reverted, _not_reverted),
    Operation("21.delete", "delete a VM snapshot", _vm_with_snapshot, _delete, _deleted, _not_deleted),
)
