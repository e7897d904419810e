"""Operations on disks of VMs: first use, attach, detach, start, stop, expunge, delete (rows 3, 4, 5, 7, 8)."""

from __future__ import annotations

from harness.faults.marks import guest_reads, mark, stored
from harness.faults.operation import Operation, Subject, running
from harness.observers import Json, World
from scenarios import looks, steps
from scenarios.delayed import DELETE_AFTER, delayed_snapshots

FORCE_STOP = "vm.destroy.forcestop"


def _with_mark(world: World, vm: Json, volume: Json) -> Json:
    """The volume, attached to the running VM, with the mark at its beginning."""
    attached = steps.attach(world, volume, vm)
    mark(world, vm, attached)
    return attached


def vm_with_marked_volume(world: World) -> Subject:
    vm = steps.booted_vm(world)
    return Subject(vm=vm, volume=_with_mark(world, vm, steps.data_volume(world)))


def _vm_and_marked_volume(world: World) -> Subject:
    subject = vm_with_marked_volume(world)
    subject.volume = steps.detach(world, subject.volume)
    return subject


def _stopped_vm_with_marked_volume(world: World) -> Subject:
    subject = vm_with_marked_volume(world)
    subject.vm = steps.stop(world, subject.vm)
    return subject


def _first_use(world: World) -> Subject:
    return Subject(vm=steps.stop(world, steps.booted_vm(world)), volume=steps.data_volume(world))


def attach(world: World, subject: Subject) -> None:
    world.cloud.call("attachVolume", id=subject.volume["id"], virtualmachineid=subject.vm["id"])


def _created(world: World, subject: Subject) -> None:
    volume = _on_its_vm(world, subject)
    seen = looks.on_storpool(world, volume)
    assert seen["size"] == volume["size"], f"StorPool made {seen['size']} bytes, CloudStack says {volume['size']}"
    looks.has_vm_tags(world, subject.vm, volume)


def _on_its_vm(world: World, subject: Subject) -> Json:
    volume = looks.reread_volume(world, subject.volume)
    assert volume.get("virtualmachineid") == subject.vm["id"], f"volume is not attached: {volume}"
    return volume


def _attached(world: World, subject: Subject) -> None:
    volume = _on_its_vm(world, subject)
    vm = running(world, subject, subject.vm)
    looks.fully_attached(world, vm, volume)
    guest_reads(world, vm, volume)


def free(world: World, subject: Subject) -> None:
    volume = looks.reread_volume(world, subject.volume)
    assert "virtualmachineid" not in volume, f"volume is still attached: {volume}"
    assert volume["state"] in ("Ready", "Allocated"), volume
    if "path" in volume:
        looks.fully_detached(world, volume)


def _two_vms_one_marked_volume(world: World) -> Subject:
    world.cloud.call("updateConfiguration", name=FORCE_STOP, value="true")
    subject = vm_with_marked_volume(world)
    subject.owner = subject.vm
    # CloudStack takes the host with the fewest VMs.
    subject.vm = steps.booted_vm(world)
    assert subject.vm["hostid"] != subject.owner["hostid"], "both VMs run on one host"
    return subject


def inherit(world: World, subject: Subject) -> None:
    """The guest of the VM that is destroyed may run on, if its host did not hear of it."""
    world.cloud.call("destroyVirtualMachine", id=subject.owner["id"])
    world.cloud.call("attachVolume", id=subject.volume["id"], virtualmachineid=subject.vm["id"])


def _inherited(world: World, subject: Subject) -> None:
    assert looks.reread(world, subject.owner)["state"] == "Destroyed", "the VM that had the volume is not destroyed"
    _attached(world, subject)


def _not_inherited(world: World, subject: Subject) -> None:
    owner = looks.reread(world, subject.owner)
    volume = looks.reread_volume(world, subject.volume)
    if volume.get("virtualmachineid") != owner["id"]:
        free(world, subject)
    elif owner["state"] == "Running":
        looks.fully_attached(world, owner, volume)
        guest_reads(world, owner, volume)
    else:
        looks.fully_detached(world, volume)


def detach(world: World, subject: Subject) -> None:
    world.cloud.call("detachVolume", id=subject.volume["id"])


def _detached(world: World, subject: Subject) -> None:
    free(world, subject)
    vm = running(world, subject, subject.vm)
    guest_reads(world, vm, steps.attach(world, subject.volume, vm))
    steps.detach(world, subject.volume)


def start(world: World, subject: Subject) -> None:
    world.cloud.call("startVirtualMachine", id=subject.vm["id"])


def _started(world: World, subject: Subject) -> None:
    vm = running(world, subject, subject.vm)
    looks.fully_attached(world, vm, steps.root_volume(world, str(vm["id"])))
    _attached(world, subject)


