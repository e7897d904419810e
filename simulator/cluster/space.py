"""Used space and health of volumes and snapshots."""

from __future__ import annotations

from typing import Any

from simulator.api.errors import Refused
from simulator.api.schema.answers import ChainCount, Description, Info, QuickStatus, Space, Status, VolumesAndSnapshots
from simulator.cluster import disks, disksets, health, usage
from simulator.cluster.plan import Call
from simulator.cluster.records import Object
from simulator.cluster.summary import fields, objects_count

DESCRIBED_OBJECTS = 1 << 22
"""Most objects that a Describe call lists, 128 TiB of a volume: the answer grows by some 14 bytes for each."""


def _space(call: Call, found: Object) -> Space:
    own = usage.own(call, found)
    shared = found.snapshot and found.id in call.state.children
    used = 0 if shared else own if found.snapshot else call.stored.get(found.id, 0)
    return Space(storedSize=min(own, found.size), spaceUsed=used, **fields(call, found))


def volumes_space(call: Call) -> list[Space]:
    return [_space(call, found) for found in call.state.objects.values() if not found.snapshot]


def snapshots_space(call: Call) -> list[Space]:
    return [_space(call, found) for found in call.state.objects.values() if found.snapshot]


def volumes_and_snapshots(call: Call) -> VolumesAndSnapshots:
    return VolumesAndSnapshots(volumes=[_space(call, found) for found in call.state.objects.values()])


def volumes_status(call: Call) -> dict[str, Status]:
    shown = {}
    undisturbed = health.undisturbed(call)
    for found in call.state.objects.values():
        stored = call.stored.get(found.id, 0)
        shown[found.shown_name] = Status(
            storedSize=stored,
            onDiskSize=stored * found.replication,
            **_health(call, found, undisturbed),
            **fields(call, found),
        )
    return shown


def volumes_quick_status(call: Call) -> dict[str, QuickStatus]:
    undisturbed = health.undisturbed(call)
    return {
        found.shown_name: QuickStatus(**_health(call, found, undisturbed), **fields(call, found))
        for found in call.state.objects.values()
    }


def _health(call: Call, found: Object, undisturbed: bool) -> dict[str, Any]:  # Any: each field has its own type
    """What the disks of its copies make of it; what differs from a healthy object's, when nothing disturbs any disk."""
    if undisturbed and disksets.complete(call, found):
        return {}
    known = call.state.disks
    placed, targets = disksets.both(call, found)
    used = {disk for each in placed for disk in each}
    up = {disk for disk in used if health.disk_up(call.state, known[disk])}
    good = {disk for disk in up if health.recovered(call, known[disk]) >= 1.0}
    behind = [1 - health.recovered(call, known[disk]) for disk in up - good]
    dead = [each for each in placed if not up & set(each)]
    lost = [each for each in placed if not each]
    waiting = [each for each in placed if up & set(each) and not good & set(each)]
    short = any(len(good & set(each)) < found.replication for each in placed)
    wanted = {disk for each in targets for disk in each}
    status = "data lost" if lost else "down" if dead else "up soon" if waiting else "up"
    return {
        "status": status,
        "migrating": disksets.differ(placed, targets, len(placed)),
        "decreasedRedundancy": short,
        "balancerBlocked": any(health.blocks_balancing(call.state, known[disk]) for disk in wanted | used),
        "syncingDataBytes": int(sum(behind) * found.size / max(1, len(used))),
        "syncingMetaObjects": len(behind),
        "downBytes": found.size * len(dead) // len(placed),
        "upSoonChainsCount": len(waiting),
        "downDrives": sorted(used - up),
        "missingTargetDrives": sorted(disk for disk in wanted if not health.disk_up(call.state, known[disk])),
        "softEjectingDrives": sorted(disk for disk in used if known[disk].soft_eject != "off"),
    }


def volume_info(call: Call) -> Info:
    return _info(call, call.state.volume(call.args[0]))


def snapshot_info(call: Call) -> Info:
    return _info(call, call.state.snapshot(call.args[0]))


def volume_describe(call: Call) -> Description:
    return _description(call, call.state.volume(call.args[0]))


def snapshot_describe(call: Call) -> Description:
    return _description(call, call.state.snapshot(call.args[0]))


def _info(call: Call, found: Object) -> Info:
    per_disk = disks.share(call, found)
    placed = disksets.placed(call, found)
    whole, rest = divmod(objects_count(found.size), len(placed))
    sets = [ChainCount(disks=each, count=whole + (at < rest)) for at, each in enumerate(placed)]
    return Info(
        disksCount=len(per_disk),
        objectsPerDisk=per_disk,
        objectsPerChain=sets,
        objectsPerDiskSet=sets,
        **fields(call, found),
    )


def _description(call: Call, found: Object) -> Description:
    count = objects_count(found.size)
    if count > DESCRIBED_OBJECTS:
        text = f"'{found.shown_name}' has {count} objects; this simulator describes at most {DESCRIBED_OBJECTS}"
        raise Refused("notImplemented", text)
    placed = disksets.placed(call, found)
    objects = [placed[at % len(placed)] for at in range(count)]
    return Description(targetDiskSets=disksets.targets(call.state, found), objects=objects, **fields(call, found))
