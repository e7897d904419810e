"""What calls between clusters refuse by name, and then have changed no cluster (spec storpool-api 7.8, 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from core_rig import Bindings

from simulator.inprocess import ApiError, connected
from simulator.settings import KnownCluster

MB = 1 << 20


@dataclass
class Three:
    """`near` is in the location of `here`, `far` in another; `here` has v and its snapshot s, exported to `far`."""

    here: Bindings
    near: Bindings
    far: Bindings

    def fill(self, name: str) -> None:
        """Let a cluster's pool be as good as full."""
        simulator = getattr(self, name).simulator
        simulator.restart(msgspec.structs.replace(simulator.settings, minimum_free_bytes=1 << 60))

    def shown(self) -> list[list[Any]]:
        """What each cluster has; a refusal on the way may cost serials and generations."""
        queries = ("VolumesList", "SnapshotsList", "ExportsList", "VolumeExportsList", "AttachmentsList")
        return [[rig.simulator.get(query) for query in queries] for rig in (self.here, self.near, self.far)]

    def refuse(self, name: str, at: str, path: str, json: Any) -> None:
        before = self.shown()
        with pytest.raises(ApiError) as refused:
            getattr(self, at).simulator.post(path, json)
        assert refused.value.name == name, refused.value
        for _ in range(3):  # what is deleted on the way goes in its time
            for rig in (self.here, self.near, self.far):
                rig.simulator.advance(5)
                rig.simulator.service.tick()
        assert self.shown() == before


@pytest.fixture
def three() -> Three:
    clusters = connected(
        KnownCluster(cluster_id="aa.b", name="alpha", location="sofia"),
        KnownCluster(cluster_id="aa.c", name="beta", location="sofia"),
        KnownCluster(cluster_id="zz.b", name="gamma", location="varna"),
    )
    made = Three(*map(Bindings, clusters))
    made.here.strict.volumeCreate({"name": "v", "size": MB})
    made.here.strict.snapshotCreate("v", {"name": "s"})
    made.here.strict.snapshotExport({"snapshot": "s", "location": "varna"})
    for rig in (made.near, made.far):
        rig.strict.volumeCreate({"name": "v", "size": MB})
        rig.strict.volumeCreate({"name": "held", "size": MB})
        rig.strict.volumesReassign([{"volume": "held", "rw": [1]}])
    made.here.strict.volumeCreate({"name": "w", "size": MB})
    made.here.strict.snapshotCreate("w", {"name": "loose"})
    made.here.strict.volumeDelete("w")
    made.near.strict.volumeCreate({"name": "loose", "size": MB})
    made.here.strict.volumesReassign([{"snapshot": "s", "ro": [1]}])
    return made


FROM = {"remoteLocation": "sofia", "remoteId": "aa.b.2", "name": "new"}
REFUSALS: dict[str, tuple[str, str, str, Any]] = {
    "backup of nothing": ("objectDoesNotExist", "here", "VolumeBackup", {"volume": "none", "location": "varna"}),
    "backup to nowhere": ("objectDoesNotExist", "here", "VolumeBackup", {"volume": "v", "location": "lom"}),
    "group with nothing": (
        "objectDoesNotExist",
        "here",
        "VolumesGroupBackup",
        {"volumes": ["v", "none"], "location": "varna"},
    ),
    "acquired while attached": ("busy", "here", "MultiCluster/VolumeAcquire/held", {}),
    "acquired under a name that is taken": ("objectExists", "here", "MultiCluster/VolumeAcquire/~aa.c.1", {}),
    "volume of nothing": ("objectDoesNotExist", "far", "VolumeFromRemote", {**FROM, "remoteId": "aa.b.zz"}),
    "volume under a name that is taken": ("objectExists", "far", "VolumeFromRemote", {**FROM, "name": "v"}),
    "reconciled nothing": ("objectDoesNotExist", "here", "SnapshotReconcile/none", None),
    "reconciled no name": ("invalidParam", "here", "SnapshotReconcile/a b", None),
    "snapshot moved while attached": ("busy", "here", "SnapshotMoveToRemote/s", {"clusterId": "aa.c"}),
    "snapshot moved to a name that is taken": (
        "objectExists",
        "here",
        "SnapshotMoveToRemote/loose",
        {"clusterId": "aa.c"},
    ),
    "nothing exported": ("objectDoesNotExist", "here", "SnapshotExport", {"snapshot": "none", "location": "varna"}),
    "exported to nowhere": ("objectDoesNotExist", "here", "SnapshotExport", {"snapshot": "s", "location": "lom"}),
    "nothing unexported": ("objectDoesNotExist", "here", "SnapshotUnexport", {"snapshot": "none", "all": True}),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_call_between_clusters_is_refused(three: Three, case: str) -> None:
    name, at, path, json = REFUSALS[case]
    three.refuse(name, at, path, json)


@pytest.mark.parametrize(
    ("full", "at", "path", "json"),
    [
        ("far", "here", "VolumeBackup", {"volume": "v", "location": "varna"}),
        ("far", "here", "VolumesGroupBackup", {"volumes": ["v"], "location": "varna"}),
        ("near", "here", "VolumeMoveToRemote/only", {"clusterId": "aa.c"}),
        ("here", "here", "MultiCluster/VolumeAcquire/there", {}),
        ("far", "far", "VolumeFromRemote", FROM),
        ("far", "far", "SnapshotFromRemote", FROM),
        ("near", "here", "SnapshotMoveToRemote/free", {"clusterId": "aa.c"}),
    ],
)
def test_a_full_cluster_takes_nothing_from_others(three: Three, full: str, at: str, path: str, json: Any) -> None:
    three.here.strict.volumeCreate({"name": "only", "size": MB})
    three.here.strict.volumeCreate({"name": "w", "size": MB})
    three.here.strict.snapshotCreate("w", {"name": "free"})
    three.here.strict.volumeDelete("w")
    three.near.strict.volumeCreate({"name": "there", "size": MB})
    three.fill(full)
    three.refuse("insufficientResources", at, path, json)
