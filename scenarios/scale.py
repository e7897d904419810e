"""Extra `scale`: many objects; a tenth of them where hosts are real. What an operation costs must not grow with them.

StorPool's lists are long then, so nothing but comparing reads one. The SQL statements of a deploy and of what follows
it are counted by `tests/worlds/test_memory_scale.py`, for a scenario does not see them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

from harness.observers import Host, Json, World
from scenarios import looks, snapshots, steps
from scenarios.registry import scenario

VOLUMES = 1000
SNAPSHOTS = 200
VMS = 64
REAL_SHARE = 10
"""Where hosts are real: one of so many."""
AT_ONCE = 16
"""Requests that are open at a time."""
LISTS = ("VolumesList", "SnapshotsList", "AttachmentsList", "VolumesSpace", "SnapshotsSpace", "VolumesGetStatus")

BACKGROUND = ("Volume", "Snapshot", "VolumeUpdate")
"""Calls that background tasks make too, some time after an operation; where time is real they fall into the next."""

Calls = dict[str, int]


def many(world: World, count: int) -> int:
    return -(-count // REAL_SHARE) if world.real else count


@contextmanager
def counted(world: World, into: Calls) -> Iterator[None]:
    """The StorPool calls made inside, by name. Nobody may use the StorPool observer meanwhile."""
    before = dict(world.storpool.calls())
    yield
    after = world.storpool.calls()
    into.update({name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)})


def calls_of(world: World, *operations: Callable[[], object]) -> list[Calls]:
    """The calls of each, one after the other."""
    found: list[Calls] = []
    for operation in operations:
        found.append({})
        with counted(world, found[-1]):
            operation()
    return found


def rounds(world: World) -> int:
    return 2 if world.real else 1


def least(world: World, cycle: Callable[[], list[Calls]]) -> list[Calls]:
    """The calls of each operation of a cycle. Where time is real, the least of two cycles: what a background task calls
    meanwhile falls into an operation of one, and hardly into the same of both."""
    found = []
    for same in zip(*(cycle() for _ in range(rounds(world))), strict=True):
        least = {name: min(calls.get(name, 0) for calls in same) for name in same[0]}
        found.append({name: count for name, count in least.items() if count})
    return found


def same_calls(world: World, few: Sequence[Calls], full: Sequence[Calls], names: Sequence[str]) -> None:
    ignored = BACKGROUND if world.real else ()
    for name, *found in zip(names, few, full, strict=True):
        before, after = ({call: count for call, count in calls.items() if call not in ignored} for calls in found)
        assert after == before, f"{name} makes the calls {after} with many objects, {before} with few"
        lists = [call for call in after if call in LISTS]
        assert not lists, f"{name} reads {', '.join(lists)}, which grow with the cluster"


def all_at_once(world: World, command: str, requests: Sequence[Mapping[str, str | int | bool]]) -> list[Json]:
    """The results of many async requests, of which some are open at a time."""
    done: list[Json] = []
    for first in range(0, len(requests), AT_ONCE):
        jobs = [world.cloud.start(command, **request) for request in requests[first : first + AT_ONCE]]
        done += [world.cloud.wait(job) for job in jobs]
    return done


@contextmanager
def roomy(world: World, count: int) -> Iterator[None]:
    """CloudStack may allocate `count` GiB more on the first pool."""
    pool_id = world.environment.pools[0].id
    before = int(steps.one(world.cloud.call("listStoragePools", id=pool_id), "storagepool")["capacitybytes"])
    world.cloud.call("updateStoragePool", id=pool_id, capacitybytes=before + 2 * count * steps.GIB)
    try:
        yield
    finally:
        world.cloud.call("updateStoragePool", id=pool_id, capacitybytes=before)


def small_cycle(world: World, vm: Json, snapshot: Json, offering: str) -> list[Calls]:
    """A volume's life: made, attached, resized, snapshot, detached, the snapshot and it deleted."""
    made: dict[str, Json] = {}

    def create() -> None:
        made["volume"] = snapshots.volume_from(world, snapshot, offering)

    def snap() -> None:
        made["snapshot"] = snapshots.take(world, made["volume"])

    return calls_of(
        world,
        create,
        lambda: steps.attach(world, made["volume"], vm),
        lambda: steps.resize(world, made["volume"], 2),
        snap,
        lambda: snapshots.delete(world, made["snapshot"]),
        lambda: steps.detach(world, made["volume"]),
        lambda: world.cloud.call("deleteVolume", id=made["volume"]["id"]),
    )


