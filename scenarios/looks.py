"""What can be seen from outside of a volume or VM, and claims about it.

Each claim raises `AssertionError` with what was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from harness.observers import CloudApiError, DomainDisk, Host, Json, World
from scenarios.steps import host_of, many, vm_by_id, volume_by_id

PATH_PREFIX = "/dev/storpool-byid/"
LUKS_HEADER = 2 << 20
"""Bytes that an encrypted volume has on StorPool beside those that its guest sees."""


def global_id(volume: Json) -> str:
    """Global id from the volume's path in CloudStack."""
    path = str(volume["path"])
    assert path.startswith(PATH_PREFIX), f"volume {volume['id']} has path {path}, not one under {PATH_PREFIX}"
    return path.removeprefix(PATH_PREFIX)


def serial(volume: Json) -> str:
    """What a guest knows the disk by: the volume's uuid without dashes, 20 characters."""
    return str(volume["id"]).replace("-", "")[:20]


def device_size(volume: Json) -> int:
    """Bytes of the volume on StorPool and on hosts."""
    return int(volume["size"]) + (LUKS_HEADER if "encryptformat" in volume else 0)


def on_storpool(world: World, volume: Json) -> Json:
    """The StorPool volume behind a CloudStack volume."""
    found = world.storpool.volume("~" + global_id(volume))
    assert found is not None, f"StorPool has no volume ~{global_id(volume)} of CloudStack volume {volume['id']}"
    return found


def tags(world: World, volume: Json) -> dict[str, str]:
    """StorPool tags of the volume; an empty value is how CloudStack clears a tag, so it counts as absent."""
    raw = on_storpool(world, volume).get("tags") or {}
    return {str(key): str(value) for key, value in raw.items() if value != ""}


def attachments_of(world: World, global_id: str) -> list[tuple[int, str]]:
    """(client, rights) of every attachment of the object."""
    names = {global_id, "~" + global_id}
    return sorted(
        (int(item["client"]), str(item["rights"]))
        for item in world.storpool.attachments()
        if item.get("globalId") == global_id or item["volume"] in names
    )


def attached_only_to(world: World, volume: Json, host: Host) -> None:
    seen = attachments_of(world, global_id(volume))
    assert seen == [(host.client_id, "rw")], f"{volume['path']} is attached to {seen}, expected rw at {host.client_id}"


def attached_nowhere(world: World, volume: Json) -> None:
    seen = attachments_of(world, global_id(volume))
    assert seen == [], f"{volume['path']} is still attached: {seen}"


def device_only_on(world: World, volume: Json, host: Host) -> None:
    """The device is there, of the volume's size, and no other host has it."""
    gid = global_id(volume)
    size = host.device_size(str(volume["path"]))
    wanted = device_size(volume)
    assert size == wanted, f"{volume['path']} on {host.name} has {size} bytes, expected {wanted}"
    assert gid in host.devices(), f"{gid} is not under {PATH_PREFIX} on {host.name}"
    for other in world.hosts:
        if other.name != host.name:
            assert gid not in other.devices(), f"{gid} is a device on {other.name} too"


def device_nowhere(world: World, volume: Json) -> None:
    for host in world.hosts:
        assert global_id(volume) not in host.devices(), f"{volume['path']} is still a device on {host.name}"


def domain_disk(host: Host, vm: Json, volume: Json) -> DomainDisk | None:
    disks = host.domain_disks(str(vm["instancename"]))
    return next((disk for disk in disks if disk.source == volume["path"]), None)


def _present_disk(host: Host, vm: Json, volume: Json) -> DomainDisk:
    disk = domain_disk(host, vm, volume)
    assert disk is not None, f"domain {vm['instancename']} on {host.name} has no disk {volume['path']}"
    return disk


def disk_in_domain(host: Host, vm: Json, volume: Json) -> None:
    """The domain has the disk, raw, uncached, with discard, the volume's serial and a target that follows its slot."""
    disk = _present_disk(host, vm, volume)
    seen = (disk.serial, disk.driver_type, disk.discard, disk.cache)
    assert seen == (serial(volume), "raw", "unmap", "none"), f"disk {volume['path']} is {disk}"


def disk_not_in_domain(host: Host, vm: Json, volume: Json) -> None:
    disk = domain_disk(host, vm, volume)
    assert disk is None, f"domain {vm['instancename']} on {host.name} still has {disk}"


def domain_has_size(host: Host, vm: Json, volume: Json) -> None:
    """libvirt tells of the running VM's disk the size that CloudStack shows."""
    disk = _present_disk(host, vm, volume)
    seen = host.disk_capacity(str(vm["instancename"]), disk.target)
    assert seen == volume["size"], f"{volume['path']} has {seen} bytes in the domain, expected {volume['size']}"


def guest_sees(world: World, vm: Json, volume: Json) -> None:
    """The guest, once it is up, has or within a minute gets a disk of the volume's serial and size."""
    guest = world.guest(str(vm["id"]))
    guest.boot_id()
    name = serial(volume)
    world.wait_until(f"the guest of {vm['instancename']} sees disk {name}", lambda: name in guest.disks())
    size = guest.disks()[name]
    assert size == volume["size"], f"the guest sees {size} bytes on disk {name}, expected {volume['size']}"


def guest_does_not_see(world: World, vm: Json, volume: Json) -> None:
    guest = world.guest(str(vm["id"]))
    name = serial(volume)
    world.wait_until(f"disk {name} is gone from the guest", lambda: name not in guest.disks())


