"""Operations on placement groups, fault sets and allocation groups (spec storpool-api 2.7)."""

from __future__ import annotations

from simulator.api.operation import get, post
from simulator.api.schema import answers, requests
from simulator.cluster import placement

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
    get("vagList", "VagList/{vagName}"),
    post("volumeUpdateVag", "VolumeUpdateVag/{volumeName}"),
    post("snapshotUpdateVag", "SnapshotUpdateVag/{snapshotName}"),
    post("vagUpdate", "VagUpdate"),
)