CYCLE = ("create", "attach", "resize", "snapshot", "delete snapshot", "detach", "delete")


@scenario("scale", "volumes", "1,000 volumes: each is right, and an operation makes the calls it made with few")
def volumes(world: World) -> None:
    vm = steps.booted_vm(world)
    with steps.setting(world, snapshots.BACKUP, "false", "true"), roomy(world, many(world, VOLUMES)):
        source = steps.attach(world, steps.data_volume(world), vm)
        snapshots.write(world, vm, source, "source", snapshots.PLACES[:1])
        snapshot = snapshots.take(world, source)
        offering = steps.disk_offering(world)
        few = least(world, lambda: small_cycle(world, vm, snapshot, offering))
        count = many(world, VOLUMES)
        requests = [
            {"name": world.name("many"), "snapshotid": snapshot["id"], "diskofferingid": offering, "size": 1}
            for _ in range(count)
        ]
        made = [steps.one(answer, "volume") for answer in all_at_once(world, "createVolume", requests)]
        with world.check("every volume is Ready with a path of its own, on StorPool with its size, tags and template"):
            assert len({volume["path"] for volume in made}) == count
            by_id = {f"/dev/storpool-byid/{item['globalId']}": item for item in world.storpool.volumes()}
            for volume in made:
                found = by_id.get(str(volume["path"]))
                assert volume["state"] == "Ready" and found is not None, f"{volume} is not on StorPool"
                assert found["size"] == volume["size"], (found, volume)
                assert found["templateName"] == steps.pool_of(world, volume).storpool_template, found
                tags = {key: value for key, value in found["tags"].items() if value}
                assert tags == {"uuid": volume["id"], "cs": "volume"}, tags
        with world.check("an operation makes the same StorPool calls as with few volumes, and reads no list"):
            same_calls(world, few, least(world, lambda: small_cycle(world, vm, snapshot, offering)), CYCLE)
        with world.check("one of the many holds the snapshot's bytes"):
            last = steps.attach(world, made[-1], vm)
            snapshots.guest_reads(world, vm, last, "source", snapshots.PLACES[:1])
            steps.detach(world, last)
    with world.check("all of them can be deleted, and nothing of them is left"):
        for volume in made:
            world.cloud.call("deleteVolume", id=volume["id"])
        left = {item["globalId"] for item in world.storpool.volumes()}
        assert not left & {looks.global_id(volume) for volume in made}


@scenario("scale", "snapshots", "200 snapshots of one volume: the last costs what the first did, and serves")
def many_snapshots(world: World) -> None:
    vm = steps.booted_vm(world)
    volume = steps.attach(world, steps.data_volume(world), vm)
    count = many(world, SNAPSHOTS)
    taken: list[Json] = []

    def take() -> None:
        snapshots.write(world, vm, volume, f"number {len(taken)}", snapshots.PLACES[:1])
        taken.append(snapshots.take(world, volume))

    with steps.setting(world, snapshots.BACKUP, "false", "true"):
        few = least(world, lambda: calls_of(world, take))
        for _ in range(count - 2 * rounds(world)):
            take()
        with world.check("the last snapshot makes the calls of the first"):
            same_calls(world, few, least(world, lambda: calls_of(world, take)), ["snapshot"])
        with world.check("StorPool has each once, with its tags"):
            wanted = sorted(str(item["id"]) for item in taken)
            seen = [item for item in world.storpool.snapshots() if (item.get("tags") or {}).get("cs") == "snapshot"]
            assert sorted(item["tags"]["uuid"] for item in seen if item["tags"]["uuid"] in wanted) == wanted
            assert {item["tags"].get("cvm") for item in seen if item["tags"]["uuid"] in wanted} == {vm["id"]}
        middle = count // 2
        with world.check("a volume of one in the middle has its bytes"):
            made = steps.attach(world, snapshots.volume_from(world, taken[middle]), vm)
            snapshots.guest_reads(world, vm, made, f"number {middle}", snapshots.PLACES[:1])
            steps.detach(world, made)
        free = steps.detach(world, volume)
        with world.check("the volume is reverted to it, whatever is newer stays"):
            world.cloud.call("revertSnapshot", id=taken[middle]["id"])
            volume = steps.attach(world, free, vm)
            snapshots.guest_reads(world, vm, volume, f"number {middle}", snapshots.PLACES[:1])
            assert len(snapshots.snapshots_of(world, volume)) == count
        with world.check("deleted in any order the last costs what the first did, and nothing is left"):
            order = iter([*taken[1::2], *reversed(taken[::2])])
            before = least(world, lambda: calls_of(world, lambda: snapshots.delete(world, next(order))))
            for item in islice(order, count - 2 * rounds(world)):
                snapshots.delete(world, item)
            after = least(world, lambda: calls_of(world, lambda: snapshots.delete(world, next(order))))
            same_calls(world, before, after, ["delete"])
            assert [item for item in taken if snapshots.all_on_storpool(world, item)] == []
            snapshots.guest_reads(world, vm, volume, f"number {middle}", snapshots.PLACES[:1])


