"""Row 15: (live) resize. Seen from outside: spec/action-table.md row 15."""

from __future__ import annotations

from harness.observers import CloudApiError, Json, World
from scenarios.looks import (
    attached_only_to,
    device_only_on,
    domain_has_size,
    fails,
    fully_attached,
    global_id,
    guest_sees,
    on_storpool,
    refused,
    reread,
    reread_volume,
    serial,
    tags,
)
from scenarios.registry import scenario
from scenarios.steps import (
    GIB,
    MISSING,
    attach,
    booted_vm,
    compute_offering,
    data_volume,
    detach,
    disk_offering,
    host_of,
    pool_of,
    resize,
    root_volume,
    start,
    stop,
    vm_by_id,
)

MARK = b"written before the resize".ljust(4096, b"+")
AT_THE_END = b"written behind the old end".ljust(4096, b"*")


def has_size(world: World, volume: Json, size: int) -> None:
    """CloudStack and StorPool say the same."""
    with world.check(f"CloudStack and StorPool: {size >> 20} MiB, ready"):
        now = reread_volume(world, volume)
        seen = (now["state"], now["size"], on_storpool(world, now)["size"])
        assert seen == ("Ready", size, size), f"state, CloudStack's and StorPool's size: {seen}"


def everywhere(world: World, vm: Json, volume: Json, size: int) -> None:
    """CloudStack, StorPool, host device, domain and guest agree on the size."""
    has_size(world, volume, size)
    now = reread_volume(world, volume)
    with world.check("the host's device has that size"):
        device_only_on(world, now, host_of(world, vm))
    with world.check("so has the disk in the domain"):
        domain_has_size(host_of(world, vm), vm, now)
    with world.check("and the guest sees it"):
        guest_sees_now(world, vm, now)


def guest_sees_now(world: World, vm: Json, volume: Json) -> None:
    """Without waiting, but for a guest that boots: the answer to a resize says that the guest was told."""
    guest, name = world.guest(str(vm["id"])), serial(volume)
    guest.boot_id()
    world.wait_until(
        f"the guest sees {volume['size']} bytes on disk {name}", lambda: guest.disks().get(name) == volume["size"], 10
    )


@scenario(15, "live-grow", "a DATA volume grows under a running guest, which uses the new space at once (#10775)")
def live_grow(world: World) -> None:
    vm = booted_vm(world)
    guest = world.guest(str(vm["id"]))
    boot = guest.boot_id()
    data = attach(world, data_volume(world), vm)
    guest.write(serial(data), GIB - 4096, MARK)
    before = tags(world, data)
    grown = resize(world, data, 3)
    everywhere(world, vm, grown, 3 * GIB)
    with world.check("what was written is there, and the new space can be written"):
        guest.write(serial(data), 3 * GIB - 4096, AT_THE_END)
        assert guest.read(serial(data), GIB - 4096, 4096) == MARK
        seen = host_of(world, vm).read_device(str(grown["path"]), 3 * GIB - 4096, 4096)
        assert seen == AT_THE_END, f"the device has {seen[:32]!r}"
    with world.check("path and tags are as before, the guest was not restarted"):
        assert (global_id(grown), tags(world, grown)) == (global_id(data), before)
        assert guest.boot_id() == boot
    fully_attached(world, vm, grown)


