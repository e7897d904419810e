"""Operations on placement groups, fault sets and allocation groups (spec storpool-api 2.7)."""

from __future__ import annotations

from simulator.api.operation import get, post
from simulator.api.schema import answers, relocation, requests
from simulator.cluster import allocation, placement

OPERATIONS = (
    get(
        "placementGroupsList", "PlacementGroupsList", handler=placement.groups_list, answer=dict[str, answers.GroupDesc]
    ),
    get(
        "placementGroupDescribe",
        "PlacementGroupDescribe/{placementGroupName}",
        handler=placement.group_describe,
        answer=answers.GroupDesc,
        errors=("objectDoesNotExist",),
    ),
    post(
        "placementGroupUpdate",
        "PlacementGroupUpdate/{placementGroupName}",
        handler=placement.group_update,
        request=requests.GroupUpdateDesc,
        answer=answers.Ok,
        errors=(
            "objectDoesNotExist",
            "objectExists",
        ),
    ),
    post(
        "placementGroupDelete",
        "PlacementGroupDelete/{placementGroupName}",
        handler=placement.group_delete,
        answer=answers.Ok,
        errors=(
            "objectDoesNotExist",
            "busy",
        ),
    ),
    get("faultSetsList", "FaultSetsList", handler=placement.fault_sets_list, answer=dict[str, answers.FaultSet]),
    get(
        "vagList",
        "VagList/{vagName}",
        handler=allocation.vag_list,
        answer=relocation.VagDesc,
        errors=("objectDoesNotExist",),
    ),
    post(
        "volumeUpdateVag",
        "VolumeUpdateVag/{volumeName}",
        handler=allocation.volume_update_vag,
        request=relocation.UpdateVagDesc,
        answer=answers.Ok,
        errors=("objectDoesNotExist",),
    ),
    post(
        "snapshotUpdateVag",
        "SnapshotUpdateVag/{snapshotName}",
        handler=allocation.snapshot_update_vag,
        request=relocation.UpdateVagDesc,
        answer=answers.Ok,
        errors=("objectDoesNotExist",),
    ),
    post(
        "vagUpdate",
        "VagUpdate",
        handler=allocation.vag_update,
        request=relocation.VagUpdateDesc,
        answer=answers.Ok,
        errors=("objectDoesNotExist",),
    ),
)
