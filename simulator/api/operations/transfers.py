"""Operations that bring volumes and snapshots to other clusters and from there (spec storpool-api 2.4, 2.5, 3)."""

from __future__ import annotations

from simulator.api.operation import get, post

OPERATIONS = (
    post("volumeBackup", "VolumeBackup", multicluster=True),
    post("volumesGroupBackup", "VolumesGroupBackup", multicluster=True),
    post("volumeMoveToRemote", "VolumeMoveToRemote/{volumeName}"),
    post("volumeExport", "VolumeExport/{volumeName}"),
    post("volumeAcquire", "VolumeAcquire/{volumeName}", multicluster=True),
    post("volumeFromRemote", "VolumeFromRemote"),
    post("snapshotFromRemote", "SnapshotFromRemote"),
    post("snapshotReconcile", "SnapshotReconcile/{snapshotName}"),
    post("snapshotMoveToRemote", "SnapshotMoveToRemote/{snapshotName}"),
    post("snapshotExport", "SnapshotExport"),
    post("snapshotUnexport", "SnapshotUnexport"),
    get("exportsList", "ExportsList"),
    get("volumeExportsList", "VolumeExportsList"),
    get("snapshotsRemoteList", "SnapshotsRemoteList"),
    get("volumesRemoteList", "VolumesRemoteList"),
    post("snapshotsRemoteUnexport", "SnapshotsRemoteUnexport"),
)
