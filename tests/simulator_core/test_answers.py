"""What queries tell of a small cluster, spelled out, and what simple changes leave behind (spec storpool-api 2, 6)."""

from __future__ import annotations

from typing import Any

import pytest
from core_rig import Bindings, bindings

MB = 1 << 20


@pytest.fixture
def rig() -> Bindings:
    """Template t in the three SSDs, its volume a of two objects with the snapshot s, and b made from s."""
    rig = bindings()
    rig.strict.volumeTemplateCreate({"name": "t", "placeAll": "ssd", "replication": 2, "iops": 500})
    rig.strict.volumeCreate({"name": "a", "size": 40 * MB, "template": "t"})
    rig.strict.snapshotCreate("a", {"name": "s"})
    rig.strict.volumeCreate({"name": "b", "parent": "s", "template": "t"})
    rig.simulator.blocks.write(rig.simulator.service.object_keys()["splab.b.1"], 0, b"x" * MB)
    return rig


def part(answer: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {field: answer[field] for field in fields}


def test_peers_servers_and_requests(rig: Bindings) -> None:
    peers = rig.strict.peersList()
    assert sorted(map(int, peers)) == [1, 2, 3, 0x8001, 0x8002, 0x8003, 0xF001]
    assert part(peers["1"], "beaconStatus", "clusterStatus", "nonVoting") == {
        "beaconStatus": "NODE_UP",
        "clusterStatus": "CNODE_UP",
        "nonVoting": False,
    }
    rig.simulator.post("/_sim/server/3", {"running": False})
    status = rig.strict.serversList()
    assert {number: found["status"] for number, found in status["servers"].items()} == {
        "1": "running",
        "2": "running",
        "3": "down",
    }
    rig.simulator.post("/_sim/client/2", {"running": False})
    configs = {found["id"]: found["configStatus"] for found in rig.strict.clientsConfigDump()}
    assert configs[1] == configs[3] == "ok" != configs[2]
    services = [
        (found["service"]["type"], found["service"]["id"]) for found in rig.strict.allPeersActiveRequests()["requests"]
    ]
    assert ("server", "1") in services and ("client", "3") in services
    assert rig.strict.clientActiveRequests(1) == {"clientId": 1, "requests": []}
    assert rig.strict.diskActiveRequests(102) == {"diskId": 102, "requests": []}


def test_disks_of_a_server(rig: Bindings) -> None:
    disks = rig.strict.serverDisksList(1)
    assert {number: (found["ssd"], found["device"]) for number, found in disks.items()} == {
        "101": (False, "/dev/sda1"),
        "102": (True, "/dev/sdb1"),
    }
    volumes: set[str] = set()
    for server in (1, 2, 3):
        described = rig.strict.serverDiskDescribe(server, 100 * server + 2)
        assert (described["serverId"], described["softEject"]) == (server, "off")
        volumes.update(found["volume"] for found in described["objects"].values())
    assert volumes == {"a", "b", "s"}


def test_a_cluster_that_starts_does_not_wait_for_an_ignored_disk(rig: Bindings) -> None:
    for server in (1, 2, 3):
        rig.simulator.post(f"/_sim/server/{server}", {"running": False})
    assert rig.strict.serversListBlocked()["servers"]["3"]["missingDisks"] == [301, 302]
    rig.strict.diskIgnore(302)
    assert rig.strict.serversListBlocked()["servers"]["3"]["missingDisks"] == [301]


def test_volumes_and_snapshots_one_by_one_and_all(rig: Bindings) -> None:
    status = rig.strict.volumesStatus()
    assert {name: (found["snapshot"], found["status"], found["storedSize"]) for name, found in status.items()} == {
        "a": (False, "up", MB),
        "b": (False, "up", 0),
        "s": (True, "up", 0),
    }
    [space] = rig.strict.snapshotsSpace()
    assert part(space, "name", "onVolume", "spaceUsed") == {"name": "s", "onVolume": "a", "spaceUsed": 0}
    described = rig.strict.snapshotDescribe("s")
    assert [len(set(found) & {102, 202, 302}) for found in described["objects"]] == [2, 2]
    info = rig.strict.snapshotInfo("s")
    assert sum(info["objectsPerDisk"].values()) == 4
    assert info["disksCount"] == len(info["objectsPerDisk"])
    assert sum(found["count"] for found in info["objectsPerChain"]) == 2


def test_templates_and_placement_groups(rig: Bindings) -> None:
    template = rig.strict.volumeTemplateDescribe("t")
    expected = {
        "name": "t",
        "placeAll": "ssd",
        "placeTail": "ssd",
        "size": "-",
        "replication": 2,
        "bw": "-",
        "iops": 500,
    }
    assert part(template, *expected) == expected
    assert rig.strict.volumeTemplatesList() == [template]
    assert part(rig.strict.placementGroupDescribe("ssd"), "name", "disks") == {"name": "ssd", "disks": [102, 202, 302]}
    rig.strict.placementGroupUpdate("g", {"addDisks": [101]})
    rig.strict.placementGroupDelete("g")
    assert sorted(rig.strict.placementGroupsList()) == ["default", "hdd", "ssd"]
    assert rig.strict.faultSetsList() == {}


def test_a_volume_and_a_snapshot_leave_their_parent(rig: Bindings) -> None:
    rig.strict.snapshotCreate("b", {"name": "s2"})
    assert rig.strict.snapshotList("s2")[0]["parentName"] == "s"
    rig.strict.volumeRebase("b", {"parentName": "s"})
    assert rig.strict.volumeList("b")[0]["parentName"] == "s"
    rig.strict.snapshotRebase("s2", {})
    assert rig.strict.snapshotList("s2")[0]["parentName"] == ""


def test_iscsi_interfaces_and_maintenance(rig: Bindings) -> None:
    controllers = rig.strict.iSCSInterfacesInfo({"controllerIds": [1, 7]})["controllers"]
    assert [(found["controllerId"], found["status"]) for found in controllers] == [(1, "timeout"), (7, "timeout")]
    rig.strict.maintenanceSet({"nodeId": 2, "duration": 60, "description": "fans"})
    assert [found["nodeId"] for found in rig.strict.maintenanceList()["nodes"]] == [2]
    rig.strict.maintenanceComplete({"nodeId": 2})
    assert rig.strict.maintenanceList()["nodes"] == []


def test_locations_and_bridges_as_they_were_given(rig: Bindings) -> None:
    rig.strict.locationAdd({"id": "l", "name": "here"})
    rig.strict.locationAdd({"id": "m", "name": "gone"})
    rig.strict.locationUpdate({"location": "here", "sendBufferSize": 4096})
    rig.strict.locationRemove({"location": "gone"})
    assert rig.strict.locationsList()["locations"] == [
        {"id": "l", "name": "here", "sendBufferSize": 4096, "recvBufferSize": 0}
    ]
    bridge = {"ip": "10.0.0.1", "publicKey": "abc.0def.9.z", "location": "here"}
    rig.strict.remoteBridgeAdd(bridge)
    assert rig.strict.remoteBridgesList()["remoteBridges"] == [{**bridge, "remote": "here"}]


def test_buckets_and_their_keys(rig: Bindings) -> None:
    rig.strict.kvsCreate("kept")
    rig.strict.kvsCreate("gone")
    rig.strict.kvsUpdate("kept", {"set": {"k": "v", "other": "w"}})
    rig.strict.kvsDelete("gone")
    assert rig.strict.kvsBuckets() == {"buckets": {"kept": 1}}
    assert rig.strict.kvsGet("kept", "k") == {"name": "kept", "version": 1, "pairs": {"k": "v"}}