def has_tags(world: World, volume: Json, **expected: str) -> None:
    """Exactly these values; an expected empty value means absent or cleared."""
    seen = tags(world, volume)
    for key, value in expected.items():
        name = key.replace("_", "-")
        assert seen.get(name, "") == value, (
            f"{volume['path']}: tag {name} is {seen.get(name, '')!r}, expected {value!r}"
        )


def has_vm_tags(world: World, vm: Json, volume: Json) -> None:
    has_tags(world, volume, cs="volume", uuid=str(volume["id"]), cvm=str(vm["id"]), disk=str(volume["deviceid"]))


def fully_attached(world: World, vm: Json, volume: Json) -> None:
    """Row 4's checks, each under its own name."""
    attached(world, vm, volume)
    with world.check("the guest sees the disk"):
        guest_sees(world, vm, volume)


def attached(world: World, vm: Json, volume: Json) -> None:
    """Row 4's checks but the guest's own, for a VM that may have an idle guest."""
    host = host_of(world, vm)
    with world.check("attached read-write to that host's client only"):
        attached_only_to(world, volume, host)
    with world.check("a device of the right size, on that host only"):
        device_only_on(world, volume, host)
    with world.check("disk in the domain with serial, raw, discard"):
        disk_in_domain(host, vm, volume)
    with world.check("tags cs, uuid, cvm, disk"):
        has_vm_tags(world, vm, volume)


def fully_detached(world: World, volume: Json) -> None:
    with world.check("no attachment on StorPool"):
        attached_nowhere(world, volume)
    with world.check("no device on any host"):
        device_nowhere(world, volume)


def gone(world: World, volume: Json) -> None:
    """Nothing is left of a volume that was deleted; `volume` is how CloudStack showed it before."""
    with world.check("StorPool volume gone"):
        found = world.storpool.volume("~" + global_id(volume))
        assert found is None, f"StorPool still has ~{global_id(volume)}: {found}"
    fully_detached(world, volume)


def template_snapshots(world: World, template_id: str) -> list[Json]:
    """Cached snapshots of a template, on all pools; not the one that it may have been made as."""
    return [item for item in world.storpool.snapshots() if _is_cache_of(item, template_id) and not item.get("deleted")]


def _is_cache_of(item: Json, template_id: str) -> bool:
    item_tags = item.get("tags") or {}
    if item_tags.get("vc-policy") == "no":
        return False
    return item_tags.get("cs") == "template" and item_tags.get("uuid") == template_id


def everything(world: World) -> tuple[object, ...]:
    """All that an operation could have changed, comparable: volumes, snapshots, attachments, records.

    Without names on StorPool: the driver takes them from its volumes in the background. Without what was deleted, which
    StorPool lists until it has removed it.
    """
    cloud = world.cloud
    volumes, snapshots = _that_stay(world.storpool.volumes()), _that_stay(world.storpool.snapshots())
    attached = sorted((_of(a), int(a["client"]), str(a["rights"])) for a in world.storpool.attachments())
    records = sorted(
        (str(v["id"]), str(v["state"]), str(v.get("path")), int(v["size"]), str(v.get("virtualmachineid")))
        for v in many(cloud.call("listVolumes", listall=True), "volume")
    )
    vms = sorted(
        (str(v["id"]), str(v["state"]), str(v.get("hostid")))
        for v in many(cloud.call("listVirtualMachines", listall=True), "virtualmachine")
    )
    return (volumes, snapshots, attached, records, vms)


def _that_stay(items: Sequence[Json]) -> list[tuple[str, int, str]]:
    return sorted((str(i["globalId"]), int(i["size"]), _tag_text(i)) for i in items if not i.get("deleted"))


def _of(attachment: Json) -> str:
    return str(attachment.get("globalId") or attachment["volume"])


def _tag_text(item: Json) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((item.get("tags") or {}).items()))


@contextmanager
def refused(world: World, why: str, *codes: int, saying: str = "") -> Iterator[None]:
    """The block must raise `CloudApiError` with one of `codes` and a reason with these words, and change nothing."""
    with world.check(f"refused: {why}"):
        before = everything(world)
        try:
            yield
        except CloudApiError as error:
            assert error.code in codes, f"refused with {error.code}, expected one of {codes}: {error.text}"
            assert error.text.strip(), f"refused with {error.code} and no reason"
            assert saying in error.text, f"refused with {error.text!r}, which does not say {saying!r}"
        else:
            raise AssertionError(f"{why}: it was not refused")
        after = everything(world)
        assert after == before, f"{why}: it was refused, but something changed: {_difference(before, after)}"


def _difference(before: tuple[object, ...], after: tuple[object, ...]) -> str:
    names = ("StorPool volumes", "StorPool snapshots", "attachments", "volume records", "VM records")
    changed = [f"{name}: {old} -> {new}" for name, old, new in zip(names, before, after, strict=True) if old != new]
    return "; ".join(changed)


def fails(work: Callable[[], object]) -> CloudApiError:
    """The error that `work` must end with."""
    try:
        work()
    except CloudApiError as error:
        return error
    raise AssertionError("expected an error of CloudStack's API, but it succeeded")


def reread(world: World, vm: Json) -> Json:
    return vm_by_id(world, str(vm["id"]))


def reread_volume(world: World, volume: Json) -> Json:
    return volume_by_id(world, str(volume["id"]))