@scenario("scale", "attachments", "64 VMs with two disks each on one host: every disk is there, and nothing afterwards")
def attachments(world: World) -> None:
    host = world.hosts[0]
    listed = steps.one(world.cloud.call("listHosts", name=host.name), "host")
    template = steps.idle_template(world)
    offering = steps.disk_offering(world)
    vms: list[Json] = []

    def deploy(number: int) -> None:
        parameters = [
            steps.deploy_parameters(world, template, hostid=str(listed["id"]), diskofferingid=offering, size=1)
            for _ in range(number)
        ]
        answers = all_at_once(world, "deployVirtualMachine", parameters)
        vms.extend(steps.vm_by_id(world, str(steps.one(answer, "virtualmachine")["id"])) for answer in answers)

    deploy(1)

    def one_more() -> list[Calls]:
        calls = calls_of(world, lambda: deploy(1))
        # What is not there yet hears no power button.
        world.guest(str(vms[-1]["id"])).ready()
        return [*calls, *calls_of(world, lambda: steps.stop(world, vms[-1]), lambda: steps.start(world, vms[-1]))]

    few = least(world, one_more)
    deploy(many(world, VMS) - 3)
    with world.check("deploying, stopping and starting one more make the calls they made with few"):
        full = least(world, one_more)
        same_calls(world, few, full, ["deploy", "stop", "start"])
    with world.check("every VM runs on the host with both its disks, which have its tags"):
        disks = _disks(world, vms)
        assert len(disks) == 2 * len(vms), f"{len(vms)} VMs have {len(disks)} disks"
        _only_on(world, host, disks)
        by_id = {item["globalId"]: item for item in world.storpool.volumes()}
        for volume in disks:
            tags = by_id[looks.global_id(volume)]["tags"]
            assert (tags["uuid"], tags["cvm"]) == (volume["id"], volume["virtualmachineid"]), tags
            assert tags["disk"] == str(volume["deviceid"]), tags
        domains = host.domains()
        assert sum(state == "running" for state in domains.values()) >= len(vms), domains
    for vm in vms:
        world.guest(str(vm["id"])).ready()
        world.cloud.call("destroyVirtualMachine", id=vm["id"], expunge=True)
    with world.check("expunged, no disk of theirs is attached or a device anywhere"):
        gone = {looks.global_id(volume) for volume in disks}
        assert not [item for item in world.storpool.attachments() if item.get("globalId") in gone]
        for other in world.hosts:
            assert not gone & set(other.devices()), f"devices are left on {other.name}"


def _disks(world: World, vms: Sequence[Json]) -> list[Json]:
    wanted = {vm["id"] for vm in vms}
    listed = steps.many(world.cloud.call("listVolumes", listall=True), "volume")
    return [volume for volume in listed if volume.get("virtualmachineid") in wanted]


def _only_on(world: World, host: Host, disks: Sequence[Json]) -> None:
    wanted = {looks.global_id(volume) for volume in disks}
    seen = [item for item in world.storpool.attachments() if item.get("globalId") in wanted]
    assert {(item["client"], item["rights"]) for item in seen} == {(host.client_id, "rw")}, "some are elsewhere"
    assert len(seen) == len(wanted) == len(disks), f"{len(seen)} attachments of {len(disks)} disks"
    devices = set(host.devices())
    assert wanted <= devices, f"host {host.name} lacks {sorted(wanted - devices)}"
