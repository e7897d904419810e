"""Operations on what VMs and volumes are given: size and offering (row 15, qos), the policy of a VM (rows 22, 23)."""

from __future__ import annotations

from harness.faults.marks import guest_reads, mark
from harness.faults.operation import Operation, Subject, running
from harness.observers import Json, World
from scenarios import looks, steps
from scenarios.row22_vc_policy import has_policy

POLICY = "daily"


def _vm_with_data(world: World) -> Subject:
    vm = steps.booted_vm(world)
    return Subject(vm=vm, volume=steps.attach(world, steps.data_volume(world), vm))


def _vm_with_policy(world: World) -> Subject:
    subject = _vm_with_data(world)
    steps.tag_vm(world, subject.vm, vc_policy=POLICY)
    return subject


def _set_policy(world: World, subject: Subject) -> None:
    steps.tag_vm(world, subject.vm, vc_policy=POLICY)


def _policy_set(world: World, subject: Subject) -> None:
    has_policy(world, subject.vm, POLICY)
    _disk_is_the_vms(world, subject)


def _delete_policy(world: World, subject: Subject) -> None:
    steps.untag_vm(world, subject.vm, vc_policy="")


def _policy_deleted(world: World, subject: Subject) -> None:
    has_policy(world, subject.vm, "")
    _disk_is_the_vms(world, subject)


def _disk_is_the_vms(world: World, subject: Subject) -> None:
    volume = looks.reread_volume(world, subject.volume)
    assert volume.get("virtualmachineid") == subject.vm["id"], f"volume is not attached: {volume}"
    looks.has_vm_tags(world, subject.vm, volume)


def _vm_with_marked_volume(world: World, size: int) -> Subject:
    vm = steps.booted_vm(world)
    volume = steps.attach(world, steps.data_volume(world, size), vm)
    mark(world, vm, volume)
    return Subject(vm=vm, volume=volume)


def _small(world: World) -> Subject:
    return _vm_with_marked_volume(world, 1)


def _large(world: World) -> Subject:
    return _vm_with_marked_volume(world, 2)


def _small_and_stopped(world: World) -> Subject:
    subject = _small(world)
    subject.vm = steps.stop(world, subject.vm)
    return subject


def _small_with_offering(world: World) -> Subject:
    subject = _small(world)
    subject.offering_id = steps.disk_offering(world, disksize=2, maxiops=700, miniops=100)
    return subject


def _grow(world: World, subject: Subject) -> None:
    steps.resize(world, subject.volume, 2)


def _grow_with_limits(world: World, subject: Subject) -> None:
    steps.resize(world, subject.volume, diskofferingid=subject.offering_id)


def _shrink(world: World, subject: Subject) -> None:
    steps.resize(world, subject.volume, 1, shrinkok=True)


def _is_large(world: World, subject: Subject) -> None:
    _has_size(world, subject, 2)


def _is_large_and_limited(world: World, subject: Subject) -> None:
    _has_size(world, subject, 2)
    assert looks.on_storpool(world, subject.volume)["iops"] == 700, "the limit is not the new offering's"


def _is_small(world: World, subject: Subject) -> None:
    _has_size(world, subject, 1)
    assert looks.on_storpool(world, subject.volume)["iops"] == "-", "there is a limit"


def _has_size(world: World, subject: Subject, size: int) -> None:
    """Whoever is asked says so: CloudStack, StorPool, and with the VM running its host and guest."""
    volume = looks.reread_volume(world, subject.volume)
    seen = (volume["state"], volume["size"], looks.on_storpool(world, volume)["size"])
    assert seen == ("Ready", size << 30, size << 30), f"state, CloudStack's and StorPool's size: {seen}"
    if subject.vm["state"] == "Stopped":
        subject.vm = steps.stop(world, _looked_at(world, steps.start(world, subject.vm), volume))
    else:
        _looked_at(world, running(world, subject, subject.vm), volume)


def _looked_at(world: World, vm: Json, volume: Json) -> Json:
    looks.fully_attached(world, vm, volume)
    guest_reads(world, vm, volume)
    return vm


OFFERINGS: tuple[Operation, ...] = (
    Operation("15.grow", "grow a volume of a running VM", _small, _grow, _is_large, _is_small),
    Operation(
        "15.offering",
        "grow a volume of a running VM with the limits of a new offering",
        _small_with_offering,
        _grow_with_limits,
        _is_large_and_limited,
        _is_small,
    ),
    Operation("15.stopped", "grow a volume of a stopped VM", _small_and_stopped, _grow, _is_large, _is_small),
    Operation("15.shrink", "shrink a volume of a running VM", _large, _shrink, _is_small, _is_large),
    Operation(
        "22.set", "set the policy of a VM with two disks", _vm_with_data, _set_policy, _policy_set, _policy_deleted
    ),
    Operation(
        "23.delete",
        "delete the policy of a VM with two disks",
        _vm_with_policy,
        _delete_policy,
        _policy_deleted,
        _policy_set,
    ),
)
