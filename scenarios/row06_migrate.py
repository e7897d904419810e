"""Row 6: migrate VM. Seen from outside: spec/action-table.md row 6."""

from __future__ import annotations

from harness.observers import CloudApiError, Host, Json, World
from scenarios.isos import attach_iso, detach_iso, iso
from scenarios.looks import (
    attached_nowhere,
    attachments_of,
    device_nowhere,
    fails,
    fully_attached,
    fully_detached,
    global_id,
    guest_does_not_see,
    guest_sees,
    refused,
    reread,
    reread_volume,
    tags,
)
from scenarios.migrating import COUNTER_AT, Counter, host_id, migrate, other_host, start_migrating
from scenarios.registry import scenario
from scenarios.steps import (
    MISSING,
    attach,
    booted_vm,
    data_volume,
    detach,
    disk_offering,
    host_of,
    many,
    root_volume,
    running_vm,
    setting,
    start,
    stop,
    tag_vm,
)
from scenarios.storage_migration import NFS_TAG, nfs_pool

MIGRATE_WAIT = "migratewait"


def volumes_of(world: World, vm: Json) -> list[Json]:
    return many(world.cloud.call("listVolumes", virtualmachineid=vm["id"], listall=True), "volume")


def vm_with_data(world: World) -> tuple[Json, Json, Host, Host]:
    """A VM whose guest is up, a DATA volume of it, the host that it runs on, and another one."""
    vm = booted_vm(world)
    return vm, attach(world, data_volume(world), vm), host_of(world, vm), other_host(world, vm)


def runs_only_on(world: World, vm: Json, host: Host) -> None:
    """In CloudStack and on hosts, with every disk attached there and nowhere else."""
    vm, name = reread(world, vm), str(vm["instancename"])
    with world.check(f"CloudStack: Running on {host.name}"):
        assert (vm["state"], vm["hostname"]) == ("Running", host.name), vm
    with world.check("one domain, on that host"):
        seen = {each.name: each.domains().get(name) for each in world.hosts}
        assert seen == {each.name: "running" if each.name == host.name else None for each in world.hosts}, seen
    for volume in volumes_of(world, vm):
        fully_attached(world, vm, volume)


def in_the_middle(world: World, vm: Json, data: Json, destination: Host) -> tuple[str, Counter]:
    """A slow migration whose destination waits for the memory: its job, and the counter that the guest writes."""
    counter = Counter(world, vm, data)
    counter.write()
    host_of(world, vm).slow_migration(str(vm["instancename"]))
    job = start_migrating(world, vm, destination)
    world.wait_until("the destination waits", lambda: destination.domains().get(str(vm["instancename"])) == "paused")
    return job, counter


def job_fails(world: World, job: str) -> CloudApiError:
    return fails(lambda: world.cloud.wait(job))


@scenario(6, "live", "a VM is migrated under load: never down, and every write is there")
def live(world: World) -> None:
    vm, data, source, destination = vm_with_data(world)
    guest = world.guest(str(vm["id"]))
    boot, before = guest.boot_id(), tags(world, data)
    counter = Counter(world, vm, data)
    counter.write()
    with world.check("CloudStack offers the other host"):
        hosts = many(world.cloud.call("findHostsForMigration", virtualmachineid=vm["id"]), "host")
        offered = [(host["name"], host["suitableformigration"], host["requiresStorageMotion"]) for host in hosts]
        assert offered == [(destination.name, True, False)], offered
    job = start_migrating(world, vm, destination)
    counter.write_until_ended(job)
    world.cloud.wait(job)
    runs_only_on(world, vm, destination)
    with world.check("the guest was never down"):
        assert guest.boot_id() == boot
    with world.check("what it wrote before and during is there"):
        counter.is_there()
        seen = destination.read_device(str(data["path"]), COUNTER_AT, len(counter.written))
        assert seen == counter.written, "the new host's device does not show what the guest wrote"
    with world.check("nothing is left of it at the old host"):
        assert str(vm["instancename"]) not in source.domains()
    with world.check("the volume's path and tags are as before"):
        now = reread_volume(world, data)
        assert (now["path"], tags(world, now)) == (data["path"], before), now


