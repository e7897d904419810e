"""VM snapshots: how they are asked for, and what can be seen of them from outside."""

from __future__ import annotations

from collections.abc import Sequence

from harness.observers import Json, World
from scenarios import looks
from scenarios.snapshots import PLACES, guest_reads, write
from scenarios.steps import GIB, attach, data_volume, deploy, many, one, shared_template, volume_by_id

COUNTED = 4096
BEHIND_IMAGE = (GIB,)
"""Where patterns are written to a ROOT disk of 2 GiB."""
AT = GIB // 2
"""Where a guest counts on a DATA disk."""


def vm_with_disks(world: World, word: str, *data: Json) -> tuple[Json, list[Json]]:
    """A running VM with a ROOT disk of 2 GiB and these DATA disks, or two new ones, all with the word's patterns."""
    vm = deploy(world, shared_template(world), rootdisksize=2)
    world.guest(str(vm["id"])).boot_id()
    for volume in data or (data_volume(world), data_volume(world, 2)):
        attach(world, volume, vm)
    disks = disks_of(world, vm)
    write_all(world, vm, disks, word)
    return vm, disks


def disks_of(world: World, vm: Json) -> list[Json]:
    """Volumes of the VM, the ROOT volume first."""
    answer = world.cloud.call("listVolumes", virtualmachineid=vm["id"], listall=True)
    return sorted(many(answer, "volume"), key=lambda volume: int(volume["deviceid"]))


def _places(volume: Json) -> tuple[int, ...]:
    return BEHIND_IMAGE if volume["type"] == "ROOT" else PLACES


def write_all(world: World, vm: Json, disks: Sequence[Json], word: str) -> None:
    for volume in disks:
        write(world, vm, volume, word, _places(volume))


def reads_all(world: World, vm: Json, disks: Sequence[Json], word: str) -> None:
    """What the guest reads, once it is up."""
    for volume in disks:
        guest_reads(world, vm, volume, word, _places(volume))


def counted(world: World, vm: Json, volume: Json) -> int:
    """The number that the guest was at."""
    return int(world.guest(str(vm["id"])).read(looks.serial(volume), AT, COUNTED))


def take(world: World, vm: Json, **parameters: str | int | bool) -> Json:
    """With a name of its own unless told. CloudStack names one with "" by the second, and refuses two in one second."""
    wanted = {"name": world.name("vm-snapshot"), **parameters}
    answer = world.cloud.call("createVMSnapshot", virtualmachineid=vm["id"], **wanted)
    return vm_snapshot_by_id(world, str(one(answer, "vmsnapshot")["id"]))


def revert(world: World, snapshot: Json) -> None:
    world.cloud.call("revertToVMSnapshot", vmsnapshotid=snapshot["id"])


def delete(world: World, snapshot: Json) -> None:
    world.cloud.call("deleteVMSnapshot", vmsnapshotid=snapshot["id"])


def vm_snapshot_by_id(world: World, snapshot_id: str) -> Json:
    return one(world.cloud.call("listVMSnapshot", vmsnapshotid=snapshot_id, listall=True), "vmSnapshot")


def vm_snapshots_of(world: World, vm: Json) -> list[Json]:
    return many(world.cloud.call("listVMSnapshot", virtualmachineid=vm["id"], listall=True), "vmSnapshot")


def vm_snapshot_exists(world: World, snapshot: Json) -> bool:
    ids = [item["id"] for item in many(world.cloud.call("listVMSnapshot", listall=True), "vmSnapshot")]
    return snapshot["id"] in ids


def group_of(world: World, snapshot: Json) -> list[Json]:
    """StorPool's snapshots of the VM snapshot that are not being deleted."""
    found = []
    for item in world.storpool.snapshots():
        tags = item.get("tags") or {}
        if tags.get("uuid") == snapshot["id"] and not item.get("deleted"):
            found.append(item)
    return found


def is_whole(world: World, vm: Json, snapshot: Json, disks: Sequence[Json]) -> None:
    """One StorPool snapshot of each disk, of one time, of its size and on its template, with the tags."""
    group = group_of(world, snapshot)
    with world.check("one StorPool snapshot of each disk"):
        seen = sorted((int(item["size"]), str(item["templateName"])) for item in group)
        on_pool = [looks.on_storpool(world, volume) for volume in disks]
        assert seen == sorted((int(item["size"]), str(item["templateName"])) for item in on_pool), (seen, on_pool)
    with world.check("taken at one time"):
        assert len({item["creationTimestamp"] for item in group}) == 1, group
    with world.check("tags uuid, cvm, cs=group on each"):
        wanted = {"uuid": snapshot["id"], "cvm": vm["id"], "cs": "group"}
        for item in group:
            assert item["tags"] == wanted, f"~{item['globalId']} has tags {item['tags']}, expected {wanted}"


def nothing_left(world: World, snapshot: Json) -> None:
    with world.check("CloudStack does not list it any more"):
        assert not vm_snapshot_exists(world, snapshot), f"VM snapshot {snapshot['id']} is still listed"
    with world.check("StorPool has none of its snapshots"):
        assert group_of(world, snapshot) == [], group_of(world, snapshot)


def unchanged(world: World, before: Sequence[Json], seen: Sequence[Json]) -> None:
    """Records of the disks, and what StorPool says of them apart from their ids; `seen` is `on_pool` before."""
    names = ("path", "size", "diskofferingid", "virtualmachineid", "deviceid", "storageid", "state", "name")
    for volume in before:
        now = volume_by_id(world, str(volume["id"]))
        with world.check(f"nothing of the record of {volume['type']} disk {volume['deviceid']} changed"):
            assert {n: now.get(n) for n in names} == {n: volume.get(n) for n in names}, (volume, now)
    with world.check("paths lead to the volumes, with size, tags, limits and template as before"):
        for old, new in zip(seen, on_pool(world, before), strict=True):
            for name in ("size", "tags", "iops", "bw", "templateName"):
                assert new.get(name) == old.get(name), f"{name} was {old.get(name)}, is {new.get(name)}"


def on_pool(world: World, disks: Sequence[Json]) -> list[Json]:
    return [looks.on_storpool(world, volume) for volume in disks]
