"""Operations that bring volumes and snapshots to other clusters and from there (spec storpool-api 2.4, 2.5, 3)."""

from __future__ import annotations

from simulator.api.operation import get, post
from simulator.api.schema import answers, transfers
from simulator.cluster import exports
from simulator.multicluster import copying, moving

OPERATIONS = (
    post(
        "volumeBackup",
        "VolumeBackup",
        multicluster=True,
        flow=copying.volume_backup,
        request=transfers.VolumeBackupDesc,
        answer=transfers.VolumeBackedUp,
        errors=("objectDoesNotExist", "insufficientResources"),
    ),
    post(
        "volumesGroupBackup",
        "VolumesGroupBackup",
        multicluster=True,
        flow=copying.volumes_group_backup,
        request=transfers.VolumesGroupBackupDesc,
        answer=transfers.VolumesBackedUp,
        errors=("objectDoesNotExist", "insufficientResources"),
    ),
    post(
        "volumeMoveToRemote",
        "VolumeMoveToRemote/{volumeName}",
        flow=moving.volume_move_to_remote,
        request=transfers.MoveToRemoteDesc,
        answer=answers.Ok,
        errors=("objectDoesNotExist", "objectExists", "busy", "insufficientResources"),
    ),
    post(
        "volumeExport",
        "VolumeExport/{volumeName}",
        handler=exports.volume_export,
        request=transfers.ClusterChoice,
        answer=answers.Ok,
        errors=("objectDoesNotExist",),
    ),
    post(
        "volumeAcquire",
        "VolumeAcquire/{volumeName}",
        multicluster=True,
        flow=moving.volume_acquire,
        request=transfers.VolumeAcquireDesc,
        optional=True,
        answer=answers.Ok,
        errors=("objectDoesNotExist", "objectExists", "busy", "insufficientResources"),
    ),
    post(
        "volumeFromRemote",
        "VolumeFromRemote",
        flow=copying.volume_from_remote,
        request=transfers.VolumeFromRemoteDesc,
        answer=answers.Ok,
        errors=("objectDoesNotExist", "objectExists", "insufficientResources"),
    ),
    post(
        "snapshotFromRemote",
        "SnapshotFromRemote",
        flow=copying.snapshot_from_remote,
        request=transfers.FromRemoteDesc,
        answer=answers.Ok,
        errors=("objectDoesNotExist", "objectExists", "insufficientResources"),
    ),
    post(
        "snapshotReconcile",
        "SnapshotReconcile/{snapshotName}",
        flow=copying.snapshot_reconcile,
        answer=answers.Ok,
        errors=("objectDoesNotExist", "busy"),
    ),
    post(
        "snapshotMoveToRemote",
        "SnapshotMoveToRemote/{snapshotName}",
        flow=moving.snapshot_move_to_remote,
        request=transfers.MoveToRemoteDesc,
        answer=answers.Ok,
        errors=("objectDoesNotExist", "objectExists", "busy", "insufficientResources"),
    ),
    post(
        "snapshotExport",
        "SnapshotExport",
        handler=exports.snapshot_export,
        request=transfers.SnapshotExportDesc,
        answer=answers.Ok,
        errors=("objectDoesNotExist",),
    ),
    post(
        "snapshotUnexport",
        "SnapshotUnexport",
        flow=copying.snapshot_unexport,
        request=transfers.SnapshotUnexportDesc,
        answer=answers.Ok,
        errors=("objectDoesNotExist", "busy"),
    ),
    get("exportsList", "ExportsList", handler=exports.exports_list, answer=transfers.Exports),
    get("volumeExportsList", "VolumeExportsList", handler=exports.volume_exports_list, answer=transfers.Exports),
    get(
        "snapshotsRemoteList",
        "SnapshotsRemoteList",
        flow=copying.snapshots_remote_list,
        answer=transfers.RemoteSnapshots,
    ),
    get("volumesRemoteList", "VolumesRemoteList", flow=copying.volumes_remote_list, answer=transfers.RemoteVolumes),
    post(
        "snapshotsRemoteUnexport",
        "SnapshotsRemoteUnexport",
        flow=copying.snapshots_remote_unexport,
        request=transfers.SnapshotsRemoteUnexportDesc,
        answer=answers.Ok,
        errors=("objectDoesNotExist",),
    ),
)
