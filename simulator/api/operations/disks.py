"""Operations on disks (spec storpool-api 2.2, 2.3)."""

from __future__ import annotations

from simulator.api.operation import get, post
from simulator.api.schema import answers
from simulator.cluster import services

OPERATIONS = (
    get(
        "serverDisksList",
        "ServerDisksList/{serverId}",
        handler=services.server_disks_list,
        answer=dict[int, answers.DiskSummary],
        errors=("objectDoesNotExist",),
        capacity=True,
    ),
    get(
        "serverDiskDescribe",
        "ServerDiskDescribe/{serverId}/{diskId}",
        handler=services.server_disk_describe,
        answer=answers.DiskDescription,
        errors=("objectDoesNotExist",),
        capacity=True,
    ),
    get("disksList", "DisksList", handler=services.disks_list, answer=dict[int, answers.DiskSummary], capacity=True),
    get(
        "diskDescribe",
        "DiskDescribe/{diskId}",
        handler=services.disk_describe,
        answer=answers.DiskDescription,
        errors=("objectDoesNotExist",),
        capacity=True,
    ),
    post("diskEject", "DiskEject/{diskId}"),
    post("diskForget", "DiskForget/{diskId}"),
    post("diskIgnore", "DiskIgnore/{diskId}"),
    post("diskSoftEject", "DiskSoftEject/{diskId}"),
    post("diskSoftEjectPause", "DiskSoftEjectPause/{diskId}"),
    post("diskSoftEjectCancel", "DiskSoftEjectCancel/{diskId}"),
    post("diskSetDesc", "DiskSetDescription/{diskId}"),
    get("diskActiveRequests", "DiskActiveRequests/{diskId}"),
    post("diskScrubStart", "DiskScrubStart/{diskId}"),
    post("diskScrubPause", "DiskScrubPause/{diskId}"),
    post("diskScrubContinue", "DiskScrubContinue/{diskId}"),
    post("diskRetrim", "DiskRetrim/{diskId}"),
)
