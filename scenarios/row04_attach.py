"""Row 4: attach ROOT/DATA (start VM, attach volume). Seen from outside: spec/action-table.md row 4."""

from __future__ import annotations

from contextlib import ExitStack

from harness.observers import CloudApiError, World
from scenarios.looks import (
    attached_nowhere,
    device_nowhere,
    disk_not_in_domain,
    fails,
    fully_attached,
    global_id,
    guest_sees,
    has_tags,
    on_storpool,
    refused,
    reread,
    reread_volume,
    serial,
)
from scenarios.registry import scenario
from scenarios.steps import (
    GIB,
    MISSING,
    attach,
    booted_vm,
    data_volume,
    deploy,
    disk_offering,
    host_of,
    idle_template,
    many,
    one,
    root_volume,
    running_vm,
    shared_template,
    start,
    stop,
    tag_vm,
)


@scenario(4, "start", "starting a VM attaches its ROOT volume")
def start_attaches_root(world: World) -> None:
    vm = booted_vm(world)
    fully_attached(world, vm, root_volume(world, str(vm["id"])))


@scenario(4, "start-with-data", "starting a VM attaches every disk it has")
def start_with_data(world: World) -> None:
    vm = booted_vm(world)
    data = attach(world, data_volume(world), stop(world, vm))
    with world.check("attached to a stopped VM: no host has it"):
        attached_nowhere(world, data)
        device_nowhere(world, data)
    vm = start(world, vm)
    fully_attached(world, vm, root_volume(world, str(vm["id"])))
    fully_attached(world, vm, reread_volume(world, data))


@scenario(4, "hot", "attaching a volume to a running VM")
def hot_attach(world: World) -> None:
    vm = booted_vm(world)
    guest = world.guest(str(vm["id"]))
    boot = guest.boot_id()
    data = attach(world, data_volume(world, size=2), vm)
    with world.check("CloudStack says where it is attached"):
        assert (data["state"], data["virtualmachineid"], data["size"]) == ("Ready", vm["id"], 2 * GIB), data
    fully_attached(world, vm, data)
    with world.check("what the guest writes is on the device"):
        mark = b"written by the guest".ljust(4096, b"!")
        guest.write(serial(data), GIB, mark)
        seen = host_of(world, vm).read_device(str(data["path"]), GIB, len(mark))
        assert seen == mark, f"the device has {seen[:32]!r}"
    with world.check("the guest was not restarted"):
        assert guest.boot_id() == boot


@scenario(4, "slots", "each disk gets a slot of its own; a slot asked for is used")
def slots(world: World) -> None:
    vm = booted_vm(world)
    offering = disk_offering(world)
    first = attach(world, data_volume(world, offering_id=offering), vm)
    third = data_volume(world, offering_id=offering)
    world.cloud.call("attachVolume", id=third["id"], virtualmachineid=vm["id"], deviceid=5)
    third = reread_volume(world, third)
    with world.check("slots 0, 1 and 5"):
        slots_seen = [root_volume(world, str(vm["id"]))["deviceid"], first["deviceid"], third["deviceid"]]
        assert slots_seen == [0, 1, 5], f"device ids {slots_seen}"
    fully_attached(world, vm, third)
    other = data_volume(world, offering_id=offering)
    with refused(world, "a slot that is taken", 431, 530):
        world.cloud.call("attachVolume", id=other["id"], virtualmachineid=vm["id"], deviceid=5)


@scenario(4, "storage-tag", "an offering's storage tag chooses between two pools")
def storage_tag(world: World) -> None:
    vm = running_vm(world)
    for pool in world.environment.pools[:2]:
        data = attach(world, data_volume(world, offering_id=disk_offering(world, tags=pool.tag)), vm)
        with world.check(f"tag {pool.tag} leads to pool {pool.name}"):
            assert data["storageid"] == pool.id, f"volume is on pool {data['storageid']}"
            seen = on_storpool(world, data)["templateName"]
            assert seen == pool.storpool_template, f"placed by StorPool template {seen}"


@scenario(4, "no-such-tag", "a storage tag that no pool has is refused")
def no_such_tag(world: World) -> None:
    vm = running_vm(world)
    data = data_volume(world, offering_id=disk_offering(world, tags="no-pool-has-this"))
    with refused(world, "a storage tag that no pool has", 431, 530, 533):
        world.cloud.call("attachVolume", id=data["id"], virtualmachineid=vm["id"])


@scenario(4, "full-pool", "a volume that the pool has no room for is refused")
def full_pool(world: World) -> None:
    pool = world.environment.pools[0]
    listed = one(world.cloud.call("listStoragePools", id=pool.id), "storagepool")
    vm = running_vm(world)
    too_much = int(listed["disksizetotal"]) // GIB + 1
    offering = disk_offering(world)
    with world.check("refused with the reason, and nothing is made on StorPool"):
        before = len(world.storpool.volumes())
        try:
            data = data_volume(world, size=too_much, offering_id=offering)
            world.cloud.call("attachVolume", id=data["id"], virtualmachineid=vm["id"])
        except CloudApiError as error:
            assert error.code in (431, 530, 533), f"code {error.code}: {error.text}"
        else:
            raise AssertionError(f"a volume of {too_much} GiB fits a pool of {listed['disksizetotal']} bytes")
        assert len(world.storpool.volumes()) == before
    with world.check("a volume that fits is attached"):
        attach(world, data_volume(world, offering_id=offering), vm)


@scenario(4, "vc-policy", "a VM's vc-policy is on disks attached later")
def vc_policy(world: World) -> None:
    vm = running_vm(world)
    tag_vm(world, vm, vc_policy="daily")
    data = attach(world, data_volume(world), vm)
    with world.check("tag vc-policy on the new disk"):
        has_tags(world, data, vc_policy="daily")
    with world.check("tag vc-policy on the ROOT disk"):
        has_tags(world, root_volume(world, str(vm["id"])), vc_policy="daily")