@scenario(6, "disks", "a VM with several disks is migrated, given and relieved of disks there, and migrated back")
def disks(world: World) -> None:
    vm = booted_vm(world)
    tag_vm(world, vm, vc_policy="daily")
    source, destination = host_of(world, vm), other_host(world, vm)
    first, second = (attach(world, data_volume(world), vm) for _ in range(2))
    counter = Counter(world, vm, second)
    counter.write()
    vm = migrate(world, vm, destination)
    runs_only_on(world, vm, destination)
    counter.is_there()
    with world.check("a disk is detached there"):
        first = detach(world, first)
        guest_does_not_see(world, vm, first)
        fully_detached(world, first)
    with world.check("a disk is attached there"):
        third = attach(world, data_volume(world), vm)
        fully_attached(world, vm, third)
        late = Counter(world, vm, third)
        late.write()
    vm = migrate(world, vm, source)
    runs_only_on(world, vm, source)
    counter.write()
    late.write()
    with world.check("every write is there"):
        counter.is_there()
        late.is_there()
    with world.check("tag vc-policy is on every disk"):
        seen = {str(v["name"]): tags(world, v).get("vc-policy") for v in volumes_of(world, vm)}
        assert set(seen.values()) == {"daily"} and len(seen) == 3, seen


@scenario(
    6,
    "then-stop",
    "a VM that was migrated is stopped and started, also with a disk on NFS: its disks leave its host (#6026, #6029)",
)
def then_stop(world: World) -> None:
    vm = booted_vm(world)
    data = attach(world, data_volume(world), vm)
    counter = Counter(world, vm, data)
    counter.write()
    nfs_pool(world)
    vm = migrate(world, vm, other_host(world, vm))
    root = root_volume(world, str(vm["id"]))
    other = attach(world, data_volume(world, offering_id=disk_offering(world, tags=NFS_TAG)), vm)
    vm = stop(world, vm)
    for volume in (root, data):
        fully_detached(world, volume)
    with world.check("no host has its domain"):
        seen = {host.name: host.domains().get(str(vm["instancename"]), "shut off") for host in world.hosts}
        assert set(seen.values()) == {"shut off"}, seen
    vm = start(world, vm)
    for volume in (root, data):
        fully_attached(world, vm, reread_volume(world, volume))
    guest_sees(world, vm, other)
    with world.check("what the guest wrote is there"):
        counter.is_there()


@scenario(6, "autoselect", "without a host, CloudStack takes one that will do")
def autoselect(world: World) -> None:
    vm = booted_vm(world)
    destination = other_host(world, vm)
    world.cloud.call("migrateVirtualMachine", virtualmachineid=vm["id"], autoselect=True)
    runs_only_on(world, vm, destination)


@scenario(
    6, "during", "what is asked of a VM that is being migrated is refused, and both hosts have its disks (#10093)"
)
def during(world: World) -> None:
    vm = booted_vm(world)
    source, destination = host_of(world, vm), other_host(world, vm)
    data, free = attach(world, data_volume(world), vm), data_volume(world)
    job, counter = in_the_middle(world, vm, data, destination)
    with world.check("CloudStack: Migrating"):
        world.wait_until("the VM is Migrating", lambda: reread(world, vm)["state"] == "Migrating")
    with world.check("every disk is attached read-write at both hosts"):
        both = sorted((host.client_id, "rw") for host in (source, destination))
        for volume in volumes_of(world, vm):
            seen = attachments_of(world, global_id(volume))
            assert seen == both, f"{volume['path']} is attached to {seen}"

    def turned_away(why: str, command: str, **parameters: str | int | bool) -> None:
        with world.check(f"refused: {why}"):
            error = fails(lambda: world.cloud.call(command, **parameters))
            assert error.code in (431, 530) and "Migrating" in error.text, f"{error.code}: {error.text}"

    turned_away("attaching a volume to it", "attachVolume", id=free["id"], virtualmachineid=vm["id"])
    turned_away("detaching a volume of it", "detachVolume", id=data["id"])
    again = {"virtualmachineid": vm["id"], "hostid": host_id(world, source)}
    turned_away("migrating it again", "migrateVirtualMachine", **again)
    turned_away("stopping it", "stopVirtualMachine", id=vm["id"])
    turned_away("destroying it", "destroyVirtualMachine", id=vm["id"])
    turned_away("changing the size of a volume of it", "resizeVolume", id=data["id"], size=2)
    counter.write()
    destination.kill_qemu(str(vm["instancename"]))
    job_fails(world, job)
    runs_only_on(world, vm, source)
    counter.is_there()


