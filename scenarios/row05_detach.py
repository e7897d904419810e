"""Row 5: detach ROOT/DATA (stop VM, detach volume). Seen from outside: spec/action-table.md row 5."""

from __future__ import annotations

from harness.observers import CloudApiError, Host, Json, World
from scenarios.looks import (
    attached_only_to,
    device_only_on,
    disk_in_domain,
    disk_not_in_domain,
    fails,
    fully_attached,
    fully_detached,
    guest_does_not_see,
    has_tags,
    has_vm_tags,
    refused,
    reread,
    reread_volume,
    serial,
    tags,
)
from scenarios.registry import scenario
from scenarios.steps import (
    MISSING,
    attach,
    booted_vm,
    data_volume,
    deploy,
    detach,
    detail,
    disk_offering,
    host_of,
    idle_vm,
    root_volume,
    running_vm,
    setting,
    shared_template,
    start,
    stop,
    tag_vm,
)


def off(host: Host, vm: Json) -> bool:
    """Whether the VM's domain no longer runs on the host; a domain that stays defined is shut off or crashed."""
    return host.domains().get(str(vm["instancename"]), "shut off") in ("shut off", "crashed")


def stopped_after(world: World, vm: Json) -> None:
    """CloudStack comes to know that the VM is off: by its own reports, or because somebody asks it to stop."""
    if reread(world, vm)["state"] != "Stopped":
        try:
            world.cloud.call("stopVirtualMachine", id=vm["id"])
        except CloudApiError:
            pass  # the report of the host may have won the race; the wait below judges
    world.wait_until("the VM is Stopped", lambda: reread(world, vm)["state"] == "Stopped", 120)


@scenario(5, "stop", "stopping a VM detaches its disks and keeps their tags")
def stop_keeps_tags(world: World) -> None:
    vm = booted_vm(world)
    root, data = root_volume(world, str(vm["id"])), attach(world, data_volume(world), vm)
    host = host_of(world, vm)
    stop(world, vm)
    with world.check("the domain is off"):
        assert off(host, vm), host.domains()
    for volume in (root, data):
        fully_detached(world, volume)
        with world.check("a stopped VM is still a VM: tags stay"):
            has_vm_tags(world, vm, volume)
    with world.check("CloudStack: Stopped, disks still the VM's"):
        assert reread(world, vm)["state"] == "Stopped"
        assert reread_volume(world, data)["virtualmachineid"] == vm["id"]


@scenario(5, "forced-stop", "a forced stop detaches as well")
def forced_stop(world: World) -> None:
    vm = running_vm(world)
    root = root_volume(world, str(vm["id"]))
    world.cloud.call("stopVirtualMachine", id=vm["id"], forced=True)
    fully_detached(world, root)
    with world.check("CloudStack: Stopped"):
        assert reread(world, vm)["state"] == "Stopped"


@scenario(5, "hot", "detaching a volume from a running VM")
def hot_detach(world: World) -> None:
    vm = booted_vm(world)
    guest = world.guest(str(vm["id"]))
    boot = guest.boot_id()
    host = host_of(world, vm)
    data = attach(world, data_volume(world), vm)
    after = detach(world, data)
    with world.check("gone from the guest"):
        guest_does_not_see(world, vm, data)
    with world.check("gone from the domain"):
        disk_not_in_domain(host, vm, data)
    fully_detached(world, data)
    with world.check("CloudStack: Ready, no VM, path as before"):
        assert (after["state"], after["path"]) == ("Ready", data["path"]), after
        assert "virtualmachineid" not in after, after
    with world.check("tags cvm, disk, vc-policy cleared, uuid and cs kept"):
        has_tags(world, data, cvm="", disk="", vc_policy="", uuid=str(data["id"]), cs="volume")
    with world.check("the guest runs on, not restarted"):
        assert guest.boot_id() == boot
    with world.check("ROOT was not touched"):
        root = root_volume(world, str(vm["id"]))
        attached_only_to(world, root, host)
        has_vm_tags(world, vm, root)


@scenario(5, "keeps-tier", "detaching clears the VM's policy and keeps the volume's tier")
def keeps_tier(world: World) -> None:
    vm = idle_vm(world)
    tag_vm(world, vm, vc_policy="daily")
    offering = disk_offering(world)
    detail(world, "DiskOffering", offering, "SP_QOSCLASS", "tier1")
    data = attach(world, data_volume(world, offering_id=offering), vm)
    with world.check("attached: tier and policy"):
        has_tags(world, data, qc="tier1", vc_policy="daily")
    detach(world, data)
    with world.check("detached: tier stays, policy goes"):
        has_tags(world, data, qc="tier1", vc_policy="", cvm="", disk="", uuid=str(data["id"]))


