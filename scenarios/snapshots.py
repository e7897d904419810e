"""Volume snapshots: how they are asked for, and what can be seen of them from outside."""

from __future__ import annotations

from harness.observers import Json, World
from scenarios.looks import PATH_PREFIX, attachments_of, serial
from scenarios.steps import GIB, disk_offering, exists, host_of, many, one, volume_by_id

BACKUP = "snapshot.backup.to.secondary"
BYPASS = "sp.bypass.secondary.storage"
RETRY, RETRY_INTERVAL = "backup.retry", "backup.retry.interval"
BACKUP_SECONDS = 600
"""Longer than any backup of the background task, and its retries, take."""
BLOCK = 65536
PLACES = (0, GIB // 2 + 4096 * 5, GIB - BLOCK)
"""Where patterns are written to a disk of at least 1 GiB: its beginning, its middle, and the end of the first GiB."""


def pattern(word: str, place: int) -> bytes:
    """One block that is like no other of this or any other word."""
    return f"{word} at {place}. ".encode().ljust(64, b".") * (BLOCK // 64)


def write(world: World, vm: Json, volume: Json, word: str, places: tuple[int, ...] = PLACES) -> None:
    """The guest writes the word's patterns to the disk, and flushes."""
    guest = world.guest(str(vm["id"]))
    for place in places:
        guest.write(serial(volume), place, pattern(word, place))


def guest_reads(world: World, vm: Json, volume: Json, word: str, places: tuple[int, ...] = PLACES) -> None:
    """What the guest reads, once it is up."""
    guest = world.guest(str(vm["id"]))
    guest.boot_id()
    world.wait_until("the guest has the disk", lambda: serial(volume) in guest.disks())
    for place in places:
        _same(guest.read(serial(volume), place, BLOCK), word, place, f"the guest's disk {volume['name']}")


def device_holds(world: World, vm: Json, volume: Json, word: str, places: tuple[int, ...] = PLACES) -> None:
    """As the VM's host reads the volume's device."""
    host = host_of(world, vm)
    for place in places:
        _same(host.read_device(str(volume["path"]), place, BLOCK), word, place, f"{volume['path']} on {host.name}")


def file_holds(world: World, snapshot: Json, word: str, places: tuple[int, ...] = PLACES) -> None:
    """The one backup of the snapshot on secondary storage is a qcow2 of its size with these patterns."""
    path = backup_file(world, snapshot)
    size = world.secondary.size(path)
    assert size == snapshot["virtualsize"], f"{path} is a disk of {size} bytes, the snapshot has {snapshot}"
    for place in places:
        _same(world.secondary.read(path, place, BLOCK), word, place, path)


def _same(seen: bytes, word: str, place: int, where: str) -> None:
    wanted = pattern(word, place)
    assert seen == wanted, f"{where} at {place}: {seen[:48]!r}, expected {wanted[:48]!r}"


def take(world: World, volume: Json, **parameters: str | int | bool) -> Json:
    answer = world.cloud.call("createSnapshot", volumeid=volume["id"], **parameters)
    return snapshot_by_id(world, str(one(answer, "snapshot")["id"]))


def delete(world: World, snapshot: Json) -> None:
    world.cloud.call("deleteSnapshot", id=snapshot["id"])


def archive(world: World, snapshot: Json) -> Json:
    """Move it to secondary storage."""
    world.cloud.call("archiveSnapshot", id=snapshot["id"])
    return snapshot_by_id(world, str(snapshot["id"]))


def snapshot_by_id(world: World, snapshot_id: str) -> Json:
    return one(world.cloud.call("listSnapshots", id=snapshot_id, showunique=True, listall=True), "snapshot")


def state_of(world: World, snapshot: Json) -> str:
    return str(snapshot_by_id(world, str(snapshot["id"]))["state"])


def snapshots_of(world: World, volume: Json) -> list[Json]:
    answer = world.cloud.call("listSnapshots", volumeid=volume["id"], showunique=True, listall=True)
    return many(answer, "snapshot")


def snapshot_exists(world: World, snapshot: Json) -> bool:
    return exists(world, "listSnapshots", "snapshot", str(snapshot["id"]))


def stores(world: World, snapshot: Json) -> list[str]:
    """Kinds of stores that CloudStack shows it on, each only once."""
    answer = world.cloud.call("listSnapshots", id=snapshot["id"], listall=True)
    return sorted(str(item.get("datastoretype")) for item in many(answer, "snapshot"))


def files_of(world: World, snapshot: Json) -> list[str]:
    return [path for path in world.secondary.backups() if str(snapshot["id"]) in path]


def backup_file(world: World, snapshot: Json) -> str:
    found = files_of(world, snapshot)
    assert len(found) == 1, f"snapshot {snapshot['id']} has these files on secondary storage: {found}"
    return found[0]


def all_on_storpool(world: World, snapshot: Json) -> list[Json]:
    """Every StorPool snapshot that carries its uuid and was not deleted."""
    return [
        item
        for item in world.storpool.snapshots()
        if (item.get("tags") or {}).get("uuid") == snapshot["id"] and not item.get("deleted")
    ]


def on_storpool(world: World, snapshot: Json) -> Json:
    """The one StorPool snapshot, which is the one that CloudStack's detail leads to."""
    found = all_on_storpool(world, snapshot)
    assert len(found) == 1, f"snapshot {snapshot['id']} is on StorPool as {found}"
    answer = world.cloud.call("getVolumeSnapshotDetails", snapshotid=snapshot["id"])
    details = {d["snapshotDetailsName"]: d["snapshotDetailsValue"] for d in many(answer, "apivolumesnapshotdetails")}
    path = details.get(snapshot["id"])
    assert path == PATH_PREFIX + str(found[0]["globalId"]), f"the detail says {path}, StorPool has {found[0]}"
    return found[0]


def attached_nowhere(world: World, gid: str) -> None:
    """No host has the object, on StorPool or as a device."""
    seen = attachments_of(world, gid)
    assert seen == [], f"~{gid} is attached: {seen}"
    for host in world.hosts:
        assert gid not in host.devices(), f"~{gid} is a device on {host.name}"


def volume_from(
    world: World, snapshot: Json, offering_id: str | None = None, size: int = 1, **parameters: str | int | bool
) -> Json:
    """A DATA volume made from the snapshot, of `size` GiB."""
    answer = world.cloud.call(
        "createVolume",
        name=world.name("from-snapshot"),
        snapshotid=snapshot["id"],
        diskofferingid=offering_id or disk_offering(world),
        size=size,
        **parameters,
    )
    return volume_by_id(world, str(one(answer, "volume")["id"]))