@scenario(4, "cut-attach", "attach on a host that cannot reach the StorPool API: a clear error, nothing left")
def cut_host_attach(world: World) -> None:
    vm = booted_vm(world)
    data = data_volume(world)
    host = host_of(world, vm)
    with host.storpool_api_cut():
        error = fails(lambda: world.cloud.call("attachVolume", id=data["id"], virtualmachineid=vm["id"]))
        with world.check("the error names the host and StorPool"):
            assert host.name in error.text and "storpool" in error.text.lower(), error.text
    after = reread_volume(world, data)
    with world.check("CloudStack: not attached"):
        assert "virtualmachineid" not in after, after
        assert after["state"] in ("Ready", "Allocated"), after
    with world.check("nothing left on StorPool, host and domain"):
        if "path" in after:
            attached_nowhere(world, after)
            device_nowhere(world, after)
            disk_not_in_domain(host, vm, after)
            has_tags(world, after, cvm="", disk="")
    with world.check("the VM still runs"):
        assert reread(world, vm)["state"] == "Running"
    fully_attached(world, vm, attach(world, after, vm))


@scenario(4, "cut-start", "start when no host reaches the StorPool API: a clear error, nothing left")
def cut_hosts_start(world: World) -> None:
    vm = stop(world, booted_vm(world))
    root = root_volume(world, str(vm["id"]))
    with ExitStack() as cut:
        for host in world.hosts:
            cut.enter_context(host.storpool_api_cut())
        error = fails(lambda: world.cloud.call("startVirtualMachine", id=vm["id"]))
        with world.check("the error names a host and StorPool"):
            assert any(host.name in error.text for host in world.hosts), error.text
            assert "storpool" in error.text.lower(), error.text
    with world.check("the VM is Stopped"):
        assert reread(world, vm)["state"] == "Stopped", reread(world, vm)
    with world.check("nothing left on StorPool and hosts"):
        attached_nowhere(world, root)
        device_nowhere(world, root)
        for host in world.hosts:
            assert host.domains().get(str(vm["instancename"]), "shut off") == "shut off", host.domains()
    vm = start(world, vm)
    fully_attached(world, vm, reread_volume(world, root))


@scenario(4, "two-vms-one-volume", "two VMs ask for one volume at once: one gets it, the other a clear error")
def two_vms_one_volume(world: World) -> None:
    template_id = shared_template(world)
    vms = [deploy(world, template_id) for _ in range(2)]
    data = data_volume(world)
    outcomes: list[CloudApiError | None] = []
    jobs: list[str] = []
    for vm in vms:
        try:
            jobs.append(world.cloud.start("attachVolume", id=data["id"], virtualmachineid=vm["id"]))
        except CloudApiError as error:
            outcomes.append(error)
    for job in jobs:
        try:
            world.cloud.wait(job)
            outcomes.append(None)
        except CloudApiError as error:
            outcomes.append(error)
    with world.check("one succeeded, one was refused with a reason"):
        errors = [error for error in outcomes if error is not None]
        assert len(errors) == 1 and errors[0].text.strip(), f"outcomes {outcomes}"
    data = reread_volume(world, data)
    winner = next(vm for vm in vms if vm["id"] == data["virtualmachineid"])
    fully_attached(world, winner, data)
    loser = next(vm for vm in vms if vm["id"] != winner["id"])
    with world.check("the other VM has no trace of it"):
        disk_not_in_domain(host_of(world, loser), loser, data)


@scenario(4, "keeps-bytes", "stop and start keep what the guest wrote, also on the other host's device")
def keeps_bytes(world: World) -> None:
    vm = booted_vm(world)
    data = attach(world, data_volume(world), vm)
    mark = b"must survive".ljust(4096, b"#")
    world.guest(str(vm["id"])).write(serial(data), 8 << 20, mark)
    vm = start(world, stop(world, vm))
    guest = world.guest(str(vm["id"]))
    guest.boot_id()
    with world.check("the guest sees the disk again"):
        guest_sees(world, vm, reread_volume(world, data))
    with world.check("the bytes are there"):
        seen = guest.read(serial(data), 8 << 20, len(mark))
        assert seen == mark, f"read {seen[:32]!r}"
    with world.check("the path did not change"):
        assert global_id(reread_volume(world, data)) == global_id(data)


@scenario(4, "refusals", "what cannot be attached is refused with a reason, and nothing changes")
def refusals(world: World) -> None:
    template_id = idle_template(world)
    vm, other = deploy(world, template_id), deploy(world, template_id)
    data = attach(world, data_volume(world), vm)
    call = world.cloud.call
    with refused(world, "a volume that is attached to this VM already", 431, 530):
        call("attachVolume", id=data["id"], virtualmachineid=vm["id"])
    with refused(world, "a volume that another VM has", 431, 530):
        call("attachVolume", id=data["id"], virtualmachineid=other["id"])
    with refused(world, "another VM's ROOT volume", 431, 530):
        call("attachVolume", id=root_volume(world, str(other["id"]))["id"], virtualmachineid=vm["id"])
    with refused(world, "a volume that does not exist", 431):
        call("attachVolume", id=MISSING, virtualmachineid=vm["id"])
    with refused(world, "a VM that does not exist", 431):
        call("attachVolume", id=data["id"], virtualmachineid=MISSING)
    with refused(world, "starting a VM that runs", 431, 530):
        call("startVirtualMachine", id=vm["id"])
    with world.check("the VM still has its two disks"):
        listed = many(call("listVolumes", virtualmachineid=vm["id"], listall=True), "volume")
        assert len(listed) == 2, listed
