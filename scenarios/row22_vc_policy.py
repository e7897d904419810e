"""Row 22: VM vc-policy tag set. Seen from outside: spec/action-table.md row 22."""

from __future__ import annotations

from harness.observers import Json, World
from scenarios.looks import (
    attached_only_to,
    global_id,
    guest_sees,
    has_tags,
    has_vm_tags,
    refused,
    reread,
    reread_volume,
    tags,
)
from scenarios.registry import scenario
from scenarios.steps import (
    MISSING,
    attach,
    booted_vm,
    data_volume,
    deploy,
    deploy_parameters,
    detach,
    disk_offering,
    host_of,
    idle_template,
    idle_vm,
    many,
    one,
    root_volume,
    running_vm,
    start,
    stop,
    tag_vm,
    tags_of_vm,
    untag_vm,
    vm_by_id,
)

LONGEST = "Daily_2.keep-7:" + "x" * 184
"""199 characters, of every kind that a StorPool tag takes."""


def disks_of(world: World, vm: Json) -> list[Json]:
    return many(world.cloud.call("listVolumes", virtualmachineid=vm["id"], listall=True), "volume")


def has_policy(world: World, vm: Json, value: str) -> None:
    """CloudStack shows the policy of the VM, and every disk of it has the same on StorPool."""
    with world.check(f"CloudStack: the VM's vc-policy is {value!r}"):
        assert tags_of_vm(world, vm).get("vc-policy", "") == value, tags_of_vm(world, vm)
    with world.check(f"StorPool: vc-policy {value!r} on every disk of the VM"):
        for disk in disks_of(world, vm):
            has_tags(world, disk, vc_policy=value)


@scenario(22, "running", "a policy set on a running VM is on every disk of it, and nothing else changes")
def running(world: World) -> None:
    vm = booted_vm(world)
    boot = world.guest(str(vm["id"])).boot_id()
    disks = [root_volume(world, str(vm["id"]))]
    disks += [attach(world, data_volume(world, offering_id=disk_offering(world)), vm) for _ in range(2)]
    before = [tags(world, disk) for disk in disks]
    tag_vm(world, vm, vc_policy="daily")
    has_policy(world, vm, "daily")
    with world.check("the disks' other tags are as before"):
        assert [tags(world, disk) for disk in disks] == [{**old, "vc-policy": "daily"} for old in before]
    with world.check("the disks are attached as before, the guest runs on and sees them"):
        for disk in disks:
            attached_only_to(world, disk, host_of(world, vm))
            guest_sees(world, vm, disk)
        assert world.guest(str(vm["id"])).boot_id() == boot


@scenario(22, "stopped", "a policy set on a stopped VM is on every disk, and stays when it starts and stops")
def stopped(world: World) -> None:
    vm = booted_vm(world)
    attach(world, data_volume(world), vm)
    vm = stop(world, vm)
    tag_vm(world, vm, vc_policy="hourly")
    has_policy(world, vm, "hourly")
    vm = start(world, vm)
    has_policy(world, vm, "hourly")
    world.guest(str(vm["id"])).boot_id()
    has_policy(world, stop(world, vm), "hourly")


@scenario(22, "attached-later", "disks attached later have the policy, detached ones have it no more")
def attached_later(world: World) -> None:
    vm = idle_vm(world)
    offering = disk_offering(world)
    used = detach(world, attach(world, data_volume(world, offering_id=offering), vm))
    tag_vm(world, vm, vc_policy="daily")
    with world.check("a disk that the VM had before has no policy"):
        has_tags(world, used, vc_policy="", cvm="")
    attach(world, data_volume(world, offering_id=offering), vm)
    attach(world, used, vm)
    has_policy(world, vm, "daily")
    detach(world, used)
    with world.check("detached again: no policy"):
        has_tags(world, used, vc_policy="", cvm="", uuid=str(used["id"]))
    attach(world, used, stop(world, vm))
    has_policy(world, vm, "daily")


@scenario(22, "never-used", "a VM with disks that are on no pool yet takes a policy, and they have it (#6878)")
def never_used(world: World) -> None:
    vm = deploy(world, idle_template(world), startvm=False, diskofferingid=disk_offering(world, disksize=1))
    with world.check("no disk is on a pool"):
        assert all("path" not in disk for disk in disks_of(world, vm)), disks_of(world, vm)
    tag_vm(world, vm, vc_policy="daily")
    start(world, vm)
    with world.check("the VM has two disks"):
        assert len(disks_of(world, vm)) == 2
    has_policy(world, vm, "daily")