@scenario(6, "cut-destination", "a destination that cannot attach: a clear error, and nothing changes")
def cut_destination(world: World) -> None:
    vm, _, source, destination = vm_with_data(world)
    boot = world.guest(str(vm["id"])).boot_id()
    with destination.storpool_api_cut():
        error = fails(lambda: migrate(world, vm, destination))
        with world.check("the error names the host and StorPool"):
            assert destination.name in error.text and "storpool" in error.text.lower(), error.text
        runs_only_on(world, vm, source)
    with world.check("the guest was never down"):
        assert world.guest(str(vm["id"])).boot_id() == boot
    migrate(world, vm, destination)
    runs_only_on(world, vm, destination)


@scenario(6, "libvirt-refuses", "libvirt does not reach the destination: a clear error, and nothing is left there")
def libvirt_refuses(world: World) -> None:
    vm, data, source, destination = vm_with_data(world)
    counter = Counter(world, vm, data)
    with destination.libvirt_cut():
        job = start_migrating(world, vm, destination)
        counter.write_until_ended(job)
        error = job_fails(world, job)
        with world.check("the error names both hosts and says why"):
            assert destination.name in error.text and source.name in error.text, error.text
            assert "connect" in error.text.lower(), error.text
    runs_only_on(world, vm, source)
    with world.check("every write is there"):
        counter.is_there()
    migrate(world, vm, destination)
    runs_only_on(world, vm, destination)


@scenario(6, "destination-dies", "the destination's QEMU dies half-way: the guest runs on where it was")
def destination_dies(world: World) -> None:
    vm, data, source, destination = vm_with_data(world)
    boot = world.guest(str(vm["id"])).boot_id()
    job, counter = in_the_middle(world, vm, data, destination)
    destination.kill_qemu(str(vm["instancename"]))
    counter.write_until_ended(job)
    with world.check("the error says what happened"):
        error = job_fails(world, job)
        assert "migrat" in error.text and source.name in error.text, error.text
    runs_only_on(world, vm, source)
    with world.check("the guest was never down, and every write is there"):
        assert world.guest(str(vm["id"])).boot_id() == boot
        counter.is_there()


@scenario(6, "source-dies", "the source's QEMU dies half-way: the VM is off everywhere, and starts again")
def source_dies(world: World) -> None:
    vm, data, source, destination = vm_with_data(world)
    root = root_volume(world, str(vm["id"]))
    job, counter = in_the_middle(world, vm, data, destination)
    source.kill_qemu(str(vm["instancename"]))
    job_fails(world, job)
    world.wait_until("CloudStack: Stopped", lambda: reread(world, vm)["state"] == "Stopped", 180)
    for volume in (root, data):
        with world.check("attached nowhere"):
            attached_nowhere(world, volume)
            device_nowhere(world, volume)
    vm = start(world, vm)
    runs_only_on(world, vm, host_of(world, vm))
    with world.check("what was written before is there"):
        counter.is_there()


@scenario(6, "takes-too-long", "a migration that is not over in time is cancelled: nothing changes")
def takes_too_long(world: World) -> None:
    vm, data, source, destination = vm_with_data(world)
    with setting(world, MIGRATE_WAIT, "8", "3600"):
        job, counter = in_the_middle(world, vm, data, destination)
        counter.write_until_ended(job)
    with world.check("the error says why"):
        error = job_fails(world, job)
        assert any(words in error.text for words in ("8 s", "time", "did not answer within")), error.text
    runs_only_on(world, vm, source)
    counter.is_there()


