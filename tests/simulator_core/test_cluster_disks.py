"""Disks and servers that go down and come back, are drained, scrubbed and put in maintenance: all answers agree."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from core_rig import Bindings, bindings
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from simulator.inprocess import ApiError, InProcess

MB = 1 << 20
DISKS = st.sampled_from([101, 102, 201, 202, 301, 302])
SERVERS = st.sampled_from([1, 2, 3])
CHANGES = st.sampled_from(
    (
        *("DiskEject", "DiskIgnore", "DiskSoftEject", "DiskSoftEjectPause", "DiskSoftEjectCancel"),
        *("DiskScrubStart", "DiskScrubPause", "DiskScrubContinue", "DiskRetrim"),
    )
)


@pytest.fixture
def rig() -> Bindings:
    made = bindings()
    made.strict.volumeCreate({"name": "v", "size": 1 << 30})
    return made


def status(rig: Bindings, name: str = "v") -> dict[str, Any]:
    found: dict[str, Any] = rig.strict.volumesQuickStatus()[name]
    return found


def control(rig: Bindings, path: str, **body: bool) -> None:
    rig.simulator.post(f"/_sim/{path}", body)


class Machinery(RuleBasedStateMachine):
    """Whatever happens in whatever order, disks, servers, volumes and tasks tell the same story."""

    @initialize()
    def begin(self) -> None:
        self.simulator = InProcess()
        self.up = dict.fromkeys((1, 2, 3), True)
        for number, group in enumerate(("default", "hdd", "ssd")):
            size = 100 * MB * (1 + 4 * number)
            self.simulator.post(
                "VolumeCreate", {"name": group, "size": size, "placeAll": group, "replication": 3 - number}
            )

    @rule(call=CHANGES, disk=DISKS)
    def change(self, call: str, disk: int) -> None:
        before = self.simulator.service.encoded_state()
        try:
            self.simulator.post(f"{call}/{disk}")
        except ApiError as error:
            assert error.name in ("invalidParam", "busy", "objectDoesNotExist")
            assert self.simulator.service.encoded_state() == before

    @rule(disk=DISKS, up=st.booleans())
    def disk(self, disk: int, up: bool) -> None:
        self.simulator.post(f"/_sim/disk/{disk}", {"up": up})

    @rule(server=SERVERS, running=st.booleans())
    def server(self, server: int, running: bool) -> None:
        self.simulator.post(f"/_sim/server/{server}", {"running": running})
        self.up[server] = running

    @rule(seconds=st.sampled_from([0.5, 3.0, 40.0, 4000.0]))
    def wait(self, seconds: float) -> None:
        self.simulator.advance(seconds)

    @rule()
    def restart(self) -> None:
        before = self.shown()
        self.simulator.restart()
        assert self.shown() == before

    def shown(self) -> list[Any]:
        queries = ("DisksList", "VolumesGetStatusQuick", "TasksList", "MaintenanceList")
        return [self.simulator.get(query) for query in queries]

    @rule(node=SERVERS)
    @precondition(lambda self: not self.simulator.get("MaintenanceList")["nodes"])
    def maintain(self, node: int) -> None:
        safe = {"minOkReplicas": 1, "votingSafetyMargin": 0}
        wanted = {"nodeId": node, "duration": 30, "description": "", **safe}
        try:
            self.simulator.post("MaintenanceSet", wanted)
        except ApiError as error:
            assert error.name == "busy"
        else:
            assert sum(up for server, up in self.up.items() if server != node) >= 2

    @invariant()
    def all_agree(self) -> None:
        disks = self.simulator.get("DisksList")
        down = {int(disk) for disk, shown in disks.items() if shown["generationLeft"] != -1}
        assert {disk for disk in map(int, disks) if not self.up[disk // 100]} <= down
        behind = {task["diskId"] for task in self.simulator.get("TasksList")}
        assert not behind & down
        for name, volume in self.simulator.get("VolumesGetStatusQuick").items():
            info = self.simulator.get(f"VolumeGetInfo/{name}")
            sets = [set(each["disks"]) for each in info["objectsPerDiskSet"]]
            copies = sum(len(each["disks"]) * each["count"] for each in info["objectsPerDiskSet"])
            assert sum(info["objectsPerDisk"].values()) == copies
            assert set(volume["downDrives"]) == set().union(*sets) & down
            if volume["status"] == "up":
                assert all(each - down for each in sets)
            if any(each and not each - down for each in sets):
                assert volume["status"] in ("down", "data lost") and volume["downBytes"] > 0
            servers = [len({disk // 100 for disk in each}) for each in sets]
            assert (
                all(count == len(each) for count, each in zip(servers, sets, strict=True)) or volume["replication"] == 3
            )
        status = self.simulator.get("ServersListBlocked")
        assert (status["clusterStatus"] == "running") == (sum(self.up.values()) >= 2)
        if status["clusterStatus"] == "running":
            assert self.simulator.get("ServicesList")["servers"] == status["servers"]
        else:
            with pytest.raises(ApiError, match="not operational"):
                self.simulator.get("ServicesList")


TestMachinery = Machinery.TestCase
TestMachinery.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_scrubbing_pauses_goes_on_and_ends_as_the_vendors_test_wants(rig: Bindings) -> None:
    strict = rig.strict
    strict.diskScrubPause(101)
    rig.simulator.advance(100)
    assert strict.diskDescribe(101)["scrubbingPaused"]
    strict.diskScrubStart(101)
    rig.simulator.advance(50)
    shown = strict.diskDescribe(101)
    assert shown["scrubbingPaused"] and shown["scrubbingStartedBefore"] == shown["scrubbingPausedFor"] == 50
    strict.diskScrubContinue(101)
    rig.simulator.advance(1800)
    rig.restart()
    shown = strict.diskDescribe(101)
    assert not shown["scrubbingPaused"] and shown["scrubbingFinishAfter"] == 1800 and shown["lastScrubCompleted"] == 0
    rig.simulator.advance(1900)
    assert strict.diskDescribe(101)["lastScrubCompleted"] == int(rig.simulator.time) - 100
    assert strict.diskDescribe(201)["lastScrubCompleted"] == 0


def test_a_disk_in_soft_eject_is_empty_in_the_end_and_fills_again_when_that_is_cancelled(rig: Bindings) -> None:
    strict = rig.strict
    held = strict.volumeInfo("v")["objectsPerDisk"]
    disk = next(iter(held))
    strict.diskSoftEject(int(disk))
    assert status(rig)["softEjectingDrives"] == [int(disk)] and status(rig)["migrating"]
    rig.simulator.advance(30)
    strict.diskSoftEjectPause(int(disk))
    rig.simulator.advance(1000)
    assert strict.tasksList() == [] and disk in strict.volumeInfo("v")["objectsPerDisk"]
    strict.diskSoftEject(int(disk))
    rig.restart()
    assert [task["diskId"] for task in strict.tasksList()] == [int(disk)]
    rig.simulator.advance(31)
    assert disk not in strict.volumeInfo("v")["objectsPerDisk"] and strict.disksList()[disk]["empty"]
    assert not status(rig)["migrating"] and strict.tasksList() == []
    strict.diskSoftEjectCancel(int(disk))
    assert strict.volumeInfo("v")["objectsPerDisk"] == held


def test_only_what_was_on_a_drained_disk_moves(rig: Bindings) -> None:
    for number in range(12):
        rig.strict.volumeCreate({"name": f"v{number}", "size": 200 * MB, "replication": 2})
    before = {name: rig.strict.volumeDescribe(name)["targetDiskSets"] for name in map("v{}".format, range(12))}
    rig.strict.diskSoftEject(202)
    for name, sets in before.items():
        now = rig.strict.volumeDescribe(name)["targetDiskSets"]
        assert all(new == old or 202 in old for new, old in zip(now, sets, strict=True))
        assert not any(202 in each for each in now)
    assert len({disk for sets in before.values() for each in sets for disk in each}) == 6


def test_volumes_follow_their_disks_down_and_back(rig: Bindings) -> None:
    assert status(rig)["status"] == "up" and not status(rig)["decreasedRedundancy"]
    control(rig, "server/1", running=False)
    assert status(rig)["status"] == "up" and status(rig)["decreasedRedundancy"]
    for disk in (201, 202, 301, 302):
        control(rig, f"disk/{disk}", up=False)
    assert status(rig)["status"] == "down" and status(rig)["downBytes"] == 1 << 30
    control(rig, "disk/201", up=True)
    control(rig, "disk/202", up=True)
    assert status(rig)["status"] == "up soon" and {task["diskId"] for task in rig.strict.tasksList()} == {201, 202}
    rig.simulator.advance(6)
    assert status(rig)["status"] == "up" and rig.strict.tasksList() == []


def test_forgetting_needs_a_disk_that_is_down_and_takes_it_from_its_groups(rig: Bindings) -> None:
    rig.refused("busy", "diskForget", 101)
    rig.refused("busy", "diskIgnore", 101)
    rig.strict.diskEject(101)
    rig.strict.diskForget(101)
    assert 101 not in rig.strict.placementGroupDescribe("default")["disks"]
    rig.refused("objectDoesNotExist", "diskDescribe", 101)
    assert rig.refuses("POST", "DiskSetDescription/102", {"description": "x" * 31}) == "invalidParam"
    assert rig.refuses("POST", "DiskSetDescription/102", {"description": "a/b"}) == "invalidParam"


def test_a_maintenance_that_would_break_its_limits_is_refused_and_one_that_is_over_ends_unless_the_node_is_away(
    rig: Bindings,
) -> None:
    wanted: dict[str, Any] = {"nodeId": 1, "duration": 60, "description": "d"}
    rig.refused("busy", "maintenanceSet", {**wanted, "minOkReplicas": 3})
    rig.refused("busy", "maintenanceSet", {**wanted, "maxReplicationDecrease": 0})
    rig.refused("busy", "maintenanceSet", {**wanted, "votingSafetyMargin": 1})
    rig.refused("busy", "maintenanceSet", {**wanted, "maxNodesInMaintenance": 0})
    rig.refused("objectDoesNotExist", "maintenanceSet", {**wanted, "nodeId": 9})
    rig.strict.maintenanceSet({**wanted, "minOkReplicas": 2, "maxReplicationDecrease": 1, "votingSafetyMargin": 0})
    rig.refused("objectExists", "maintenanceSet", wanted)
    rig.restart()
    rig.simulator.advance(61)
    assert rig.strict.maintenanceList() == {"nodes": []}
    rig.refused("objectDoesNotExist", "maintenanceComplete", {"nodeId": 1})
    rig.strict.maintenanceSet(wanted)
    control(rig, "server/1", running=False)
    rig.simulator.advance(61)
    assert [node["overrun"] for node in rig.strict.maintenanceList()["nodes"]] == [True]
    for bad in ({"nodeId": 64}, {"duration": 0}, {"minOkReplicas": -1}, {"other": 1}):
        assert rig.refuses("POST", "MaintenanceSet", {**wanted, **bad}) == "invalidParam"
