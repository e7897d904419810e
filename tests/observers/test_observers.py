"""The two sets of observers show the same: one list of claims, held to the memory world and to the local one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from harness import tidy
from harness.observers import CloudApiError, World
from harness.worlds.memory.world import MemoryWorld
from scenarios.encrypted import samples
from scenarios.looks import domain_disk, global_id, serial
from scenarios.steps import (
    GIB,
    MISSING,
    attach,
    booted_vm,
    data_volume,
    disk_offering,
    host_of,
    many,
    one,
    root_volume,
    vm_by_id,
)

Claim = Callable[[World], None]
InWorld = Callable[[Claim], None]


def in_memory(claim: Claim) -> None:
    MemoryWorld(7).run(claim)


@pytest.fixture(scope="module")
def local_world() -> Iterator[InWorld]:
    from harness.worlds.local.venue import LocalVenue, why_not

    reason = why_not(None)
    if reason is not None:
        pytest.skip(f"no local world: {reason}")
    venue = LocalVenue(None)
    numbers = iter(range(1, 100))

    def run(claim: Claim) -> None:
        world = venue.world(f"observers-{next(numbers)}")
        before = tidy.inventory(world)
        try:
            claim(world)
        finally:
            left = tidy.tidy(world, before)
        assert left == []

    try:
        venue.open(print)
        yield run
    finally:
        venue.close()


@pytest.fixture(params=["memory", pytest.param("local", marks=[pytest.mark.local, pytest.mark.timeout(400)])])
def in_world(request: pytest.FixtureRequest) -> InWorld:
    if request.param == "memory":
        return in_memory
    run: InWorld = request.getfixturevalue("local_world")
    return run


@contextmanager
def refused(codes: tuple[int, ...], *words: str) -> Iterator[None]:
    with pytest.raises(CloudApiError) as caught:
        yield
    assert caught.value.code in codes, caught.value
    for word in words:
        assert word in caught.value.text


def cloud_claims(world: World) -> None:
    call, zone = world.cloud.call, world.environment.zone_id
    with refused((432,)):
        call("makeCoffee")
    with refused((431,), "name"):
        call("createDiskOffering")
    with refused((431,)):
        call("attachVolume", id=MISSING, virtualmachineid=MISSING)
    assert call("listVolumes", listall=True) == {}, "an empty list is an empty object"
    offering = disk_offering(world, disksize=1)
    made = one(call("createVolume", name=world.name("v"), zoneid=zone, diskofferingid=offering), "volume")
    assert made["state"] == "Allocated", "an async call gives its job's result"
    job = world.cloud.start("createVolume", name=world.name("v"), zoneid=zone, diskofferingid=offering)
    second = one(world.cloud.wait(job), "volume")
    listed = many(call("listVolumes", listall=True), "volume")
    assert {v["id"] for v in listed} == {made["id"], second["id"]}
    job = world.cloud.start("attachVolume", id=made["id"], virtualmachineid=_vm_without_disk(world))
    world.cloud.wait(job)
    with refused((431,)):
        call("detachVolume", id=second["id"])


def _vm_without_disk(world: World) -> str:
    return str(booted_vm(world)["id"])


def storpool_claims(world: World) -> None:
    storpool = world.storpool
    assert storpool.volume("no-such-volume") is None
    assert storpool.volume("~splab.b.zzzz") is None
    assert storpool.snapshot("no-such-snapshot") is None
    vm = booted_vm(world)
    root = root_volume(world, str(vm["id"]))
    found = storpool.volume("~" + global_id(root))
    assert found is not None and storpool.volume(found["name"]) == found
    assert found["globalId"] == global_id(root) and found["size"] == root["size"]
    assert isinstance(found["tags"], dict) and found["templateName"] == world.environment.pools[0].storpool_template
    assert found in storpool.volumes()
    parent = storpool.snapshot(found["parentName"])
    assert parent is not None and parent["globalId"] in {s["globalId"] for s in storpool.snapshots()}
    host = host_of(world, vm)
    mine = [a for a in storpool.attachments() if a["globalId"] == global_id(root)]
    assert [(a["volume"], a["client"], a["rights"], a["snapshot"]) for a in mine] == [
        (found["name"], host.client_id, "rw", False)
    ]
    assert storpool.calls()["VolumeCreate"] >= 1
    storpool.update_volume("~" + global_id(root), iops=4321)
    changed = storpool.volume("~" + global_id(root))
    assert changed is not None and {**changed, "iops": "-"} == found and changed["iops"] == 4321
    assert storpool.kept("no-such-bucket", "key") == ""
    for value in ("one", "another", ""):
        storpool.keep("splab-observers", "key", value)
        assert (storpool.kept("splab-observers", "key"), storpool.kept("splab-observers", "other")) == (value, "")


def host_claims(world: World) -> None:
    vm = booted_vm(world)
    name = str(vm["instancename"])
    root, host = root_volume(world, str(vm["id"])), host_of(world, vm)
    other = next(h for h in world.hosts if h.name != host.name)
    assert host.name != other.name and host.client_id != other.client_id
    assert list(host.devices()) == sorted(host.devices()) and global_id(root) in host.devices()
    assert global_id(root) not in other.devices()
    path = str(root["path"])
    assert host.device_size(path) == root["size"]
    assert host.device_size(path + "x") is None and host.device_size("/dev/null") is None
    assert other.device_size(path) is None
    assert len(host.read_device(path, 4096, 8192)) == 8192
    assert len(host.read_device(path, 510, 3)) == 3
    assert host.read_device(path, 510, 3)[:2] == host.read_device(path, 0, 512)[510:]
    assert host.domains()[name] == "running" and name not in other.domains()
    disk = domain_disk(host, vm, root)
    assert disk is not None
    assert (disk.target, disk.serial, disk.driver_type) == ("vda", serial(root), "raw")
    assert (disk.discard, disk.cache) == ("unmap", "none")
    assert host.disk_capacity(name, disk.target) == root["size"]
    piece, *_ = samples(world, vm, root, world.environment.image_size)
    assert list(host.traces(piece)) == [path] and list(other.traces(piece)) == []
    assert name in host.domain_xml(name) and path in host.domain_xml(name)
    assert list(host.domain_disks("no-such-domain")) == []
    host.suspend(name)
    assert host.domains()[name] == "paused"
    host.resume(name)
    assert host.domains()[name] == "running"
    host.kill_qemu(name)
    world.wait_until("the domain is off", lambda: host.domains().get(name, "shut off") in ("shut off", "crashed"))


def cut_claims(world: World) -> None:
    vm = booted_vm(world)
    host, data = host_of(world, vm), data_volume(world)
    with host.storpool_api_cut():
        with refused((530, 534), host.name):
            world.cloud.call("attachVolume", id=data["id"], virtualmachineid=vm["id"])
        assert world.storpool.volumes(), "others reach the API meanwhile"
    assert attach(world, data, vm)["virtualmachineid"] == vm["id"]


def guest_claims(world: World) -> None:
    vm = booted_vm(world)
    guest, root = world.guest(str(vm["id"])), root_volume(world, str(vm["id"]))
    assert guest.boot_id() == guest.boot_id()
    assert guest.disks() == {serial(root): root["size"]}
    data = attach(world, data_volume(world), vm)
    assert guest.disks() == {serial(root): root["size"], serial(data): GIB}
    mark = bytes(range(256)) * 32
    guest.write(serial(data), 3 << 20, mark)
    assert guest.read(serial(data), 3 << 20, len(mark)) == mark
    assert guest.read(serial(data), (3 << 20) - 512, 512) == bytes(512)
    assert host_of(world, vm).read_device(str(data["path"]), 3 << 20, len(mark)) == mark
    with pytest.raises(OSError, match="no-such-serial"):
        guest.read("no-such-serial", 0, 512)
    boot = guest.boot_id()
    guest.poweroff()
    world.wait_until("CloudStack says Stopped", lambda: vm_by_id(world, str(vm["id"]))["state"] == "Stopped", 180)
    world.cloud.call("startVirtualMachine", id=vm["id"])
    assert guest.boot_id() != boot


def world_claims(world: World) -> None:
    assert len({world.name("x") for _ in range(5)}) == 5
    with pytest.raises(TimeoutError, match="pigs fly"):
        world.wait_until("pigs fly", lambda: False, 1)
    polls = iter([False, False, True])
    world.wait_until("the third time", lambda: next(polls))
    with pytest.raises(ZeroDivisionError), world.check("a check"):
        raise ZeroDivisionError
    env = world.environment
    assert len(env.pools) >= 2 and len({pool.tag for pool in env.pools}) == len(env.pools)
    assert len(world.hosts) >= 2 and env.image_size > 0 and len(env.image_sha256) == 64
    assert not env.idle_image_url or len(env.idle_image_sha256) == 64


@pytest.mark.parametrize(
    "claim",
    [cloud_claims, storpool_claims, host_claims, cut_claims, guest_claims, world_claims],
    ids=lambda c: c.__name__,
)
def test_both_worlds_show_the_same(claim: Claim, in_world: InWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="harness")
    in_world(claim)
