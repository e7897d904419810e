"""Operations on relocator and balancer (spec storpool-api 2.9, 2.10)."""

from __future__ import annotations

from simulator.api.operation import get, post
from simulator.api.schema import answers
from simulator.api.schema import relocation as schema
from simulator.cluster import balancer, relocator

_DISKS = dict[int, schema.UpDiskTarget | schema.DownDiskTarget]

OPERATIONS = (
    get("volumeRelocatorStatus", "VolumeRelocatorStatus", handler=relocator.status, answer=schema.RelocatorStatus),
    get("volumeRelocatorDisks", "VolumeRelocatorDisksList", handler=relocator.disks_list, answer=_DISKS, stored=True),
    get(
        "volumeRelocatorVolumeDisks",
        "VolumeRelocatorVolumeDisks/{volumeName}",
        handler=relocator.volume_disks,
        answer=_DISKS,
        errors=("objectDoesNotExist",),
        stored=True,
    ),
    get(
        "volumeRelocatorSnapshotDisks",
        "VolumeRelocatorSnapshotDisks/{snapshotName}",
        handler=relocator.snapshot_disks,
        answer=_DISKS,
        errors=("objectDoesNotExist",),
        stored=True,
    ),
    get("volumeBalancerGetStatus", "VolumeBalancerStatus", handler=balancer.status, answer=schema.BalancerStatus),
    post(
        "volumeBalancerSetStatus",
        "VolumeBalancerStatus",
        handler=balancer.command,
        request=schema.BalancerCommand,
        answer=answers.Ok,
        errors=("busy",),
    ),
    get(
        "volumeBalancerVolumesStatus",
        "VolumeBalancerVolumesStatus",
        handler=balancer.volumes_status,
        answer=list[schema.BalancerVolume],
    ),
    get("volumeBalancerDisks", "VolumeBalancerDisksList", handler=balancer.disks_list, answer=_DISKS, stored=True),
    get(
        "volumeBalancerVolumeDisks",
        "VolumeBalancerVolumeDisks/{volumeName}",
        handler=balancer.volume_disks,
        answer=_DISKS,
        errors=("objectDoesNotExist",),
        stored=True,
    ),
    get(
        "volumeBalancerSnapshotDisks",
        "VolumeBalancerSnapshotDisks/{snapshotName}",
        handler=balancer.snapshot_disks,
        answer=_DISKS,
        errors=("objectDoesNotExist",),
        stored=True,
    ),
    get(
        "volumeBalancerVolumeDiskSets",
        "VolumeBalancerVolumeDiskSets/{volumeName}",
        handler=balancer.volume_disk_sets,
        answer=schema.BalancerDiskSets,
        errors=("objectDoesNotExist",),
    ),
    get(
        "volumeBalancerSnapshotDiskSets",
        "VolumeBalancerSnapshotDiskSets/{snapshotName}",
        handler=balancer.snapshot_disk_sets,
        answer=schema.BalancerDiskSets,
        errors=("objectDoesNotExist",),
    ),
)
