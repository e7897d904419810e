"""The vendor's own bindings, strict, as the judge of every implemented call's answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from core_rig import Bindings, Strict
from storpool import spapi

from simulator.api.operations import NEWER, OPERATIONS, transfers
from simulator.inprocess import InProcess

MB = 1 << 20


@pytest.fixture
def simulator() -> InProcess:
    return InProcess()


@pytest.fixture(params=[False, True], ids=["one-cluster", "multicluster"])
def api(request: pytest.FixtureRequest, simulator: InProcess) -> Iterator[tuple[spapi.Api, Strict]]:
    rig = Bindings(simulator, multicluster=request.param)
    with rig.connected():
        yield rig.vendor, rig.strict


def test_every_implemented_call_answers_what_the_bindings_declare(
    api: tuple[spapi.Api, Strict], simulator: InProcess
) -> None:
    _, strict = api
    strict.volumeTemplateCreate({"name": "t", "placeAll": "hdd", "placeTail": "ssd", "replication": 3, "iops": 500})
    strict.volumeTemplateUpdate("t", {"bw": "-", "propagate": True})
    strict.volumeCreate({"name": "a", "size": MB, "template": "t", "tags": {"k": "v"}, "reuseServer": True})
    strict.volumeCreate({"name": "b", "size": 40 * MB, "replication": 2, "bw": 100})
    unnamed = strict.volumeCreate({"size": MB})["name"]
    strict.volumeUpdate("a", {"rename": "a2", "sizeAdd": 512})
    copy = strict.volumeCreate({"baseOn": "a2"})
    assert copy["autoName"].startswith("a2@")
    strict.volumeCreate({"baseOn": unnamed, "name": "c"})
    strict.snapshotCreate("a2", {"name": "s", "bind": True, "deleteAfter": 3600, "tags": {"x": "y"}})
    generated = strict.snapshotCreate("a2", {})
    strict.snapshotCreate(unnamed, {})
    strict.snapshotUpdate("s", {"rename": "s2", "targetDeleteDate": 0, "bind": False})
    strict.volumeCreate({"name": "child", "parent": "s2"})
    strict.volumeRevert("child", {"toSnapshot": "~" + generated["snapshotGlobalId"]})
    strict.volumeRevert(unnamed, {"toSnapshot": "s2"})
    assert unnamed in [volume["name"] for volume in strict.volumesList()]
    strict.volumeRebase("child", {})
    strict.snapshotRebase("~" + generated["snapshotGlobalId"], {"parentName": None})
    items = [{"volume": "a2", "rw": [1], "ro": [2]}, {"volume": unnamed, "rw": [1]}, {"snapshot": "s2", "ro": [3]}]
    strict.volumesReassign(items)
    strict.volumesReassignWait({"reassign": items, "attachTimeout": 1})
    strict.placementGroupUpdate("g", {"addDisks": [101, 202]})
    group = strict.snapshotCreateGroup(
        {"volumes": [{"volume": "a2", "name": "g1"}, {"volume": unnamed}], "tags": {"g": "1"}}
    )
    assert group["ok"] and group["snapshots"][0]["snapshot"] == "g1"
    for taken in group["snapshots"]:
        assert strict.snapshotList("~" + taken["snapshotGlobalId"])[0]["tags"] == {"g": "1"}
        assert taken["remoteId"] == taken["snapshotGlobalId"]
        strict.snapshotDelete("~" + taken["snapshotGlobalId"])
    _locations_clusters_and_bridges(strict)
    _iscsi(strict)
    _disks(strict)
    strict.kvsCreate("bucket")
    strict.kvsUpdate("bucket", {"set": {"k": "v"}})
    strict.kvsBuckets()
    strict.kvsList("bucket")
    strict.kvsGet("bucket", "k")
    strict.kvsDelete("bucket")

    for query in (
        *("peersList", "tasksList", "servicesList", "serversListBlocked", "serversList", "clientsConfigDump"),
        *("disksList", "volumesList", "volumesStatus", "volumesQuickStatus", "volumesSpace", "snapshotsList"),
        *("snapshotsSpace", "attachmentsList", "placementGroupsList", "faultSetsList", "volumeTemplatesList"),
        "volumeTemplatesStatus",
    ):
        strict.__getattr__(query)()
    strict.serverDisksList(1)
    strict.serverDiskDescribe(1, 101)
    strict.diskDescribe(101)
    strict.clientConfigWait(1)
    strict.placementGroupDescribe("g")
    strict.volumeTemplateDescribe("t")
    for volume in ("a2", unnamed, "~" + copy["globalId"]):
        assert len(strict.volumeList(volume)) == 1
        strict.volumeDescribe(volume)
        strict.volumeInfo(volume)
        strict.volumeListSnapshots(volume)
    for snapshot in ("s2", copy["autoName"]):
        assert len(strict.snapshotList(snapshot)) == 1
        strict.snapshotDescribe(snapshot)
        strict.snapshotInfo(snapshot)

    strict.volumesReassignWait(
        {"reassign": [{"volume": "a2", "detach": "all"}, {"snapshot": "s2", "detach": [3], "force": True}]}
    )
    strict.snapshotDelete("s2")
    strict.snapshotDeleteById(generated["snapshotGlobalId"])
    assert [found["deleted"] for found in strict.snapshotsList() if found["name"].startswith("*")] == [True] * 4
    strict.volumeFreeze("b", {"deleteAfter": 60})
    strict.volumeDelete("a2")
    strict.placementGroupDelete("g")
    strict.volumeTemplateCreate({"name": "unused"})
    strict.volumeTemplateDelete("unused")
    _relocation(strict, simulator)

    implemented = {operation.method for operation in OPERATIONS if operation.served}
    between_clusters = {operation.method for operation in transfers.OPERATIONS}
    assert strict.called == implemented - NEWER - between_clusters


def _disks(strict: Strict) -> None:
    strict.diskSetDesc(302, {"description": "slot 4"})
    assert strict.diskDescribe(302)["description"] == "slot 4"
    for call in ("diskScrubStart", "diskScrubPause", "diskScrubContinue", "diskRetrim"):
        strict.__getattr__(call)(302)
    strict.diskSoftEject(302)
    strict.diskSoftEjectPause(302)
    assert strict.disksList()["302"]["softEject"] == "paused"
    strict.diskSoftEjectCancel(302)
    strict.diskActiveRequests(302)
    strict.diskEject(302)
    assert "device" not in strict.disksList()["302"]
    strict.diskIgnore(302)
    strict.diskForget(302)
    assert "302" not in strict.disksList()
    strict.clientActiveRequests(1)
    assert len(strict.allPeersActiveRequests()["requests"]) == 6
    strict.maintenanceSet({"nodeId": 2, "duration": 60, "description": "new fans", "maxNodesInMaintenance": 1})
    assert [node["remaining"] for node in strict.maintenanceList()["nodes"]] == [60]
    strict.maintenanceComplete({"nodeId": 2})


def _relocation(strict: Strict, simulator: InProcess) -> None:
    """Every query is asked again after a restart, and must answer the same."""
    strict.volumeCreate({"name": "moved", "size": 600 * MB, "placeAll": "hdd", "replication": 2})
    taken = "~" + strict.snapshotCreate("moved", {})["snapshotGlobalId"]
    number = strict.volumeList("moved")[0]["id"]
    strict.volumeUpdate("moved", {"placeAll": "default", "placeHead": "default", "placeTail": "default"})
    strict.snapshotUpdateVag(taken, {"vagId": strict.snapshotList(taken)[0]["id"]})
    strict.volumeUpdateVag("moved", {"vagId": number})
    strict.vagUpdate({"vagId": str(number), "targetsCount": 4})
    queries = (
        *(("vagList", number), ("volumeRelocatorStatus",), ("volumeRelocatorDisks",), ("volumeBalancerGetStatus",)),
        *(("volumeRelocatorVolumeDisks", "moved"), ("volumeRelocatorSnapshotDisks", taken)),
        *(("volumeBalancerVolumesStatus",), ("volumeBalancerDisks",), ("volumeBalancerVolumeDisks", "moved")),
        *(("volumeBalancerSnapshotDisks", taken), ("volumeBalancerVolumeDiskSets", "moved")),
        ("volumeBalancerSnapshotDiskSets", taken),
    )

    def answers() -> list[object]:
        return [strict.__getattr__(query)(*arguments) for query, *arguments in queries]

    for seconds, command in ((1, "start"), (100, "commit"), (1, None), (100, None)):
        simulator.advance(seconds)
        if command:
            assert strict.volumeBalancerGetStatus()["status"] == {"start": "nothing to do", "commit": "ready"}[command]
            strict.volumeBalancerSetStatus({"cmd": command})
        before = answers()
        simulator.restart()
        assert answers() == before
        simulator.advance(1)
    assert strict.vagList(number)["overrides"]
    simulator.post("/_sim/disk/101", {"up": False})
    for call, name in (("volumeAbandonDisk", "moved"), ("snapshotAbandonDisk", taken)):
        strict.__getattr__(call)(name, {"diskId": 101})
    assert set(strict.volumeRelocatorDisks()["101"]) == {"id", "serverId", "generationLeft"}
    simulator.post("/_sim/disk/101", {"up": True})


def _iscsi(strict: Strict) -> None:
    commands: list[dict[str, dict[str, object]]] = [
        {"setBaseName": {"name": "iqn.2019-08.com.example:alpha"}},
        {"createPortalGroup": {"name": "pg"}},
        {"portalGroupAddNetwork": {"portalGroup": "pg", "net": "10.5.0.0/16"}},
        {"createPortal": {"portalGroup": "pg", "controller": 3, "ip": "10.5.0.1", "port": 3261}},
        {"createTarget": {"volumeName": "c"}},
        {"createInitiator": {"name": "iqn.host", "username": "", "secret": ""}},
        {"initiatorAddNetwork": {"initiator": "iqn.host", "net": "0.0.0.0/0"}},
        {"export": {"initiator": "iqn.host", "portalGroup": "pg", "volumeName": "c"}},
    ]
    strict.iSCSIConfigChange({"commands": commands})
    shown = strict.iSCSIConfig()["iscsi"]
    assert [found["volume"] for found in shown["targets"].values()] == ["c"]
    assert strict.iSCSISessionsInfo() == {"sessions": [{"status": "timeout", "controllerId": 3}]}
    assert len(strict.iSCSInterfacesInfo({"controllerIds": [1, 2]})["controllers"]) == 2
    strict.iSCSIConfigChange(
        {"commands": [{"exportDelete": commands[-1]["export"]}, {"deleteTarget": {"volumeName": "c"}}]}
    )


def _locations_clusters_and_bridges(strict: Strict) -> None:
    strict.locationAdd({"id": "loc", "name": "there"})
    strict.locationUpdate({"location": "there", "sendBufferSize": 1 << 20})
    strict.locationRename({"location": "there", "name": "yonder"})
    strict.clusterAdd({"id": "c", "location": "yonder"})
    strict.clusterRename({"cluster": "loc.c", "name": "other"})
    strict.remoteBridgeAdd({"ip": "10.9.9.9", "publicKey": "a.b.c.d", "remote": "other"})
    strict.remoteBridgeAdd({"ip": "10.9.9.8", "publicKey": "a.b.c.d", "location": "yonder", "noCrypto": True})
    assert [len(bridges) for bridges in strict.remoteBridgesList().values()] == [2]
    assert strict.clustersList() == {"clusters": [{"id": "c", "location": "yonder", "name": "other"}]}
    assert len(strict.locationsList()["locations"]) == 1
    for ip in ("10.9.9.8", "10.9.9.9"):
        strict.remoteBridgeRemove({"ip": ip})
    strict.clusterRemove({"location": "yonder", "id": "c"})
    strict.locationRemove({"location": "yonder"})


def test_the_bindings_have_exactly_the_declared_calls() -> None:
    theirs = {
        name: function.__doc__.split("\n")[0]
        for name, function in vars(spapi.Api).items()
        if (getattr(function, "__doc__", None) or "").startswith("HTTP: ")
    }
    assert len(theirs) == 122
    ours = {
        operation.method: f"HTTP: {operation.verb} /ctrl/1.0/{'MultiCluster/' * operation.multicluster}{operation.path}"
        for operation in OPERATIONS
        if operation.method not in NEWER
    }
    assert ours == theirs


def test_errors_reach_the_bindings_with_name_text_and_status(api: tuple[spapi.Api, Strict]) -> None:
    vendor, _ = api
    with pytest.raises(spapi.ApiError) as missing:
        vendor.volumeList("nothing")
    assert (missing.value.name, missing.value.status) == ("objectDoesNotExist", 404)
    vendor.volumeCreate({"name": "vast", "size": 1 << 58})
    with pytest.raises(spapi.ApiError) as unbuilt:
        vendor.volumeDescribe("vast")
    assert (unbuilt.value.name, unbuilt.value.status) == ("notImplemented", 501)


def test_the_vendors_clone_test_ends(api: tuple[spapi.Api, Strict], simulator: InProcess) -> None:
    """Fifteen copies, then polling until no snapshot is transient (spec 7.2)."""
    vendor, _ = api
    vendor.volumeCreate({"name": "origin", "size": MB})
    for number in range(15):
        vendor.volumeCreate({"name": f"clone{number}", "baseOn": "origin"})
    assert sum(snapshot.transient for snapshot in vendor.snapshotsList()) == 15
    for _ in range(10):
        simulator.advance(1)
        if not any(snapshot.transient for snapshot in vendor.snapshotsList()):
            break
    assert vendor.snapshotsList() == []
    assert {volume.parentName for volume in vendor.volumesList()} == {""}
