"""Operations on what VMs and volumes are given: the policy of a VM (rows 22, 23)."""

from __future__ import annotations

from harness.faults.operation import Operation, Subject
from harness.observers import World
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


OFFERINGS: tuple[Operation, ...] = (
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