@scenario(6, "destination-agent-away", "the destination's agent is away: a clear error, and nothing changes")
def destination_agent_away(world: World) -> None:
    vm, _, source, destination = vm_with_data(world)
    destination.kill_agent()
    try:
        error = fails(lambda: migrate(world, vm, destination))
        with world.check("the error names the host"):
            assert destination.name in error.text, error.text
    finally:
        destination.start_agent()
    runs_only_on(world, vm, source)
    world.wait_until("the host is Up again", lambda: _is_up(world, destination), 120)
    migrate(world, vm, destination)
    runs_only_on(world, vm, destination)


def _is_up(world: World, host: Host) -> bool:
    listed = many(world.cloud.call("listHosts", type="Routing"), "host")
    return any((item["name"], item["state"]) == (host.name, "Up") for item in listed)


@scenario(6, "source-agent-dies", "the source's agent dies half-way: the next one ends the migration")
def source_agent_dies(world: World) -> None:
    vm, data, source, destination = vm_with_data(world)
    boot = world.guest(str(vm["id"])).boot_id()
    job, counter = in_the_middle(world, vm, data, destination)
    source.kill_agent()
    try:
        counter.write()
    finally:
        source.start_agent()
    counter.write_until_ended(job)
    job_fails(world, job)
    world.wait_until("the VM is Running", lambda: reread(world, vm)["state"] == "Running", 120)
    runs_only_on(world, vm, source)
    with world.check("the guest was never down, and every write is there"):
        assert world.guest(str(vm["id"])).boot_id() == boot
        counter.is_there()


@scenario(6, "iso", "a VM with an ISO attached is not migrated; without it, it is")
def with_iso(world: World) -> None:
    vm = booted_vm(world)
    destination = other_host(world, vm)
    shown = iso(world)
    attach_iso(world, shown, vm)
    with refused(world, "a VM with an ISO attached", 431, 530):
        world.cloud.call("migrateVirtualMachine", virtualmachineid=vm["id"], hostid=host_id(world, destination))
    with world.check("no host is offered"):
        hosts = many(world.cloud.call("findHostsForMigration", virtualmachineid=vm["id"]), "host")
        assert [host["suitableformigration"] for host in hosts] == [False], hosts
    detach_iso(world, vm)
    migrate(world, vm, destination)
    runs_only_on(world, vm, destination)


@scenario(6, "kept-disk", "a disk that the guest did not let go is migrated with it")
def with_pending_detach(world: World) -> None:
    vm, data, source, destination = vm_with_data(world)
    source.suspend(str(vm["instancename"]))
    try:
        fails(lambda: detach(world, data))
    finally:
        source.resume(str(vm["instancename"]))
    vm = migrate(world, vm, destination)
    with world.check("the guest still has it there"):
        guest_sees(world, vm, data)
    runs_only_on(world, vm, destination)


@scenario(6, "refusals", "what cannot be migrated is refused with a reason, and nothing changes")
def refusals(world: World) -> None:
    vm = running_vm(world)
    source, destination = host_of(world, vm), other_host(world, vm)
    call = world.cloud.call

    with refused(world, "no host", 431, saying="hostId"):
        call("migrateVirtualMachine", virtualmachineid=vm["id"])
    with refused(world, "the host that it runs on", 431, saying="already present on this host"):
        call("migrateVirtualMachine", virtualmachineid=vm["id"], hostid=host_id(world, source))
    with refused(world, "a host that does not exist", 431):
        call("migrateVirtualMachine", virtualmachineid=vm["id"], hostid=MISSING)
    with refused(world, "a VM that does not exist", 431):
        call("migrateVirtualMachine", virtualmachineid=MISSING, hostid=host_id(world, destination))
    with refused(world, "hosts for a VM that does not exist", 431):
        call("findHostsForMigration", virtualmachineid=MISSING)
    vm = stop(world, vm)
    with refused(world, "a VM that does not run", 431, saying="VM is not Running"):
        call("migrateVirtualMachine", virtualmachineid=vm["id"], hostid=host_id(world, destination))
    with refused(world, "hosts for a VM that does not run", 431):
        call("findHostsForMigration", virtualmachineid=vm["id"])
