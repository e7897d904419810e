"""Whatever is sent, the answer is JSON with a known error name or data, and a restart knows it all again."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import given, settings

from simulator.api.errors import STATUS
from simulator.api.operation import Operation
from simulator.api.operations import OPERATIONS
from simulator.effects import Done, Work
from simulator.inprocess import Asked, InProcess, connected
from simulator.settings import KnownCluster

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
"""Error names that any call may answer; none of these calls is for a cluster that is not there."""


def check(answer: dict[str, Any], status: int, operation: Operation | None = None, path: str = "") -> None:
    everybody = answer["data"]["clusters"] if "AllClusters" in path and "data" in answer else []
    for inner in everybody:
        check(inner if "error" in inner else inner["response"], 200 if "response" in inner else 0, operation)
    if "error" in answer:
        name = answer["error"]["name"]
        assert operation is None or name in COMMON or name in operation.errors
        assert set(answer["error"]) <= {"name", "descr", "transient"} and answer["error"]["descr"]
        assert status in (STATUS[name], 0) and STATUS[name] != 500
    else:
        assert status == 200 and isinstance(answer["generation"], int) and "data" in answer


def neighbours() -> list[InProcess]:
    """Three clusters, each with a volume and an exported snapshot of it."""
    clusters = connected(
        KnownCluster(cluster_id="splab.b", name="splab", location="sofia"),
        KnownCluster(cluster_id="splab.c", name="beta", location="sofia"),
        KnownCluster(cluster_id="zz.b", name="gamma", location="varna"),
    )
    for simulator, location in zip(clusters[1:], ("varna", "sofia"), strict=True):
        simulator.post("VolumeCreate", {"size": 1 << 20})
        snapshot = simulator.post(f"VolumeSnapshot/~{simulator.settings.cluster_id}.1", {})["snapshotGlobalId"]
        simulator.post("SnapshotExport", {"snapshot": "~" + snapshot, "location": location})
    return clusters


@settings(max_examples=100, deadline=None)
@given(calls=st.lists(st.tuples(one_call(), st.integers(0, 2)), min_size=12, max_size=30), alone=st.booleans())
def test_any_sequence_of_plausible_and_absurd_calls(calls: list[Any], alone: bool) -> None:
    clusters = [InProcess()] if alone else neighbours()
    for name in ("a", "b"):
        clusters[0].post("VolumeCreate", {"name": name, "size": 1 << 20})
    clusters[0].post("VolumeSnapshot/a", {"name": "s"})
    clusters[0].post("VolumeTemplateCreate", {"name": "t", "size": 512})
    for (operation, path, body), at in calls:
        asked = clusters[at % len(clusters)].ask(
            operation.verb, path, b"" if body is None else json.dumps(body).encode()
        )
        assert asked.reply is not None
        check(json.loads(asked.reply.body), asked.reply.status, operation, path)
        for simulator in clusters:
            simulator.advance(0.3)
    for simulator in clusters:
        simulator.service.tick()
    states = [simulator.service.encoded_state() for simulator in clusters]
    for simulator in clusters:
        simulator.restart()
        assert simulator.service.mended == []
    assert [simulator.service.encoded_state() for simulator in clusters] == states


class InAnyOrder:
    """Effects that end when Hypothesis says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Work, Done]] = []

    def start(self, work: Work, done: Done) -> None:
        self.waiting.append((work, done))

    def finish(self, at: int) -> None:
        work, done = self.waiting.pop(at % len(self.waiting))
        done(work())


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(one_call() | st.integers(0, 5) | st.just("kill"), min_size=15, max_size=40))
def test_effects_that_end_in_any_order_leave_blocks_and_journal_agreed(steps: list[Any]) -> None:
    effects = InAnyOrder()
    simulator = InProcess(effects=effects)
    answered: list[Asked] = []
    for name in ("a", "b"):
        simulator.ask("POST", "VolumeCreate", b'{"name": "%s", "size": 1048576}' % name.encode())
        effects.finish(0)
    for step in steps:
        simulator.advance(0.2)
        if step == "kill":
            simulator.restart()
            effects.waiting.clear()
            answered.clear()
        elif isinstance(step, int):
            if effects.waiting:
                effects.finish(step)
        else:
            operation, path, body = step
            answered.append(simulator.ask(operation.verb, path, b"" if body is None else json.dumps(body).encode()))
    while effects.waiting:
        effects.finish(-1)
    assert all(asked.reply is not None for asked in answered)
    state = simulator.service.encoded_state()
    simulator.restart()
    assert simulator.service.encoded_state() == state
    assert simulator.service.mended == []


@settings(max_examples=150, deadline=None)
@given(
    verb=st.sampled_from(["GET", "POST", "PUT"]),
    path=st.text(st.characters(exclude_categories=()), max_size=30),
    body=st.binary(max_size=30),
)
def test_noise_is_refused_in_json(verb: str, path: str, body: bytes) -> None:
    simulator = InProcess()
    for start in ("/", "/ctrl/1.0/", "/ctrl/1.0/KV/", "/ctrl/1.0/VolumeCreate/", "/_sim/", "/ctrl/1.0/RemoteCommand/"):
        asked = simulator.ask(verb, start + path, body)
        assert asked.reply is not None
        check(json.loads(asked.reply.body), asked.reply.status)
