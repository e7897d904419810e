"""Used space and health of volumes and snapshots."""

from __future__ import annotations

from simulator.api.errors import Refused
from simulator.api.schema.answers import ChainCount, Description, Info, QuickStatus, Space, Status, VolumesAndSnapshots
from simulator.cluster import disksets
from simulator.cluster.plan import Call
from simulator.cluster.records import Object
from simulator.cluster.summary import fields, objects_count

DESCRIBED_OBJECTS = 1 << 22
"""Most objects that a Describe call lists, 128 TiB of a volume: the answer grows by some 14 bytes for each."""


def _own(call: Call, found: Object) -> int:
    """Bytes that are not the parent's, as well as they can be told: overwritten ones count as the parent's."""
    return max(0, call.stored.get(found.id, 0) - call.stored.get(found.parent, 0))


def _space(call: Call, found: Object) -> Space:
    own = _own(call, found)
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
    for found in call.state.objects.values():
        stored = call.stored.get(found.id, 0)
        shown[found.shown_name] = Status(storedSize=stored, onDiskSize=stored, **fields(call, found))
    return shown


def volumes_quick_status(call: Call) -> dict[str, QuickStatus]:
    return {found.shown_name: QuickStatus(**fields(call, found)) for found in call.state.objects.values()}


def volume_info(call: Call) -> Info:
    return _info(call, call.state.volume(call.args[0]))


def snapshot_info(call: Call) -> Info:
    return _info(call, call.state.snapshot(call.args[0]))


def volume_describe(call: Call) -> Description:
    return _description(call, call.state.volume(call.args[0]))


def snapshot_describe(call: Call) -> Description:
    return _description(call, call.state.snapshot(call.args[0]))


def _info(call: Call, found: Object) -> Info:
    disks = disksets.placed(call.state, found)[0]
    count = objects_count(found.size)
    return Info(
        disksCount=len(disks),
        objectsPerDisk=dict.fromkeys(disks, count),
        objectsPerChain=[ChainCount(disks=disks, count=count)],
        objectsPerDiskSet=[ChainCount(disks=disks, count=count)],
        **fields(call, found),
    )


def _description(call: Call, found: Object) -> Description:
    count = objects_count(found.size)
    if count > DESCRIBED_OBJECTS:
        text = f"'{found.shown_name}' has {count} objects; this simulator describes at most {DESCRIBED_OBJECTS}"
        raise Refused("notImplemented", text)
    placed = disksets.placed(call.state, found)
    objects = [placed[at % len(placed)] for at in range(count)]
    return Description(targetDiskSets=disksets.targets(call.state, found), objects=objects, **fields(call, found))
