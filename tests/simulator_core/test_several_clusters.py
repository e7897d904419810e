"""Clusters of one process that reach each other: two of one location, one of another (spec 1.1, 7.8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from core_rig import TWO_CLUSTERS, Bindings

from simulator.api.operations import NEWER, transfers
from simulator.api.paths import BRIDGE_BASE
from simulator.inprocess import ApiError, InProcess, connected
from simulator.settings import KnownCluster

GIB = 1 << 30
MIB = 1 << 20


@dataclass
class Site:
    """`near` is in the same location as `here`, `far` in another."""

    here: InProcess
    near: InProcess
    far: InProcess

    @property
    def all(self) -> tuple[InProcess, ...]:
        return self.here, self.near, self.far

    def advance(self, seconds: float) -> None:
        for one in self.all:
            one.advance(seconds)
        for _ in range(3):
            for one in self.all:
                one.service.tick()


@pytest.fixture
def site() -> Site:
    return Site(
        *connected(
            *TWO_CLUSTERS,
            KnownCluster(cluster_id="zz.b", name="gamma", location="varna"),
        )
    )


def volume(cluster: InProcess, name: str = "", **fields: Any) -> str:
    """Global id of a new volume with a pattern in its first and last MiB."""
    made = cluster.post("VolumeCreate", {"name": name, "size": GIB, **fields})
    write(cluster, made["globalId"], 0, b"first" * 100)
    write(cluster, made["globalId"], GIB - MIB, b"last" * 100)
    return str(made["globalId"])


def write(cluster: InProcess, global_id: str, offset: int, data: bytes) -> None:
    cluster.blocks.write(cluster.service.object_keys()[global_id], offset, data)


def read(cluster: InProcess, global_id: str, offset: int, length: int) -> bytes:
    return cluster.blocks.read(cluster.service.object_keys()[global_id], offset, length)


def contents(cluster: InProcess, global_id: str) -> bytes:
    return read(cluster, global_id, 0, MIB) + read(cluster, global_id, GIB - MIB, MIB)


def refused(name: str, cluster: InProcess, path: str, body: object = None) -> ApiError:
    before = cluster.service.encoded_state()
    with pytest.raises(ApiError) as error:
        cluster.post(path, body)
    assert error.value.name == name, error.value
    assert cluster.service.encoded_state() == before
    return error.value


def snapshot(cluster: InProcess, global_id: str, **fields: Any) -> str:
    return str(cluster.post(f"VolumeSnapshot/~{global_id}", fields)["snapshotGlobalId"])


def test_a_remote_command_is_carried_out_by_the_cluster_that_is_named(site: Site) -> None:
    site.here.post("RemoteCommand/gamma/VolumeCreate", {"name": "there", "size": GIB})
    site.here.post("RemoteCommand/~aa.c/MultiCluster/VolumeCreate", {"name": "near", "size": GIB})
    assert [one["name"] for one in site.far.get("VolumesList")] == ["there"]
    assert [one["name"] for one in site.near.get("VolumesList")] == ["near"]
    assert site.here.get("RemoteCommand/alpha/VolumesList") == []
    found = site.here.get("RemoteCommand/gamma/Volume/there")
    assert found[0]["globalId"].startswith("zz.b.")
    refused("objectDoesNotExist", site.here, "RemoteCommand/delta/VolumeCreate", {"name": "x", "size": GIB})
    refused("objectExists", site.here, "RemoteCommand/gamma/VolumeCreate", {"name": "there", "size": GIB})


def test_a_multicluster_call_finds_its_object_in_the_location_and_no_further(site: Site) -> None:
    near, far = volume(site.near, "near"), volume(site.far, "far")
    envelope = site.here.ask("GET", f"MultiCluster/Volume/~{near}").envelope()
    assert envelope["clusterId"] == "aa.c"
    assert envelope["data"][0]["clusterName"] == "beta"
    site.here.post("MultiCluster/VolumeUpdate/near", {"size": 2 * GIB})
    assert site.near.get("Volume/near")[0]["size"] == 2 * GIB
    refused("objectDoesNotExist", site.here, f"MultiCluster/VolumeUpdate/~{far}", {"size": 2 * GIB})
    taken = site.here.post(f"MultiCluster/VolumeSnapshot/~{near}", {"name": "s"})
    envelope = site.here.ask("POST", "MultiCluster/SnapshotUpdate/s", b"{}").envelope()
    assert envelope["clusterId"] == "aa.c"
    child = site.here.post("MultiCluster/VolumeCreate", {"parent": "s"})["globalId"]
    assert child in site.near.service.object_keys(), "a volume is made where its parent is"
    assert taken["snapshotGlobalId"] in site.near.service.object_keys()
    volume(site.here, "mine")
    names = [one["name"] for one in site.here.get("MultiCluster/VolumesList")]
    assert names == ["mine", "near", f"~{child}"]
    assert [one["name"] for one in site.here.get("VolumesList")] == ["mine"]
    text = refused(
        "invalidParam",
        site.here,
        "MultiCluster/VolumesGroupSnapshot",
        {"volumes": [{"volume": "mine"}, {"volume": "near"}]},
    )
    assert "one cluster only" in text.descr


def test_all_clusters_of_a_location_answer_each_for_itself(site: Site) -> None:
    volume(site.near, "near")
    volume(site.here, "mine")
    volume(site.far, "far")
    answers = site.here.get("MultiCluster/AllClusters/VolumesList")["clusters"]
    assert [[one["name"] for one in answer["response"]["data"]] for answer in answers] == [["mine"], ["near"]]
    answers = site.here.get("MultiCluster/AllClusters/Volume/near")["clusters"]
    assert answers[0]["error"]["name"] == "objectDoesNotExist"
    assert answers[1]["response"]["data"][0]["name"] == "near"


def test_an_exported_snapshot_is_copied_under_its_id(site: Site) -> None:
    source = volume(site.here, "v", tags={"uuid": "u"})
    first = snapshot(site.here, source, name="first", tags={"cs": "snapshot"})
    wanted = {"remoteLocation": "sofia", "remoteId": first, "name": "", "tags": {"uuid": "x"}}
    refused("objectDoesNotExist", site.far, "SnapshotFromRemote", wanted)
    assert site.far.get("SnapshotsRemoteList")["snapshots"] == []
    site.here.post("SnapshotExport", {"snapshot": f"~{first}", "location": "varna"})
    [offered] = site.far.get("SnapshotsRemoteList")["snapshots"]
    assert (offered["remoteId"], offered["name"], offered["location"]) == (first, "first", "sofia")
    assert site.near.get("SnapshotsRemoteList")["snapshots"] == [], "it is exported to another location"
    expected = contents(site.here, first)
    write(site.here, source, 0, b"later")
    site.far.post("SnapshotFromRemote", wanted)
    [copy] = site.far.get(f"Snapshot/~{first}")
    assert copy["recoveringFromRemote"] is True
    assert copy["mcState"] == "clusterLocal"
    assert copy["tags"] == {"cs": "snapshot", "uuid": "x"}
    assert contents(site.far, first) == expected
    refused("objectExists", site.far, "SnapshotFromRemote", wanted)
    refused("busy", site.here, "SnapshotUnexport", {"snapshot": "first", "location": "varna"})
    refused("busy", site.far, f"SnapshotReconcile/~{first}")
    refused("busy", site.here, "SnapshotDelete/first")
    site.advance(10)
    assert site.far.get(f"Snapshot/~{first}")[0]["recoveringFromRemote"] is False
    site.here.post("SnapshotUnexport", {"snapshot": "first", "all": True})
    assert site.here.get("ExportsList")["exports"] == []
    site.far.post(f"SnapshotReconcile/~{first}")
    assert site.far.ask("GET", f"MultiCluster/Snapshot/~{first}").envelope()["data"][0]["mcState"] == "owner"
    site.far.post("VolumeCreate", {"parent": f"~{first}", "name": "again"})
    site.here.post("SnapshotDelete/first")


def test_a_second_copy_shares_what_the_first_one_has(site: Site) -> None:
    source = volume(site.here, "v")
    snapshots = []
    for at in range(2):
        write(site.here, source, at * MIB, b"%d" % at * 4096)
        snapshots.append(snapshot(site.here, source))
        site.here.post("SnapshotExport", {"snapshot": f"~{snapshots[-1]}", "location": "varna"})
    free = site.far.blocks.capacity()[1]
    for one in snapshots:
        site.far.post("SnapshotFromRemote", {"remoteLocation": "sofia", "remoteId": one})
    assert [contents(site.far, one) for one in snapshots] == [contents(site.here, one) for one in snapshots]
    assert site.far.get(f"Snapshot/~{snapshots[1]}")[0]["parentName"] == f"~{snapshots[0]}"
    assert free - site.far.blocks.capacity()[1] == 3 * 4096


def test_a_volume_from_remote_has_an_id_of_its_own(site: Site) -> None:
    taken = snapshot(site.here, volume(site.here, "v"), name="s")
    site.here.post("SnapshotExport", {"snapshot": "s", "location": "varna"})
    site.far.post("VolumeFromRemote", {"remoteLocation": "sofia", "remoteId": taken, "name": "copy", "export": False})
    [made] = site.far.get("Volume/copy")
    assert made["globalId"].startswith("zz.b.")
    assert contents(site.far, made["globalId"]) == contents(site.here, taken)


def test_a_backup_leaves_nothing_behind_at_its_source(site: Site) -> None:
    names = ["a", "b"]
    ids = [volume(site.here, name) for name in names]
    one = site.here.post("VolumeBackup", {"volume": "a", "location": "varna", "tags": {"vc": "1"}})
    group = site.here.post("VolumesGroupBackup", {"volumes": names, "location": "varna"})["backups"]
    assert set(group) == set(names)
    for remote, source in (
        (one["remoteId"], ids[0]),
        *((group[name]["remoteId"], ids[at]) for at, name in enumerate(names)),
    ):
        assert contents(site.far, remote) == contents(site.here, source)
        [copy] = site.far.get(f"Snapshot/~{remote}")
        assert copy["backup"] is True
        assert copy["backupOfGlobalId"] == remote
    assert site.far.get(f"Snapshot/~{one['remoteId']}")[0]["tags"] == {"vc": "1"}
    assert all(export["backingUp"] for export in site.here.get("ExportsList")["exports"])
    site.advance(10)
    site.advance(10)
    assert site.here.get("ExportsList")["exports"] == []
    assert site.here.get("SnapshotsList") == []
    assert len(site.far.get("SnapshotsList")) == 3


def test_a_location_that_is_done_with_a_snapshot_may_have_it_deleted(site: Site) -> None:
    taken = snapshot(site.here, volume(site.here, "v"), name="s")
    site.here.post("SnapshotExport", {"snapshot": "s", "location": "varna"})
    done = {"location": "sofia", "globalSnapshotId": taken}
    error = refused(
        "invalidParam", site.far, "SnapshotsRemoteUnexport", {"remoteSnapshots": [{**done, "deleteAfter": 5}]}
    )
    assert "minimumDeleteDelay" in error.descr
    bridge = {"ip": "10.0.0.9", "publicKey": "a.b.c.d", "location": "varna", "minimumDeleteDelay": 100}
    site.here.post("RemoteBridgeAdd", bridge)
    site.far.post("SnapshotsRemoteUnexport", {"remoteSnapshots": [{**done, "deleteAfter": 5}]})
    assert site.here.get("ExportsList")["exports"] == []
    assert site.here.get("Snapshot/s")[0]["targetDeleteDate"] == int(site.here.time) + 100
    refused("objectDoesNotExist", site.far, "SnapshotsRemoteUnexport", {"remoteSnapshots": [done]})


def chain(site: Site) -> tuple[str, list[str]]:
    """A volume `v` in `here` with two snapshots of its own above it, and above them one that `other` has too."""
    base = volume(site.here, "base")
    shared = snapshot(site.here, base, name="shared")
    site.here.post("VolumeCreate", {"name": "other", "parent": "shared"})
    source = str(site.here.post("VolumeCreate", {"name": "v", "parent": "shared", "tags": {"uuid": "u"}})["globalId"])
    own = []
    for at in range(2):
        write(site.here, source, at * 4096, b"%d" % at * 4096)
        own.append(snapshot(site.here, source, name=f"own{at}"))
    write(site.here, source, GIB - 4096, b"end" * 1000)
    return source, [*own, shared]


@pytest.mark.parametrize("how", ["acquire", "move"])
def test_a_move_takes_along_what_only_the_volume_needed(site: Site, how: str) -> None:
    source, snapshots = chain(site)
    everything = [source, *snapshots]
    before = {one: contents(site.here, one) for one in everything}
    if how == "acquire":
        site.near.post(f"MultiCluster/VolumeAcquire/~{source}")
        site.near.post(f"MultiCluster/VolumeAcquire/~{source}")
    else:
        site.here.post("VolumeMoveToRemote/v", {"clusterId": "aa.c"})
    assert {one: contents(site.near, one) for one in everything} == before
    assert [one["name"] for one in site.here.get("SnapshotsList")] == ["shared"]
    assert [one["name"] for one in site.here.get("VolumesList")] == ["base", "other"]
    [moved] = site.near.get("Volume/v")
    assert (moved["globalId"], moved["tags"]) == (source, {"uuid": "u"})
    parents = site.near.get("VolumeListSnapshots/v")
    assert [one["globalId"] for one in parents] == [snapshots[1], snapshots[0], snapshots[2]]
    assert parents[0]["onVolume"] == "v"
    assert parents[2]["mcState"] == "slaveCopy"
    site.advance(30)
    assert site.here.blocks.objects() == sorted(site.here.service.object_keys().values())
    assert site.near.service.tick() is None, "nothing is left to be settled"
    site.near.post("VolumeMoveToRemote/v", {"cluster": "alpha"})
    assert {one: contents(site.here, one) for one in everything} == before


def test_a_move_is_refused_whole(site: Site) -> None:
    source, _ = chain(site)
    site.here.post("VolumesReassign", [{"volume": "v", "rw": [1]}])
    refused("busy", site.here, "VolumeMoveToRemote/v", {"clusterId": "aa.c"})
    site.here.blocks.open(site.here.service.object_keys()[source], 1)
    refused("busy", site.here, "VolumeMoveToRemote/v", {"clusterId": "aa.c", "onAttached": "detach"})
    site.here.blocks.release(site.here.service.object_keys()[source], 1)
    volume(site.near, "v")
    before = site.here.service.encoded_state()
    with pytest.raises(ApiError) as error:
        site.here.post("VolumeMoveToRemote/v", {"clusterId": "zz.b", "onAttached": "export"})
    assert error.value.name == "busy"
    assert site.here.service.encoded_state() == before
    with pytest.raises(ApiError) as error:
        site.here.post("VolumeMoveToRemote/v", {"clusterId": "aa.c", "onAttached": "detach"})
    assert error.value.name == "objectExists"
    assert "volumeMoveSource" not in site.here.get("Volume/v")[0]
    site.here.post("VolumeUpdate/v", {"tags": {"still": "mine"}})
    site.here.post("VolumeTemplateCreate", {"name": "t", "placeAll": "default", "replication": 3})
    site.here.post("VolumeUpdate/v", {"template": "t", "rename": "w"})
    with pytest.raises(ApiError) as error:
        site.here.post("VolumeMoveToRemote/w", {"clusterId": "aa.c"})
    assert error.value.name == "objectDoesNotExist"
    assert "'t'" in error.value.descr
    refused("invalidParam", site.here, "VolumeMoveToRemote/w", {"clusterId": "aa.c", "cluster": "beta"})
    refused("objectDoesNotExist", site.here, "VolumeMoveToRemote/w", {"clusterId": "qq.c"})


def test_a_volume_is_attached_across(site: Site) -> None:
    source = volume(site.near, "v")
    site.near.post("VolumesReassign", [{"volume": "v", "rw": [2]}])
    ask = {"reassign": [{"volume": f"~{source}", "rw": [1]}]}
    refused(
        "busy",
        site.here,
        "MultiCluster/VolumesReassignWait",
        {"reassign": [{**ask["reassign"][0], "onRemoteAttached": "fail"}]},
    )
    site.here.post("MultiCluster/VolumesReassignWait", ask)
    listed = site.here.get("MultiCluster/AttachmentsList")
    assert {(one["clusterId"], one["client"], one["globalId"]) for one in listed} == {
        ("aa.c", 2, source),
        ("aa.b", 1, source),
    }
    assert len({one["pos"] for one in listed}) == 2
    assert site.near.get("AttachmentsList")[0]["client"] == 2
    assert len(site.near.get("AttachmentsList")) == 1
    assert source in site.near.blocks.links_by_id(4096 + 1)
    site.near.post("VolumesReassign", [{"volume": "v", "detach": [2]}])
    refused("busy", site.near, "VolumeDelete/v")
    site.here.post("MultiCluster/VolumesReassignWait", {"reassign": [{"volume": f"~{source}", "detach": [1]}]})
    assert site.here.get("MultiCluster/AttachmentsList") == []
    # Not attached anywhere, it comes here.
    site.here.post("MultiCluster/VolumesReassignWait", ask)
    assert source in site.here.service.object_keys()
    assert source not in site.near.service.object_keys()
    assert site.here.get("AttachmentsList")[0]["globalId"] == source
    # Attached here, it may be taken away by force.
    site.near.post(
        "MultiCluster/VolumesReassignWait",
        {"reassign": [{"volume": f"~{source}", "rw": [3], "onRemoteAttached": "detachForce"}]},
    )
    assert [(one["clusterId"], one["client"]) for one in site.here.get("MultiCluster/AttachmentsList")] == [("aa.c", 3)]


def test_an_exported_volume_is_attached_by_the_cluster_that_it_is_exported_to(site: Site) -> None:
    source = volume(site.here, "v")
    item = {"volume": f"~{source}", "ro": [1], "allowRemoteExported": True}
    refused("objectDoesNotExist", site.far, "VolumesReassignWait", {"reassign": [item]})
    site.here.post("VolumeExport/v", {"clusterId": "zz.b"})
    site.here.post("VolumeExport/v", {"cluster": "gamma"})
    assert [one["remoteId"] for one in site.far.get("VolumesRemoteList")["volumes"]] == [source]
    assert [one["globalId"] for one in site.here.get("VolumeExportsList")["exports"]] == [source]
    site.far.post("VolumesReassignWait", {"reassign": [item]})
    [attached] = site.here.get("MultiCluster/AttachmentsList")
    assert (attached["clusterId"], attached["rights"]) == ("zz.b", "ro")
    refused("busy", site.here, "ClusterRemove", {"name": "gamma"})


def test_every_cluster_knows_itself_and_the_others_by_name(site: Site) -> None:
    for one in site.all:
        assert {found["name"] for found in one.get("ClustersList")["clusters"]} == {"alpha", "beta", "gamma"}
        assert {(found["id"], found["name"]) for found in one.get("LocationsList")["locations"]} == {
            ("aa", "sofia"),
            ("zz", "varna"),
        }
        assert len(one.get("RemoteBridgesList")["remoteBridges"]) == 2


def test_what_is_not_registered_is_not_reached(site: Site) -> None:
    site.here.post("RemoteBridgeRemove", {"ip": "192.0.2.2"})
    error = refused("invalidParam", site.here, "RemoteCommand/beta/VolumeCreate", {"name": "x", "size": GIB})
    assert "bridge" in error.descr
    assert site.here.get("MultiCluster/AllClusters/VolumesList") == {
        "clusters": [{"response": {"generation": 2, "data": []}}]
    }
    site.here.post("ClusterRemove", {"name": "beta"})
    refused("objectDoesNotExist", site.here, "RemoteCommand/beta/VolumeCreate", {"name": "x", "size": GIB})


def test_the_vendors_bindings_accept_every_answer_and_a_restart_forgets_nothing(site: Site) -> None:
    here, near, far = (Bindings(one) for one in site.all)
    source = volume(site.here, "v")
    taken = snapshot(site.here, source, name="s")
    here.strict.snapshotExport({"snapshot": "s", "location": "varna"})
    here.strict.volumeExport("v", {"clusterId": "zz.b"})
    assert here.strict.exportsList()["exports"][0]["globalId"] == taken
    assert here.strict.volumeExportsList()["exports"][0]["globalId"] == source
    assert len(far.strict.snapshotsRemoteList()["snapshots"]) == len(far.strict.volumesRemoteList()["volumes"]) == 1
    wanted = {"remoteLocation": "sofia", "remoteId": taken}
    far.strict.volumeFromRemote({**wanted, "name": "copied"})
    far.strict.snapshotFromRemote({**wanted, "name": "copy", "export": True, "tags": {"k": "v"}})
    assert far.strict.snapshotsList()[0]["mcState"] == "clusterLocalExported"
    assert here.strict.snapshotsRemoteList()["snapshots"][0]["localSnapshot"] == "s"
    site.advance(10)
    far.strict.snapshotsRemoteUnexport({"remoteSnapshots": [{"location": "sofia", "globalSnapshotId": taken}]})
    far.strict.snapshotUnexport({"snapshot": "copy", "location": "sofia"})
    far.strict.snapshotUnexport({"snapshot": "copy", "all": True})
    here.strict.volumeBackup({"volume": "v", "location": "varna", "tags": {"k": "v"}})
    here.strict.volumesGroupBackup({"volumes": ["v"], "location": "varna"})
    site.advance(10)
    here.strict.volumeMoveToRemote("v", {"clusterId": "aa.c", "onAttached": "fail"})
    near.strict.volumeAcquire("v", {})
    loose = snapshot(site.near, volume(site.near, "w"))
    site.near.post("VolumeDelete/w")
    near.strict.snapshotMoveToRemote("~" + loose, {"cluster": "alpha"})
    assert here.strict.snapshotList("~" + loose)[0]["size"] == GIB
    here.strict.snapshotsList()
    called = here.strict.called | near.strict.called | far.strict.called
    assert called >= {operation.method for operation in transfers.OPERATIONS} - NEWER
    for rig in (here, near, far):
        rig.restart()
        assert rig.simulator.service.mended == []


def test_a_snapshot_is_attached_across_and_stays(site: Site) -> None:
    taken = snapshot(site.near, volume(site.near, "v"), name="s")
    item = {"snapshot": f"~{taken}", "ro": [1]}
    refused("objectDoesNotExist", site.here, "VolumesReassignWait", {"reassign": [item]})
    refused("objectDoesNotExist", site.far, "MultiCluster/VolumesReassignWait", {"reassign": [item]})
    wrong = {"reassign": [{**item, "onRemoteAttached": "export"}]}
    refused("invalidParam", site.here, "MultiCluster/VolumesReassignWait", wrong)
    site.here.post("MultiCluster/VolumesReassignWait", {"reassign": [item]})
    [attached] = site.here.get("MultiCluster/AttachmentsList")
    assert (attached["globalId"], attached["clusterId"], attached["client"], attached["rights"]) == (
        taken,
        "aa.b",
        1,
        "ro",
    )
    assert site.near.blocks.links_by_id(4096 + 1) == {taken: site.near.service.object_keys()[taken]}
    error = refused("busy", site.near, "SnapshotDelete/s")
    assert error.descr.endswith("is attached to client 1 of cluster aa.b")
    site.near.blocks.open(site.near.service.object_keys()[taken], 4096 + 1)
    detach = {"reassign": [{"snapshot": f"~{taken}", "detach": [1]}]}
    with pytest.raises(ApiError) as open_there:
        site.here.post("MultiCluster/VolumesReassignWait", detach)
    assert open_there.value.descr == "'s' is open at client 1 of cluster aa.b"
    site.near.blocks.release(site.near.service.object_keys()[taken], 4096 + 1)
    site.here.post("MultiCluster/VolumesReassignWait", detach)
    assert site.here.get("MultiCluster/AttachmentsList") == []
    assert taken in site.near.service.object_keys()


def test_calls_for_volumes_leave_snapshots_of_other_clusters_where_they_are(site: Site) -> None:
    volume(site.near, "v")
    site.near.post("VolumeFreeze/v")
    refused("objectDoesNotExist", site.here, "MultiCluster/VolumeAcquire/v", {})
    refused("objectDoesNotExist", site.here, "MultiCluster/VolumesReassign", [{"volume": "v", "rw": [1]}])
    assert [one["name"] for one in site.near.get("SnapshotsList")] == ["v"]


def test_nothing_moves_for_a_client_that_is_unknown(site: Site) -> None:
    source = volume(site.near, "v")
    volume(site.here, "w")
    items = [{"volume": "v", "rw": [1]}, {"volume": "w", "rw": [77]}]
    error = refused("invalidParam", site.here, "MultiCluster/VolumesReassign", items)
    assert error.descr == "No such client registered"
    assert source in site.near.service.object_keys()


def test_what_a_silent_cluster_may_have_is_not_said_to_be_gone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    source = volume(site.near, "v")
    monkeypatch.setattr(site.near.service, "_broken", "It does not answer")
    for call, body in (
        (f"VolumeDelete/~{source}", {"onAttached": "detachForce"}),
        (f"VolumeAcquire/~{source}", {}),
        ("VolumesReassign", [{"volume": "v", "detach": "all"}]),
    ):
        refused("unavailable", site.here, f"MultiCluster/{call}", body)


def test_a_cluster_that_was_reset_takes_volumes_over_again(site: Site) -> None:
    volume(site.here, "v")
    site.here.post("VolumeMoveToRemote/v", {"clusterId": "aa.c"})
    site.advance(1)
    site.near.post("/_sim/reset")
    volume(site.here, "w")
    site.here.post("VolumeMoveToRemote/w", {"clusterId": "aa.c"})
    assert [one["name"] for one in site.near.get("VolumesList")] == ["w"]


def test_a_second_attempt_takes_along_what_only_now_is_the_volumes_alone(site: Site) -> None:
    source = volume(site.here, "v")
    taken = snapshot(site.here, source, name="s")
    site.here.post("VolumeCreate", {"name": "w", "parent": "s"})
    # The first one was begun, and given up without a word.
    site.here.post(f"{BRIDGE_BASE}Depart", {"object": "v", "move": 1, "to": "aa.c"})
    site.here.post("VolumeDelete/w")
    site.near.post("MultiCluster/VolumeAcquire/v", {})
    owners = [one for one in site.all if taken in one.service.object_keys()]
    assert owners == [site.near]
    assert site.near.ask("GET", "MultiCluster/Snapshot/s").data[0]["mcState"] == "owner"


@pytest.mark.parametrize("path", ["MultiCluster/VolumesReassignWait", "RemoteCommand/beta/VolumesReassignWait"])
def test_a_caller_that_leaves_leaves_nothing_waiting_in_any_cluster(site: Site, path: str) -> None:
    for cluster in (site.here, site.near):
        cluster.post("/_sim/client/3", {"running": False})
    at_rest = [waiting(one) for one in site.all]
    volume(site.near, "v")
    asked = site.here.ask("POST", path, b'{"reassign": [{"volume": "v", "rw": [3]}]}')
    assert asked.reply is None
    site.here.service.cancel(asked.number)
    assert [waiting(one) for one in site.all] == at_rest
    for cluster in (site.here, site.near):
        cluster.post("/_sim/client/3", {"running": True})
    assert asked.reply is None
    assert [one["client"] for one in site.here.get("MultiCluster/AttachmentsList")] == [3], "what was begun stands"


def waiting(cluster: InProcess) -> tuple[int, int, int]:
    service = cluster.service
    return len(service._callers), len(service._flows), len(service._cluster._waiting)


def test_what_is_done_to_a_snapshot_is_done_by_its_owner_and_a_deletion_takes_the_copies(site: Site) -> None:
    source, snapshots = chain(site)
    shared = snapshots[2]
    site.near.post(f"MultiCluster/VolumeAcquire/~{source}")
    site.near.post(f"MultiCluster/SnapshotUpdate/~{shared}", {"tags": {"k": "v"}})
    assert site.here.get(f"Snapshot/~{shared}")[0]["tags"] == {"k": "v"}
    assert site.near.ask("GET", f"MultiCluster/Snapshot/~{shared}").envelope()["clusterId"] == "aa.b"
    made = site.near.post("MultiCluster/VolumeCreate", {"parent": f"~{shared}"})["globalId"]
    assert made in site.near.service.object_keys(), "the copy has its contents"
    site.here.post("VolumesReassign", [{"snapshot": "shared", "ro": [1]}])
    refused("busy", site.near, f"MultiCluster/SnapshotDelete/~{shared}")
    assert shared in site.near.service.object_keys()
    site.here.post("VolumesReassign", [{"snapshot": "shared", "detach": "all"}])
    site.near.post(f"MultiCluster/SnapshotDelete/~{shared}")
    for cluster in (site.here, site.near):
        refused("objectDoesNotExist", cluster, f"MultiCluster/SnapshotDelete/~{shared}")
    site.advance(60)
    assert contents(site.near, source)[:5] and [one["deleted"] for one in site.near.get("SnapshotsList")] == [False] * 2
    # A copy that came by an export is its own cluster's.
    taken = snapshot(site.here, volume(site.here, "e"), name="e1")
    site.here.post("SnapshotExport", {"snapshot": "e1", "location": "varna"})
    site.far.post("SnapshotFromRemote", {"remoteLocation": "sofia", "remoteId": taken})
    site.here.post("SnapshotUnexport", {"snapshot": "e1", "all": True, "force": True})
    site.near.post("MultiCluster/SnapshotDelete/e1")
    assert taken in site.far.service.object_keys()
