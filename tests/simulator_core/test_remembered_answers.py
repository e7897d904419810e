"""What was listed is remembered: a list must say the same as if nothing had been listed before it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulator.cluster import health
from simulator.inprocess import ApiError, InProcess

MB = 1 << 20
VOLUMES = st.sampled_from(["a", "b", "c"])
SNAPSHOTS = st.sampled_from(["s", "t"])


def call(path: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return path, fields


CHANGES = st.one_of(
    st.builds(lambda name, new: call(f"VolumeUpdate/{name}", rename=new), VOLUMES, VOLUMES),
    st.builds(lambda name: call(f"VolumeUpdate/{name}", tags={"k": "v"}, template="two"), VOLUMES),
    st.builds(lambda name: call(f"VolumeUpdate/{name}", sizeAdd=MB), VOLUMES),
    st.builds(lambda name, parent: call("VolumeCreate", name=name, parent=parent), VOLUMES, SNAPSHOTS),
    st.builds(lambda name, source: call("VolumeCreate", name=name, baseOn=source), VOLUMES, VOLUMES),
    st.builds(lambda name: call(f"VolumeDelete/{name}"), VOLUMES),
    st.builds(lambda name, snapshot: call(f"VolumeSnapshot/{name}", name=snapshot), VOLUMES, SNAPSHOTS),
    st.builds(lambda name, snapshot: call(f"VolumeRevert/{name}", toSnapshot=snapshot), VOLUMES, SNAPSHOTS),
    st.builds(lambda name, new: call(f"SnapshotUpdate/{name}", rename=new), SNAPSHOTS, SNAPSHOTS),
    st.builds(lambda name: call(f"SnapshotDelete/{name}"), SNAPSHOTS),
    st.builds(lambda name: call("SnapshotExport", snapshot=name, location="varna"), SNAPSHOTS),
    st.builds(lambda name: call("SnapshotUnexport", snapshot=name, location="varna"), SNAPSHOTS),
    st.sampled_from(
        [
            call("VolumeTemplateUpdate/one", rename="two"),
            call("VolumeTemplateUpdate/two", rename="one"),
            call("PlacementGroupUpdate/default", rename="other"),
            call("PlacementGroupUpdate/other", rename="default"),
        ]
    ),
)


def listed(simulator: InProcess) -> list[Any]:
    return [
        simulator.get(prefix + query)
        for prefix in ("", "MultiCluster/")
        for query in ("VolumesList", "SnapshotsList", "VolumesGetStatusQuick")
    ]


EXPORT = {"snapshot": "s", "location": "varna"}


def at_once(*calls: tuple[str, dict[str, Any]]) -> list[tuple[tuple[str, dict[str, Any]], int]]:
    return [(one, 0) for one in calls]


# What seldom is drawn: an export that ends, a deleted parent that loses its last child, snapshots whose volume goes.
@example(changes=at_once(call("SnapshotExport", **EXPORT), call("SnapshotUnexport", **EXPORT)))
@example(changes=at_once(call("SnapshotDelete/t"), call("VolumeDelete/b")))
@example(changes=at_once(call("VolumeUpdate/a", rename="c"), call("VolumeDelete/c")))
@given(changes=st.lists(st.tuples(CHANGES, st.sampled_from([0, 0, 2])), max_size=8))
def test_lists_say_what_is_whatever_was_listed_before(changes: list[tuple[tuple[str, dict[str, Any]], int]]) -> None:
    simulator = InProcess()
    simulator.post("LocationAdd", {"id": "zz", "name": "varna"})
    simulator.post("VolumeTemplateCreate", {"name": "one", "placeAll": "default"})
    simulator.post("VolumeCreate", {"name": "a", "size": MB, "template": "one"})
    simulator.post("VolumeSnapshot/a", {"name": "s"})
    simulator.post("VolumeSnapshot/a")
    simulator.post("VolumeCreate", {"name": "c", "size": MB})
    simulator.post("VolumeSnapshot/c", {"name": "t"})
    simulator.post("VolumeDelete/c")
    simulator.post("VolumeCreate", {"name": "b", "parent": "t"})
    for (path, fields), seconds in changes:
        listed(simulator)
        try:
            simulator.post(path, fields or None)
        except ApiError:
            continue
        simulator.advance(seconds)
        remembered = listed(simulator)
        simulator.restart()
        assert remembered == listed(simulator)


STEPS: tuple[tuple[str, dict[str, Any] | None, float], ...] = (
    ("PlacementGroupUpdate/few", {"addDisks": [101, 201]}, 0),
    ("VolumeCreate", {"name": "short", "size": MB, "placeAll": "few", "replication": 2}, 0),
    ("PlacementGroupUpdate/few", {"addDisks": [301], "rmDisks": [101]}, 0),
    ("PlacementGroupUpdate/few", {"rmDisks": [201]}, 0),
    ("VolumeUpdate/short", {"placeAll": "default"}, 0),
    ("VolumeUpdate/short", None, 300),
    ("/_sim/disk/101", {"up": False}, 0),
    ("/_sim/disk/101", {"up": True}, 0.5),
    ("/_sim/disk/101", None, 60),
    ("DiskSoftEject/202", None, 5),
    ("DiskSoftEjectCancel/202", None, 0),
    ("/_sim/server/1", {"running": False}, 0),
    ("/_sim/server/1", {"running": True}, 0.5),
    ("", None, 60),
)


def test_health_that_is_known_at_a_glance_is_what_a_look_at_every_disk_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = InProcess()
    simulator.post("VolumeCreate", {"name": "v", "size": 100 << 30})
    seen = set()
    for path, fields, seconds in STEPS:
        with contextlib.suppress(ApiError):
            simulator.post(path, fields)
        simulator.advance(seconds)
        simulator.service.tick()
        glance = simulator.get("VolumesGetStatus")
        with monkeypatch.context() as patched:
            patched.setattr(health, "undisturbed", lambda _call: False)
            assert simulator.get("VolumesGetStatus") == glance, path
        seen |= {(one["status"], one["migrating"], one["decreasedRedundancy"]) for one in glance.values()}
    assert {("up", False, False), ("up", False, True), ("up", True, False)} <= seen
