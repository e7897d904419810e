"""Plausible and absurd calls of the whole operation table, and what holds for every answer."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import msgspec

from simulator.api.errors import STATUS
from simulator.api.operation import Operation
from simulator.api.operations import OPERATIONS

IMPLEMENTED = [operation for operation in OPERATIONS if operation.served]
VOLUMES = ["a", "b", "new", "~splab.b.1", "~splab.c.1"]
SNAPSHOTS = ["s", "~splab.b.3", "*splab.b.3", "~zz.b.2"]
ARGUMENTS = {
    "volumeName": VOLUMES,
    "snapshotName": SNAPSHOTS,
    "globalVolumeId": ["splab.b.3"],
    "templateName": ["t", "u"],
    "placementGroupName": ["hdd", "g"],
    "clientId": ["1", "9"],
    "serverId": ["1", "9"],
    "diskId": ["101", "999"],
    "vagName": ["1", "2", "7"],
    "bucketName": ["bucket", "#other"],
    "keyName": ["k", "with/slash"],
}
NUMBERS = [0, 1, 2, 3, 512, 1000, 1024, 4096, 1 << 20, 1 << 21, -1, 1 << 62, 1 << 70]
ABSURD = ["", "list", "x" * 200, "~splab.b.zz", *NUMBERS, *map(str, NUMBERS), True, False, None, "all", "-", 1.5]
SCALARS = st.sampled_from(ABSURD)
ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "volume": st.sampled_from(VOLUMES),
        "snapshot": st.sampled_from(SNAPSHOTS),
        "rw": st.lists(st.sampled_from([1, 2, "3", 4]), max_size=3),
        "ro": st.lists(st.sampled_from([1, 2, "3", 4]), max_size=3),
        "detach": st.just("all") | st.lists(st.sampled_from([1, 2]), max_size=2),
        "force": st.booleans(),
        "mcMode": st.sampled_from(["move", "export"]),
        "onRemoteAttached": st.sampled_from(["detach", "detachForce", "fail", "export"]),
        "allowRemoteExported": st.booleans(),
    },
)
TAGS = st.dictionaries(st.sampled_from(["k", "l", "m n"]), st.sampled_from(["", "v", "w x"]), max_size=2)
PLAUSIBLE: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(["", "new", "u", "a"]),
    "rename": st.sampled_from(["", "new", "u", "b"]),
    "tags": TAGS,
    "reassign": st.lists(ITEMS, max_size=3),
    "addDisks": st.sets(st.sampled_from([101, 202, 303])).map(list),
    "rmDisks": st.sets(st.sampled_from([101, 202])).map(list),
    **{field: st.sampled_from(SNAPSHOTS) for field in ("parent", "parentName", "toSnapshot")},
    **{field: st.sampled_from(["default", "hdd", "none"]) for field in ("placeAll", "placeTail", "placeHead")},
    **{field: st.booleans() for field in ("shrinkOk", "bind", "propagate", "reuseServer", "revertSize")},
    **{field: st.sampled_from([512, 4096, 1 << 20, 1 << 21, 1000]) for field in ("size", "sizeAdd")},
    "baseOn": st.sampled_from(VOLUMES),
    "template": st.sampled_from(["t", "u"]),
    "set": st.dictionaries(st.sampled_from(["k", "with/slash", ""]), st.sampled_from(["", "v"]), max_size=2),
    "vagId": st.sampled_from([1, "2", 3, 7, "parent"]),
    "targetsCount": st.sampled_from([1, 2, 4, 64, 128, 32768, 3]),
    "cmd": st.sampled_from(["start", "start", "commit", "stop"]),
    "diskId": st.sampled_from([101, 202, 301, 999]),
    "onAttached": st.sampled_from(["detach", "detachForce", "fail"]),
    "onRemoteAttached": st.sampled_from(["detach", "detachForce", "fail", "export"]),
    **{field: st.sampled_from(["sofia", "varna", "nowhere"]) for field in ("location", "remoteLocation")},
    "cluster": st.sampled_from(["beta", "gamma", "splab"]),
    "clusterId": st.sampled_from(["splab.c", "zz.b"]),
    **{field: st.sampled_from(["splab.b.3", "splab.c.2", "zz.b.2"]) for field in ("remoteId", "globalSnapshotId")},
    "volume": st.sampled_from(VOLUMES),
    "snapshot": st.sampled_from(SNAPSHOTS),
    "volumes": st.lists(st.sampled_from(VOLUMES), max_size=2),
    "remoteSnapshots": st.lists(
        st.fixed_dictionaries({"location": st.just("varna"), "globalSnapshotId": st.just("zz.b.2")}), max_size=1
    ),
}
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=6
)


def fields(wanted: object) -> list[str]:
    """Names of the fields of a struct, or of the structs in a union."""
    parts = (wanted, *getattr(wanted, "__args__", ()))
    structs = [part for part in parts if isinstance(part, type) and issubclass(part, msgspec.Struct)]
    return sorted({field.encode_name for struct in structs for field in msgspec.structs.fields(struct)})


@st.composite
def one_call(draw: st.DrawFn) -> tuple[Operation, str, object]:
    """Operation, path and JSON; about every second call could succeed."""
    operation = draw(st.sampled_from(IMPLEMENTED))
    path = draw(st.sampled_from(["", "", "MultiCluster/", "RemoteCommand/splab/", "MultiCluster/AllClusters/"]))
    path += operation.path
    for parameter in operation.parameters:
        path = path.replace("{" + parameter + "}", draw(st.sampled_from([*ARGUMENTS[parameter], "9999"])))
    known = fields(operation.request)
    kind = draw(st.sampled_from(["plausible", "plausible", "plausible", "anything", "none"]))
    if kind == "anything":
        return operation, path, draw(ANYTHING)
    if kind == "none" or operation.request is None:
        return operation, path, None
    if not known or draw(st.integers(0, 3)) == 0:
        return operation, path, draw(st.lists(ITEMS, max_size=3))
    chosen = draw(st.sets(st.sampled_from(known), max_size=4))
    return operation, path, {field: draw(PLAUSIBLE.get(field, SCALARS)) for field in sorted(chosen)}


COMMON = {"accessDenied", "invalidParam", "unknownCall", "notImplemented"}
"""Error names that any call may answer; a call that goes to other clusters may also find none that is reached."""


def check(answer: dict[str, Any], status: int, operation: Operation | None = None, path: str = "") -> None:
    everybody = answer["data"]["clusters"] if "AllClusters" in path and "data" in answer else []
    for inner in everybody:
        check(inner if "error" in inner else inner["response"], 200 if "response" in inner else 0, operation)
    if "error" in answer:
        name = answer["error"]["name"]
        elsewhere = operation is not None and operation.flow is not None and name == "unavailable"
        assert operation is None or name in COMMON or name in operation.errors or elsewhere
        assert set(answer["error"]) <= {"name", "descr", "transient"} and answer["error"]["descr"]
        assert status in (STATUS[name], 0) and STATUS[name] != 500
    else:
        assert status == 200 and isinstance(answer["generation"], int) and "data" in answer
