"""Row 23: VM vc-policy tag deleted. Seen from outside: spec/action-table.md row 23."""

from __future__ import annotations

from harness.observers import World
from scenarios.looks import guest_sees, has_tags, refused, tags
from scenarios.registry import scenario
from scenarios.row22_vc_policy import disks_of, has_policy
from scenarios.steps import (
    MISSING,
    attach,
    booted_vm,
    data_volume,
    deploy,
    detach,
    disk_offering,
    idle_template,
    idle_vm,
    root_volume,
    running_vm,
    start,
    stop,
    tag_vm,
    tags_of_vm,
    untag_vm,
)


@scenario(23, "running", "a deleted policy is gone from every disk of a running VM, and nothing else changes")
def running(world: World) -> None:
    vm = booted_vm(world)
    boot = world.guest(str(vm["id"])).boot_id()
    attach(world, data_volume(world), vm)
    before = [tags(world, disk) for disk in disks_of(world, vm)]
    tag_vm(world, vm, vc_policy="daily", owner="nobody")
    has_policy(world, vm, "daily")
    untag_vm(world, vm, vc_policy="")
    has_policy(world, vm, "")
    with world.check("the disks' tags are as before the policy"):
        assert [tags(world, disk) for disk in disks_of(world, vm)] == before
    with world.check("the VM's other tag stays"):
        assert tags_of_vm(world, vm) == {"owner": "nobody"}, tags_of_vm(world, vm)
    with world.check("the guest runs on and sees its disks"):
        for disk in disks_of(world, vm):
            guest_sees(world, vm, disk)
        assert world.guest(str(vm["id"])).boot_id() == boot


@scenario(23, "stopped", "a policy deleted while the VM is stopped is gone, and stays so when it starts")
def stopped(world: World) -> None:
    vm = idle_vm(world)
    attach(world, data_volume(world), vm)
    tag_vm(world, vm, vc_policy="daily")
    vm = stop(world, vm)
    untag_vm(world, vm, vc_policy="daily")
    has_policy(world, vm, "")
    has_policy(world, start(world, vm), "")


@scenario(23, "attached-later", "disks attached after the policy was deleted have none")
def attached_later(world: World) -> None:
    vm = idle_vm(world)
    offering = disk_offering(world)
    tag_vm(world, vm, vc_policy="daily")
    used = detach(world, attach(world, data_volume(world, offering_id=offering), vm))
    untag_vm(world, vm, vc_policy="")
    attach(world, used, vm)
    attach(world, data_volume(world, offering_id=offering), vm)
    has_policy(world, vm, "")


@scenario(23, "never-used", "a policy deleted before the VM's disks are on a pool leaves no trace")
def never_used(world: World) -> None:
    vm = deploy(world, idle_template(world), startvm=False, diskofferingid=disk_offering(world, disksize=1))
    tag_vm(world, vm, vc_policy="daily")
    untag_vm(world, vm, vc_policy="")
    has_policy(world, start(world, vm), "")


@scenario(23, "all-tags", "deleting all tags of a VM deletes its policy, and no other VM's")
def all_tags(world: World) -> None:
    template_id = idle_template(world)
    vm, other, third = (deploy(world, template_id) for _ in range(3))
    tag_vm(world, vm, other, third, vc_policy="daily", owner="nobody")
    untag_vm(world, vm)
    has_policy(world, vm, "")
    with world.check("the VM has no tag"):
        assert tags_of_vm(world, vm) == {}, tags_of_vm(world, vm)
    has_policy(world, other, "daily")
    untag_vm(world, other, third, vc_policy="daily")
    has_policy(world, other, "")
    has_policy(world, third, "")


@scenario(23, "other-tags", "deleting another tag of a VM leaves its policy")
def other_tags(world: World) -> None:
    vm = running_vm(world)
    tag_vm(world, vm, vc_policy="daily", owner="nobody")
    untag_vm(world, vm, owner="")
    has_policy(world, vm, "daily")


@scenario(23, "refusals", "what cannot be deleted is refused with a reason, and nothing changes")
def refusals(world: World) -> None:
    vm = running_vm(world)
    with refused(world, "a policy that the VM does not have", 431, 530):
        untag_vm(world, vm, vc_policy="")
    tag_vm(world, vm, vc_policy="daily")
    with refused(world, "a policy of another value", 431, 530, saying="Unable to find any tags"):
        untag_vm(world, vm, vc_policy="weekly")
    with refused(world, "a VM that does not exist", 431, 530):
        untag_vm(world, {"id": MISSING}, vc_policy="")
    has_policy(world, vm, "daily")
    untag_vm(world, vm, vc_policy="daily")
    with world.check("no trace on StorPool"):
        has_tags(world, root_volume(world, str(vm["id"])), vc_policy="")
    with refused(world, "deleting it twice", 431, 530):
        untag_vm(world, vm, vc_policy="daily")