@scenario(5, "from-stopped", "detaching from a stopped VM clears the tags")
def detach_from_stopped(world: World) -> None:
    vm = idle_vm(world)
    data = attach(world, data_volume(world), vm)
    stop(world, vm)
    after = detach(world, data)
    fully_detached(world, data)
    with world.check("CloudStack: no VM"):
        assert "virtualmachineid" not in after, after
    with world.check("tags cvm, disk cleared, uuid kept"):
        has_tags(world, data, cvm="", disk="", uuid=str(data["id"]))
    with world.check("the VM starts without it"):
        vm = start(world, vm)
        disk_not_in_domain(host_of(world, vm), vm, data)


@scenario(5, "other-vm", "a volume moves to another VM with its bytes (#10587)")
def moves_to_other_vm(world: World) -> None:
    template_id = shared_template(world)
    first, second = deploy(world, template_id), deploy(world, template_id)
    data = attach(world, data_volume(world), first)
    mark = b"from the first VM".ljust(4096, b"$")
    guest = world.guest(str(first["id"]))
    guest.boot_id()
    guest.write(serial(data), 4 << 20, mark)
    detach(world, data)
    world.guest(str(second["id"])).boot_id()
    moved = attach(world, data, second)
    fully_attached(world, second, moved)
    with world.check("the second guest reads what the first wrote"):
        seen = world.guest(str(second["id"])).read(serial(data), 4 << 20, len(mark))
        assert seen == mark, f"read {seen[:32]!r}"


@scenario(5, "guest-off", "after a guest shut itself down nothing stays attached")
def guest_shut_down(world: World) -> None:
    vm = booted_vm(world)
    host = host_of(world, vm)
    root, data = root_volume(world, str(vm["id"])), attach(world, data_volume(world), vm)
    world.guest(str(vm["id"])).poweroff()
    world.wait_until("the domain is off", lambda: off(host, vm))
    stopped_after(world, vm)
    for volume in (root, data):
        fully_detached(world, volume)
        with world.check("tags stay"):
            has_vm_tags(world, vm, volume)
    with world.check("it starts again"):
        assert start(world, vm)["state"] == "Running"


@scenario(5, "qemu-died", "after QEMU died nothing stays attached")
def qemu_died(world: World) -> None:
    vm = running_vm(world)
    host = host_of(world, vm)
    root, data = root_volume(world, str(vm["id"])), attach(world, data_volume(world), vm)
    host.kill_qemu(str(vm["instancename"]))
    world.wait_until("the domain is off", lambda: off(host, vm))
    stopped_after(world, vm)
    for volume in (root, data):
        fully_detached(world, volume)
    with world.check("it starts again, with both disks"):
        vm = start(world, vm)
        attached_only_to(world, root, host_of(world, vm))
        attached_only_to(world, data, host_of(world, vm))


@scenario(5, "guest-holds-on", "a guest that does not let go: a clear error, and nothing changed (#13014, #6508)")
def guest_holds_on(world: World) -> None:
    vm = booted_vm(world)
    host = host_of(world, vm)
    data = attach(world, data_volume(world), vm)
    before = tags(world, data)
    host.suspend(str(vm["instancename"]))
    try:
        with setting(world, "wait.detach.device", "4000", "10000"):
            error = fails(lambda: world.cloud.call("detachVolume", id=data["id"]))
        with world.check("the error names host and device, says why, and how long the guest had (wait.detach.device)"):
            assert host.name in error.text and str(data["path"]) in error.text, error.text
            assert "suspended" in error.text and "within 4 s" in error.text, error.text
        with world.check("StorPool: still attached"):
            attached_only_to(world, data, host)
        with world.check("host: device still there"):
            device_only_on(world, data, host)
        with world.check("domain: disk still there"):
            disk_in_domain(host, vm, data)
        with world.check("CloudStack: still the VM's"):
            now = reread_volume(world, data)
            assert (now["state"], now.get("virtualmachineid")) == ("Ready", vm["id"]), now
        with world.check("tags as before"):
            assert tags(world, data) == before
    finally:
        host.resume(str(vm["instancename"]))
    detach(world, data)
    with world.check("once the guest runs again, it can be detached"):
        disk_not_in_domain(host, vm, data)
    fully_detached(world, data)


@scenario(5, "refusals", "what cannot be detached is refused with a reason, and nothing changes")
def refusals(world: World) -> None:
    vm = idle_vm(world)
    data = data_volume(world)
    with refused(world, "a volume that was never attached", 431, 530):
        world.cloud.call("detachVolume", id=data["id"])
    with refused(world, "a volume that does not exist", 431):
        world.cloud.call("detachVolume", id=MISSING)
    with refused(world, "the ROOT volume of a running VM", 431, 530):
        world.cloud.call("detachVolume", id=root_volume(world, str(vm["id"]))["id"])
    with refused(world, "stopping a VM that does not exist", 431):
        world.cloud.call("stopVirtualMachine", id=MISSING)
    used = attach(world, data, vm)
    detach(world, used)
    with refused(world, "detaching twice", 431, 530):
        world.cloud.call("detachVolume", id=data["id"])