def stop(world: World, subject: Subject) -> None:
    world.cloud.call("stopVirtualMachine", id=subject.vm["id"])


def _stopped(world: World, subject: Subject) -> None:
    vm = looks.reread(world, subject.vm)
    assert vm["state"] == "Stopped", vm
    root = steps.root_volume(world, str(vm["id"]))
    for volume in (root, looks.reread_volume(world, subject.volume)):
        looks.fully_detached(world, volume)
        looks.has_vm_tags(world, vm, volume)
    steps.start(world, vm)
    _attached(world, subject)


def _still_runs(world: World, subject: Subject) -> None:
    assert looks.reread(world, subject.vm)["state"] == "Running", "it does not run"
    _attached(world, subject)


def _not_started(world: World, subject: Subject) -> None:
    vm = looks.reread(world, subject.vm)
    assert vm["state"] == "Stopped", vm
    looks.fully_detached(world, looks.reread_volume(world, subject.volume))


def _expunge(world: World, subject: Subject) -> None:
    world.cloud.call("destroyVirtualMachine", id=subject.vm["id"], expunge=True)


def _vm_with_root(world: World) -> Subject:
    subject = vm_with_marked_volume(world)
    subject.vm = {**subject.vm, "root": steps.root_volume(world, str(subject.vm["id"]))}
    return subject


def _expunged(world: World, subject: Subject) -> None:
    assert not steps.vm_exists(world, str(subject.vm["id"])), f"VM {subject.vm['id']} is still listed"
    looks.gone(world, subject.vm["root"])
    free(world, subject)
    looks.has_tags(world, subject.volume, cvm="", disk="")
    other = steps.booted_vm(world)
    guest_reads(world, other, steps.attach(world, subject.volume, other))
    steps.detach(world, subject.volume)


def _not_expunged(world: World, subject: Subject) -> None:
    """A VM can be destroyed and not expunged, or stopped and not destroyed: each is a state of its own."""
    vm = looks.reread(world, subject.vm)
    assert vm["state"] in ("Running", "Stopped", "Destroyed"), vm
    root = steps.root_volume(world, str(vm["id"]))
    assert looks.on_storpool(world, root)["size"] == root["size"], root


def _delete(world: World, subject: Subject) -> None:
    world.cloud.call("deleteVolume", id=subject.volume["id"])


def _deleted(world: World, subject: Subject) -> None:
    assert not steps.volume_exists(world, str(subject.volume["id"])), f"volume {subject.volume['id']} is still listed"
    looks.gone(world, subject.volume)
    assert looks.reread(world, subject.vm)["state"] in ("Running", "Stopped")


def _delayed(world: World) -> Subject:
    world.cloud.call("updateConfiguration", name=DELETE_AFTER, value="86400")
    return _vm_and_marked_volume(world)


def _deleted_with_backup(world: World, subject: Subject) -> None:
    _deleted(world, subject)
    kept = delayed_snapshots(world)
    assert kept, "no snapshot of the deleted volume stays"
    assert all(item["size"] == subject.volume["size"] for item in kept), kept
    for item in kept:
        stored(world, str(item["globalId"]))


def _not_deleted(world: World, subject: Subject) -> None:
    """The volume is there with what was written to it."""
    volume = looks.reread_volume(world, subject.volume)
    if volume["state"] == "Destroy":
        return
    _detached(world, subject)


DISKS: tuple[Operation, ...] = (
    Operation("3.first-use", "the first attach of a DATA volume makes it", _first_use, attach, _created, free),
    Operation("4.hot", "attach a volume to a running VM", _vm_and_marked_volume, attach, _attached, free),
    Operation(
        "4.inherit",
        "destroy a VM with force and attach its volume to a VM on another host",
        _two_vms_one_marked_volume,
        inherit,
        _inherited,
        _not_inherited,
    ),
    Operation("4.start", "start a VM with two disks", _stopped_vm_with_marked_volume, start, _started, _not_started),
    Operation("5.hot", "detach a volume from a running VM", vm_with_marked_volume, detach, _detached, _attached),
    Operation("5.stop", "stop a VM with two disks", vm_with_marked_volume, stop, _stopped, _still_runs),
    Operation("7.expunge", "destroy and expunge a running VM", _vm_with_root, _expunge, _expunged, _not_expunged),
    Operation("8.delete", "delete a DATA volume", _vm_and_marked_volume, _delete, _deleted, _not_deleted),
    Operation(
        "8.delayed",
        "delete a DATA volume that leaves a snapshot",
        _delayed,
        _delete,
        _deleted_with_backup,
        _not_deleted,
    ),
)
