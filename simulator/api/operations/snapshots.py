"""Operations on snapshots (spec storpool-api 2.5)."""

from __future__ import annotations

from simulator.api.operation import get, post
from simulator.api.schema import answers, requests
from simulator.cluster import snapshots, space

OPERATIONS = (
    get(
        "snapshotsList",
        "SnapshotsList",
        multicluster=True,
        handler=snapshots.snapshots_list,
        answer=list[answers.Summary],
    ),
    get(
        "snapshotsSpace",
        "SnapshotsSpace",
        multicluster=True,
        handler=space.snapshots_space,
        answer=list[answers.Space],
        stored=True,
    ),
    get(
        "snapshotList",
        "Snapshot/{snapshotName}",
        multicluster=True,
        handler=snapshots.snapshot_list,
        answer=list[answers.Summary],
        errors=("objectDoesNotExist",),
    ),
    get(
        "snapshotDescribe",
        "SnapshotDescribe/{snapshotName}",
        multicluster=True,
        handler=space.snapshot_describe,
        answer=answers.Description,
        errors=("objectDoesNotExist", "notImplemented"),
    ),
    get(
        "snapshotInfo",
        "SnapshotGetInfo/{snapshotName}",
        multicluster=True,
        handler=space.snapshot_info,
        answer=answers.Info,
        errors=("objectDoesNotExist",),
    ),
    post(
        "snapshotCreate",
        "VolumeSnapshot/{volumeName}",
        multicluster=True,
        handler=snapshots.snapshot_create,
        request=requests.VolumeSnapshotDesc,
        optional=True,
        answer=answers.SnapshotCreated,
        errors=(
            "objectExists",
            "objectDoesNotExist",
            "insufficientResources",
        ),
        capacity=True,
    ),
    post(
        "snapshotUpdate",
        "SnapshotUpdate/{snapshotName}",
        handler=snapshots.snapshot_update,
        request=requests.SnapshotUpdateDesc,
        optional=True,
        answer=answers.Ok,
        errors=(
            "objectExists",
            "objectDoesNotExist",
        ),
    ),
    post(
        "snapshotRebase",
        "SnapshotRebase/{snapshotName}",
        handler=snapshots.snapshot_rebase,
        request=requests.VolumeRebaseDesc,
        optional=True,
        answer=answers.Ok,
        errors=("objectDoesNotExist",),
    ),
    post("snapshotAbandonDisk", "VolumeAbandonDisk/{snapshotName}"),
    post(
        "snapshotDelete",
        "SnapshotDelete/{snapshotName}",
        multicluster=True,
        handler=snapshots.snapshot_delete,
        answer=answers.Ok,
        errors=(
            "objectDoesNotExist",
            "busy",
        ),
    ),
    post(
        "snapshotDeleteById",
        "SnapshotDeleteById/{globalVolumeId}",
        handler=snapshots.snapshot_delete_by_id,
        answer=answers.Ok,
        errors=(
            "objectDoesNotExist",
            "busy",
        ),
    ),
    post("snapshotCreateGroup", "VolumesGroupSnapshot", multicluster=True),
)
