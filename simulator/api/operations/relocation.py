"""Operations on relocator and balancer (spec storpool-api 2.9, 2.10)."""

from __future__ import annotations

from simulator.api.operation import get, post

OPERATIONS = (
    get("volumeRelocatorStatus", "VolumeRelocatorStatus"),
    get("volumeRelocatorDisks", "VolumeRelocatorDisksList"),
    get("volumeRelocatorVolumeDisks", "VolumeRelocatorVolumeDisks/{volumeName}"),
    get("volumeRelocatorSnapshotDisks", "VolumeRelocatorSnapshotDisks/{snapshotName}"),
    get("volumeBalancerGetStatus", "VolumeBalancerStatus"),
    post("volumeBalancerSetStatus", "VolumeBalancerStatus"),
    get("volumeBalancerVolumesStatus", "VolumeBalancerVolumesStatus"),
    get("volumeBalancerDisks", "VolumeBalancerDisksList"),
    get("volumeBalancerVolumeDisks", "VolumeBalancerVolumeDisks/{volumeName}"),
    get("volumeBalancerSnapshotDisks", "VolumeBalancerSnapshotDisks/{snapshotName}"),
    get("volumeBalancerVolumeDiskSets", "VolumeBalancerVolumeDiskSets/{volumeName}"),
    get("volumeBalancerSnapshotDiskSets", "VolumeBalancerSnapshotDiskSets/{snapshotName}"),
)