@scenario(22, "while-deploying", "a policy set while the VM is being deployed is on its disks")
def while_deploying(world: World) -> None:
    parameters = deploy_parameters(
        world, idle_template(world), diskofferingid=disk_offering(world, disksize=1), startvm=True
    )
    job = world.cloud.start("deployVirtualMachine", **parameters)
    listed = world.cloud.call("listVirtualMachines", name=parameters["name"], listall=True)
    tag_vm(world, one(listed, "virtualmachine"), vc_policy="daily")
    vm = vm_by_id(world, str(one(world.cloud.wait(job), "virtualmachine")["id"]))
    has_policy(world, vm, "daily")


@scenario(22, "each-vm-its-own", "each VM's disks have the policy of that VM, also a disk that moves")
def each_vm_its_own(world: World) -> None:
    template_id = idle_template(world)
    first, second, bystander = (deploy(world, template_id) for _ in range(3))
    data = attach(world, data_volume(world), first)
    tag_vm(world, first, second, vc_policy="daily")
    has_policy(world, first, "daily")
    has_policy(world, second, "daily")
    has_policy(world, bystander, "")
    tag_vm(world, bystander, vc_policy="weekly")
    world.guest(str(first["id"])).ready()
    attach(world, detach(world, data), bystander)
    for vm, value in ((first, "daily"), (second, "daily"), (bystander, "weekly")):
        has_policy(world, vm, value)


@scenario(22, "changed", "a policy is changed by deleting the tag and setting it anew")
def changed(world: World) -> None:
    vm = running_vm(world)
    attach(world, data_volume(world), vm)
    tag_vm(world, vm, vc_policy="daily")
    untag_vm(world, vm, vc_policy="")
    tag_vm(world, vm, vc_policy=LONGEST)
    has_policy(world, vm, LONGEST)


@scenario(22, "other-tags", "other tags of a VM stay in CloudStack")
def other_tags(world: World) -> None:
    vm = running_vm(world)
    root = root_volume(world, str(vm["id"]))
    before = tags(world, root)
    tag_vm(world, vm, owner="nobody", VC_POLICY="daily")
    with world.check("no tag of StorPool changed"):
        assert tags(world, root) == before, tags(world, root)
    tag_vm(world, vm, room="5", vc_policy="daily")
    with world.check("of two tags in one request StorPool has the policy only"):
        assert tags(world, root) == {**before, "vc-policy": "daily"}, tags(world, root)


@scenario(22, "not-a-storpool-tag", "a policy that StorPool cannot hold stays in CloudStack and harms nothing")
def not_a_storpool_tag(world: World) -> None:
    vm = idle_vm(world)
    tag_vm(world, vm, vc_policy="every day, twice!")
    data = attach(world, data_volume(world), vm)
    with world.check("no disk has a policy; their other tags are right"):
        for disk in (root_volume(world, str(vm["id"])), data):
            has_tags(world, disk, vc_policy="")
            has_vm_tags(world, vm, disk)
    untag_vm(world, vm, vc_policy="")
    tag_vm(world, vm, vc_policy="daily")
    has_policy(world, vm, "daily")


@scenario(22, "refusals", "what cannot be tagged is refused with a reason, and nothing changes")
def refusals(world: World) -> None:
    vm = running_vm(world)
    data = attach(world, data_volume(world), vm)
    tag_vm(world, vm, vc_policy="daily")
    with refused(world, "a policy on a VM that has one", 431, 530, saying="vc-policy"):
        tag_vm(world, vm, vc_policy="weekly")
    with refused(world, "a VM that does not exist", 431, 530):
        tag_vm(world, {"id": MISSING}, vc_policy="daily")
    with refused(world, "one VM that exists and one that does not", 431, 530):
        tag_vm(world, vm, {"id": MISSING}, vc_policy="weekly")
    with refused(world, "no tag at all", 431, 530):
        tag_vm(world, vm)
    with refused(world, "a kind of resource that CloudStack does not know", 431, 530):
        world.cloud.call(
            "createTags",
            **{"resourcetype": "Sofa", "resourceids": vm["id"], "tags[0].key": "vc-policy", "tags[0].value": "x"},
        )
    has_policy(world, vm, "daily")
    with world.check("the VM runs on, its disk as before"):
        assert reread(world, vm)["state"] == "Running"
        assert global_id(reread_volume(world, data)) == global_id(data)