@scenario(15, "live-root", "the ROOT volume grows under a running guest, and the VM starts with it again")
def live_root(world: World) -> None:
    vm = booted_vm(world)
    boot = world.guest(str(vm["id"])).boot_id()
    root = root_volume(world, str(vm["id"]))
    size = (int(root["size"]) // GIB + 2) * GIB
    resize(world, root, size // GIB)
    everywhere(world, vm, root, size)
    with world.check("the guest was not restarted"):
        assert world.guest(str(vm["id"])).boot_id() == boot
    vm = start(world, stop(world, vm))
    fully_attached(world, vm, reread_volume(world, root))


@scenario(15, "again-and-again", "a volume grows several times in a row, each time seen by the guest")
def again_and_again(world: World) -> None:
    vm = booted_vm(world)
    data = attach(world, data_volume(world), vm)
    for size in (2, 3, 5):
        resize(world, data, size)
        everywhere(world, vm, data, size * GIB)


@scenario(15, "stopped", "a volume of a stopped VM grows; no host has it, and the guest sees it at the next start")
def stopped(world: World) -> None:
    vm = booted_vm(world)
    data = attach(world, data_volume(world), vm)
    vm = stop(world, vm)
    resize(world, data, 2)
    has_size(world, data, 2 * GIB)
    with world.check("no host has it"):
        for host in world.hosts:
            assert global_id(data) not in host.devices(), f"a device on {host.name}"
    fully_attached(world, start(world, vm), reread_volume(world, data))


@scenario(15, "detached", "a detached volume grows, and is attached with its new size")
def detached(world: World) -> None:
    vm = booted_vm(world)
    data = detach(world, attach(world, data_volume(world), vm))
    resize(world, data, 2)
    has_size(world, data, 2 * GIB)
    fully_attached(world, vm, attach(world, data, vm))


@scenario(15, "never-used", "a volume that was never used is only written down anew, and made with that size")
def never_used(world: World) -> None:
    vm = booted_vm(world)
    data = resize(world, data_volume(world), 3)
    with world.check("CloudStack: the new size, on no pool"):
        assert (data["state"], data["size"], data.get("path")) == ("Allocated", 3 * GIB, None), data
    attached = attach(world, data, vm)
    everywhere(world, vm, attached, 3 * GIB)


@scenario(15, "shrink", "a volume shrinks when it is asked for: running, stopped and detached; its first bytes stay")
def shrink(world: World) -> None:
    vm = booted_vm(world)
    guest = world.guest(str(vm["id"]))
    boot = guest.boot_id()
    data = attach(world, data_volume(world, size=4), vm)
    guest.write(serial(data), 0, MARK)
    resize(world, data, 3, shrinkok=True)
    everywhere(world, vm, data, 3 * GIB)
    with world.check("the guest was not restarted and reads what it wrote"):
        assert guest.boot_id() == boot
        assert guest.read(serial(data), 0, len(MARK)) == MARK
    vm = stop(world, vm)
    resize(world, data, 2, shrinkok=True)
    has_size(world, data, 2 * GIB)
    vm = start(world, vm)
    guest = world.guest(str(vm["id"]))
    guest.boot_id()
    guest_sees(world, vm, reread_volume(world, data))
    detach(world, data)
    resize(world, data, 1, shrinkok=True)
    has_size(world, data, GIB)
    data = attach(world, data, vm)
    everywhere(world, vm, data, GIB)
    with world.check("the first bytes are there"):
        guest_sees(world, vm, data)
        assert guest.read(serial(data), 0, len(MARK)) == MARK


@scenario(15, "new-offering", "with a new offering come its size and limits; without a limit there is none (#6902)")
def new_offering(world: World) -> None:
    vm = booted_vm(world)
    limited = disk_offering(world, disksize=2, maxiops=700, miniops=100)
    free = disk_offering(world, disksize=3)
    data = attach(world, data_volume(world), vm)
    data = resize(world, data, diskofferingid=limited)
    everywhere(world, vm, data, 2 * GIB)
    with world.check("the limit of the new offering"):
        assert (data["diskofferingid"], data["maxiops"], on_storpool(world, data)["iops"]) == (limited, 700, 700), data
    data = resize(world, data, diskofferingid=free)
    everywhere(world, vm, data, 3 * GIB)
    with world.check("no limit any more"):
        assert (data["diskofferingid"], data.get("maxiops"), on_storpool(world, data)["iops"]) == (free, None, "-"), (
            data
        )
    with world.check("a resize without an offering leaves the limits"):
        custom = disk_offering(world, maxiops=900, miniops=100)
        data = resize(world, data, 4, diskofferingid=custom)
        resize(world, data, 5)
        assert on_storpool(world, data)["iops"] == 900, on_storpool(world, data)


@scenario(15, "cut-host", "the host does not reach the StorPool API: it needs not for a resize")
def cut_host(world: World) -> None:
    vm = booted_vm(world)
    data = attach(world, data_volume(world), vm)
    with host_of(world, vm).storpool_api_cut():
        resize(world, data, 2)
        everywhere(world, vm, data, 2 * GIB)


@scenario(15, "suspended", "a suspended guest is told too, and sees the size when it runs on")
def suspended(world: World) -> None:
    vm = booted_vm(world)
    host, name = host_of(world, vm), str(vm["instancename"])
    data = attach(world, data_volume(world), vm)
    host.suspend(name)
    try:
        resize(world, data, 2)
        has_size(world, data, 2 * GIB)
        with world.check("so has the domain"):
            domain_has_size(host, vm, reread_volume(world, data))
    finally:
        host.resume(name)
    everywhere(world, vm, data, 2 * GIB)


@scenario(15, "agent-away", "the host's agent is away, or dies: in the end all agree on one size, as the answer said")
def agent_away(world: World) -> None:
    vm = booted_vm(world)
    host, guest = host_of(world, vm), world.guest(str(vm["id"]))
    boot = guest.boot_id()
    data = attach(world, data_volume(world, size=2), vm)
    guest.write(serial(data), 0, MARK)
    host.kill_agent()
    try:
        error = fails(lambda: resize(world, data, 3))
        with world.check("more, of which the guest cannot be told: the answer names the host, and it is undone"):
            assert host.name in error.text, error.text
        everywhere(world, vm, data, 2 * GIB)
        error = fails(lambda: resize(world, data, 1, shrinkok=True))
        with world.check(
            "less, which cannot be undone: the answer says that it is gone on with, and so does the state"
        ):
            assert host.name in error.text and "StorPool has the new size" in error.text, error.text
            now = reread_volume(world, data)
            seen = (now["state"], on_storpool(world, now)["size"])
            assert seen == ("Resizing", GIB), f"state, and size on StorPool: {seen}"
    finally:
        host.start_agent()
    settled(world, data)
    everywhere(world, vm, data, GIB)
    job = world.cloud.start("resizeVolume", id=data["id"], size=3)
    # Without a pause: the guest is told within milliseconds.
    for _ in range(200):
        if on_storpool(world, data)["size"] == 3 * GIB:
            break
    host.kill_agent()
    sizes = [3 * GIB]
    try:
        world.cloud.wait(job)
    except CloudApiError:
        sizes.append(GIB)
    finally:
        host.start_agent()
    settled(world, data)
    size = int(reread_volume(world, data)["size"])
    with world.check("an agent that dies meanwhile: the new size, or after an error the old one"):
        assert size in sizes, f"CloudStack says {size} bytes, expected one of {sizes}"
    everywhere(world, vm, data, size)
    with world.check("the guest was not restarted and reads what it wrote"):
        assert guest.boot_id() == boot
        assert guest.read(serial(data), 0, len(MARK)) == MARK


def settled(world: World, volume: Json) -> None:
    world.wait_until("the change is over", lambda: reread_volume(world, volume)["state"] == "Ready", 900)


@scenario(15, "full-pool", "a size that the pool has no room for is refused, and nothing changes")
def full_pool(world: World) -> None:
    vm = booted_vm(world)
    data = attach(world, data_volume(world), vm)
    pool = pool_of(world, data)
    listed = world.cloud.call("listStoragePools", id=pool.id)["storagepool"][0]
    too_much = int(listed["disksizetotal"]) // GIB + 1
    with refused(world, "a volume larger than the pool", 431, 530, 533):
        resize(world, data, too_much)
    fully_attached(world, vm, reread_volume(world, data))


@scenario(15, "scaled", "a VM that is scaled while stopped has the ROOT size and compute of its new offering")
def scaled(world: World) -> None:
    vm = stop(world, booted_vm(world))
    offering = compute_offering(world, memory=192, rootdisksize=3, maxiops=800, miniops=100)
    world.cloud.call("scaleVirtualMachine", id=vm["id"], serviceofferingid=offering["id"])
    root = root_volume(world, str(vm["id"]))
    has_size(world, root, 3 * GIB)
    with world.check("limit and compute of the new offering"):
        assert on_storpool(world, root)["iops"] == 800, on_storpool(world, root)
        assert vm_by_id(world, str(vm["id"]))["serviceofferingid"] == offering["id"]
    vm = start(world, vm)
    fully_attached(world, vm, reread_volume(world, root))


@scenario(15, "refusals", "what cannot be resized is refused with a reason, and nothing changes")
def refusals(world: World) -> None:
    vm = booted_vm(world)
    data = attach(world, data_volume(world, size=2), vm)
    fixed = disk_offering(world, disksize=1)
    bigger = compute_offering(world, rootdisksize=4)
    unused = data_volume(world, offering_id=fixed)
    with refused(world, "a smaller size without asking for it", 431, saying="shrinkok"):
        resize(world, data, 1)
    with refused(world, "an offering that is smaller, without asking for it", 431):
        resize(world, data, diskofferingid=fixed)
    with refused(world, "neither size nor offering", 431):
        resize(world, data)
    with refused(world, "size 0", 431):
        resize(world, data, 0)
    with refused(world, "a size with an offering of fixed size", 431):
        resize(world, data, 3, diskofferingid=fixed)
    with refused(world, "more than a volume may have", 431):
        resize(world, data, 1 << 20)
    with refused(world, "an offering for ROOT volumes", 431):
        resize(world, data, diskofferingid=bigger["diskofferingid"])
    with refused(world, "a volume that does not exist", 431):
        resize(world, {"id": MISSING}, 3)
    with refused(world, "an offering whose storage tag the pool has not", 431, 530, 533):
        resize(world, data, diskofferingid=disk_offering(world, disksize=3, tags=world.environment.pools[1].tag))
    with refused(world, "another size of a volume with an offering of fixed size", 431):
        resize(world, unused, 3)
    with refused(world, "scaling a VM that runs", 431):
        world.cloud.call("scaleVirtualMachine", id=vm["id"], serviceofferingid=bigger["id"])
    with world.check("the VM runs on with its disk"):
        assert reread(world, vm)["state"] == "Running"
        attached_only_to(world, data, host_of(world, vm))
    everywhere(world, vm, data, 2 * GIB)
