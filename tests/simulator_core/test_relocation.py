"""Whatever is asked of placement: copies obey the rules, answers agree, and everything gets where it belongs."""

from __future__ import annotations

from itertools import product
from typing import Any

import hypothesis.strategies as st
import pytest
from core_rig import Bindings
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from placement_rig import DISKS, MB, OBJECT, SSD, balancer, held, migrating, objects, sets, tables, with_volume

from simulator.inprocess import ApiError, InProcess
from simulator.settings import Settings

DISK = st.sampled_from(DISKS)
GROUP = st.sampled_from(["default", "hdd", "ssd", "g"])
NAME = st.sampled_from(["a", "b", "c", "d"])
PLACES = ("placeHead", "placeAll", "placeTail")
POLICY = st.fixed_dictionaries({}, optional={**dict.fromkeys(PLACES, GROUP), "replication": st.integers(1, 3)})
REFUSALS = ("invalidParam", "busy", "objectDoesNotExist", "objectExists", "insufficientResources")


def sets_of(shown: dict[str, Any], targets: list[list[int]]) -> list[list[int]]:
    """Target of each object."""
    return [targets[number % len(targets)] for number in range(len(shown["objects"]))]


class Placement(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.simulator = InProcess()
        self.post("PlacementGroupUpdate/g", {"addDisks": [101, 202, 302]})
        self.post("VolumeTemplateCreate", {"name": "t", "placeAll": "default", "replication": 2})
        self.post("VolumeCreate", {"name": "a", "size": 3 * OBJECT, "template": "t"})
        self.post("VolumeCreate", {"name": "b", "size": 20 * OBJECT, "placeAll": "hdd", "replication": 3})

    def post(self, path: str, body: object = None) -> None:
        before = self.simulator.service.encoded_state()
        try:
            self.simulator.post(path, body)
        except ApiError as error:
            assert error.name in REFUSALS, error
            assert self.simulator.service.encoded_state() == before

    @rule(name=NAME, objects=st.integers(1, 40), policy=POLICY)
    def create(self, name: str, objects: int, policy: dict[str, Any]) -> None:
        self.post("VolumeCreate", {"name": name, "size": objects * OBJECT, **policy})

    @rule(name=NAME, size=st.integers(1, 40), policy=POLICY)
    def update(self, name: str, size: int, policy: dict[str, Any]) -> None:
        self.post(f"VolumeUpdate/{name}", {"size": size * OBJECT, "shrinkOk": True, **policy})

    @rule(name=NAME, new=NAME)
    def copy(self, name: str, new: str) -> None:
        self.post("VolumeCreate", {"name": new, "baseOn": name})

    @rule(name=NAME)
    def snapshot(self, name: str) -> None:
        self.post(f"VolumeSnapshot/{name}", {"name": f"{name}s"})

    @rule(name=NAME)
    def delete(self, name: str) -> None:
        self.post(f"VolumeDelete/{name}")

    @rule(name=NAME)
    def revert(self, name: str) -> None:
        self.post(f"VolumeRevert/{name}", {"toSnapshot": f"{name}s"})

    @rule(policy=POLICY)
    def template(self, policy: dict[str, Any]) -> None:
        self.post("VolumeTemplateUpdate/t", {"propagate": True, **policy})

    @rule(group=GROUP, add=st.sets(DISK, max_size=2), remove=st.sets(DISK, max_size=2))
    def group(self, group: str, add: set[int], remove: set[int]) -> None:
        self.post(f"PlacementGroupUpdate/{group}", {"addDisks": sorted(add), "rmDisks": sorted(remove - add)})

    @rule(call=st.sampled_from(["DiskSoftEject", "DiskSoftEjectPause", "DiskSoftEjectCancel"]), disk=DISK)
    def drain(self, call: str, disk: int) -> None:
        self.post(f"{call}/{disk}")

    @rule(disk=DISK, up=st.booleans())
    def disk(self, disk: int, up: bool) -> None:
        self.post(f"/_sim/disk/{disk}", {"up": up})

    @rule(name=NAME, disk=DISK)
    def abandon(self, name: str, disk: int) -> None:
        self.post(f"VolumeAbandonDisk/{name}", {"diskId": disk})

    @rule(vag=st.integers(1, 6), sets=st.sampled_from([1, 2, 4, 16, 64]))
    def vag(self, vag: int, sets: int) -> None:
        self.post("VagUpdate", {"vagId": str(vag), "targetsCount": sets})

    @rule(name=NAME, vag=st.integers(1, 6) | st.just("parent"))
    def move_vag(self, name: str, vag: object) -> None:
        self.post(f"VolumeUpdateVag/{name}", {"vagId": vag})

    @rule(command=st.sampled_from(["start", "stop", "commit"]))
    def balance(self, command: str) -> None:
        self.post("VolumeBalancerStatus", {"cmd": command})

    @rule(seconds=st.sampled_from([1.0, 10.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.simulator.advance(seconds)

    @rule()
    def restart(self) -> None:
        before = self.shown()
        self.simulator.restart()
        assert self.shown() == before

    def shown(self) -> list[Any]:
        queries = ["VolumesGetStatusQuick", "VolumeRelocatorDisksList", "VolumeBalancerDisksList"]
        return [self.simulator.get(query) for query in [*queries, "VolumeBalancerStatus"]]

    def described(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Of each volume and snapshot that is not being deleted: description and status."""
        statuses = self.simulator.get("VolumesGetStatusQuick")
        return [
            (self.simulator.get(f"{'Snapshot' if status['snapshot'] else 'Volume'}Describe/{name}"), status)
            for name, status in statuses.items()
            if not status.get("deleted")
        ]

    @invariant()
    def copies_obey_the_rules(self) -> None:
        groups = {name: shown["disks"] for name, shown in self.simulator.get("PlacementGroupsList").items()}
        ejecting = {int(disk) for disk, found in self.simulator.get("DisksList").items() if found["softEject"] != "off"}
        for shown, status in self.described():
            copies = shown["replication"]
            places = [shown["placeHead"], *[shown["placeAll"]] * (copies - 2), shown["placeTail"]][-copies:]
            choices = [[disk for disk in groups[place] if disk not in ejecting] for place in places]
            possible = list(product(*choices))
            apart = any(len({disk // 100 for disk in one}) == copies for one in possible)
            whole = any(len(set(one)) == copies for one in possible)
            for disks in shown["targetDiskSets"]:
                assert len(set(disks)) == len(disks)
                assert len(disks) == copies or not whole
                assert len({disk // 100 for disk in disks}) == copies or not apart
                assert len(disks) < copies or all(disk in choice for disk, choice in zip(disks, choices, strict=True))
            moving = any(
                set(now) != set(then)
                for now, then in zip(shown["objects"], sets_of(shown, shown["targetDiskSets"]), strict=True)
            )
            assert status["migrating"] == moving
            assert all(len(set(disks)) == len(disks) for disks in shown["objects"])

    @invariant()
    def relocator_and_disks_tell_the_same(self) -> None:
        status = self.simulator.get("VolumeRelocatorStatus")
        statuses = self.simulator.get("VolumesGetStatusQuick").values()
        assert status["volumesToRelocate"] == sum(found["migrating"] for found in statuses)
        disks = self.simulator.get("DisksList")
        for number, shown in self.simulator.get("VolumeRelocatorDisksList").items():
            if shown["generationLeft"] == -1:
                objects = shown["objectsAllocated"]
                assert objects["current"] == disks[number]["objectsAllocated"]
                assert objects["current"] + objects["delta"] == objects["target"]
                assert objects["toRecover"] >= 0 and (status["volumesToRelocate"] or not objects["delta"])

    def teardown(self) -> None:
        """What was begun comes to its end once nothing stops it."""
        for disk in DISKS:
            self.simulator.post(f"/_sim/disk/{disk}", {"up": True})
        for _ in range(3):
            self.simulator.advance(100)
            for disk, shown in self.simulator.get("DisksList").items():
                if shown["softEject"] == "paused":
                    self.post(f"DiskSoftEject/{disk}")
        assert self.simulator.get("VolumeRelocatorStatus") == {
            "status": "on",
            "volumesToRelocate": 0,
            "recoveringFromRemote": 0,
        }
        for shown, status in self.described():
            assert not status["migrating"]
            assert list(map(set, shown["objects"])) == list(map(set, sets_of(shown, shown["targetDiskSets"])))
        assert self.simulator.get("VolumeBalancerStatus")["status"] in ("nothing to do", "ready", "blocked")
        assert "relocation" not in tables(self.simulator)


TestPlacement = Placement.TestCase
TestPlacement.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@pytest.fixture
def rig() -> Bindings:
    return with_volume()


def test_a_change_of_placement_moves_a_volume_in_its_time(rig: Bindings) -> None:
    strict, stored = rig.strict, 4096 * 64
    strict.volumeUpdate("v", SSD)
    assert held(rig) <= {101, 201, 301} and migrating(rig)
    assert strict.volumeRelocatorStatus()["volumesToRelocate"] == 1
    rig.simulator.advance(15)
    rig.restart()
    shown = strict.volumeRelocatorVolumeDisks("v")
    assert set(shown) == {"101", "102", "201", "202", "301", "302"} == set(strict.volumeRelocatorDisks())
    for number, disk in shown.items():
        objects, size = disk["objectsAllocated"], disk["onDiskSize"]
        assert objects["delta"] == objects["target"] - objects["current"]
        if number.endswith("1"):
            assert objects["current"] and not objects["target"] and not objects["toRecover"]
        else:
            assert not objects["current"] and objects["target"] * 3 // 4 - 8 < objects["toRecover"] < objects["target"]
            assert size["target"] == stored * objects["target"] // 16
    rig.simulator.advance(44.9)
    assert migrating(rig) and held(rig) <= {101, 201, 301}
    rig.simulator.advance(0.2)
    assert not migrating(rig) and held(rig) <= {102, 202, 302} and "relocation" not in tables(rig.simulator)
    assert all(not disk["objectsAllocated"]["delta"] for disk in strict.volumeRelocatorDisks().values())


def test_what_is_taken_back_in_time_moves_nothing_and_what_changes_nothing_costs_nothing(rig: Bindings) -> None:
    sets = rig.strict.volumeDescribe("v")["objects"]
    hdd = dict.fromkeys(SSD, "hdd")
    rig.strict.volumeUpdate("v", {**hdd, "iops": 5, "tags": {"k": "v"}})
    rig.strict.volumeUpdate("v", {"sizeAdd": 20 * OBJECT})
    rig.strict.volumeCreate({"name": "small", "size": 512, "replication": 2})
    unused = min(set(DISKS) - held(rig, "small"))
    rig.strict.placementGroupUpdate("default", {"rmDisks": [unused]})
    assert "relocation" not in tables(rig.simulator)
    rig.strict.volumeUpdate("v", SSD)
    rig.simulator.advance(59)
    rig.strict.volumeUpdate("v", hdd)
    for _ in range(3):
        assert not migrating(rig) and rig.strict.volumeDescribe("v")["objects"][:16] == sets
        rig.simulator.advance(50)
    assert "relocation" not in tables(rig.simulator)


def test_a_template_and_a_placement_group_move_what_they_concern(rig: Bindings) -> None:
    rig.strict.volumeTemplateCreate({"name": "t", "placeAll": "ssd", "replication": 2})
    rig.strict.volumeCreate({"name": "w", "size": OBJECT, "template": "t"})
    rig.strict.volumeTemplateUpdate("t", {"replication": 3, "propagate": True})
    assert not migrating(rig) and migrating(rig, "w") and len(held(rig, "w")) == 2
    assert rig.strict.volumesQuickStatus()["w"]["decreasedRedundancy"]
    rig.simulator.advance(60)
    assert not migrating(rig, "w") and len(held(rig, "w")) == 3
    rig.strict.placementGroupUpdate("hdd", {"addDisks": [102], "rmDisks": [101]})
    assert migrating(rig) and not migrating(rig, "w") and 101 in held(rig) and 102 not in held(rig)
    rig.simulator.advance(60)
    assert not migrating(rig) and 102 in held(rig) and 101 not in held(rig)


def test_a_relocation_waits_for_the_disks_that_it_needs(rig: Bindings) -> None:
    rig.simulator.post("/_sim/disk/102", {"up": False})
    rig.strict.volumeUpdate("v", SSD)
    assert rig.strict.volumeRelocatorStatus()["status"] == "blocked"
    rig.simulator.advance(1000)
    assert rig.simulator.service.due_in() is None
    assert migrating(rig) and rig.strict.volumesQuickStatus()["v"]["balancerBlocked"]
    rig.simulator.post("/_sim/disk/102", {"up": True})
    assert not migrating(rig) and held(rig) <= {102, 202, 302}


def test_what_waits_does_not_go_along_with_what_is_over(rig: Bindings) -> None:
    rig.strict.placementGroupUpdate("one", {"addDisks": [302]})
    rig.strict.volumeCreate({"name": "w", "size": MB, "replication": 1, "placeAll": "hdd"})
    rig.simulator.post("/_sim/disk/102", {"up": False})
    rig.strict.volumeUpdate("v", SSD)
    rig.strict.volumeUpdate("w", {"placeTail": "one"})
    assert rig.strict.volumeRelocatorStatus()["status"] == "on"
    rig.simulator.advance(60)
    assert held(rig, "w") == {302} and migrating(rig)
    assert rig.strict.volumeRelocatorStatus() == {
        "status": "blocked",
        "volumesToRelocate": 1,
        "recoveringFromRemote": 0,
    }


def test_copies_that_must_share_a_server_have_disks_of_their_own(rig: Bindings) -> None:
    rig.strict.placementGroupUpdate("two", {"addDisks": [101, 102]})
    rig.strict.placementGroupUpdate("one", {"addDisks": [102]})
    rig.strict.volumeTemplateCreate({"name": "t", "placeAll": "hdd", "replication": 2})
    rig.strict.volumeUpdate("v", {"template": "t"})
    rig.strict.volumeTemplateUpdate("t", {"placeAll": "two", "placeHead": "two", "placeTail": "one", "propagate": True})
    assert rig.strict.volumeDescribe("v")["targetDiskSets"] == [[101, 102]] * 8
    assert rig.strict.vagList(1)["diskSetsConstraintsViolated"]
    rig.strict.volumeBalancerSetStatus({"cmd": "start"})
    rig.simulator.advance(5)
    assert balancer(rig) == "nothing to do"


def test_a_disk_that_goes_for_good_while_it_is_moved_from_is_not_shown(rig: Bindings) -> None:
    rig.strict.volumeUpdate("v", SSD)
    rig.strict.diskEject(101)
    assert migrating(rig) and 101 not in held(rig) and {201, 301} & held(rig)
    rig.strict.diskForget(101)
    rig.strict.diskSoftEject(201)
    rig.strict.vagUpdate({"vagId": "1", "targetsCount": 16})
    assert migrating(rig) and 101 not in held(rig) and 201 in held(rig)
    rig.simulator.advance(60)
    assert not migrating(rig) and held(rig) <= {102, 202, 302}
    assert rig.simulator.service.tick() is None and "relocation" not in tables(rig.simulator)


def test_nothing_is_left_to_do_for_a_volume_whose_only_disk_was_ejected(rig: Bindings) -> None:
    rig.strict.placementGroupUpdate("one", {"addDisks": [101]})
    rig.strict.volumeCreate({"name": "w", "size": MB, "replication": 1, "placeAll": "one"})
    rig.strict.volumeUpdate("w", SSD)
    rig.strict.diskEject(101)
    assert not migrating(rig, "w") and rig.strict.volumeRelocatorStatus()["status"] == "on"
    rig.simulator.advance(60)
    rig.simulator.service.tick()
    assert "relocation" not in tables(rig.simulator)


def test_what_came_while_a_disk_is_drained_is_not_shown_on_that_disk(rig: Bindings) -> None:
    """It never was there; when the drain is called off, it is moved there like anything else."""
    rig.strict.diskSoftEject(302)
    rig.strict.diskSoftEjectPause(302)
    rig.strict.volumeUpdate("v", SSD)
    rig.simulator.advance(61)
    assert held(rig) == {102, 202} and not migrating(rig)
    rig.simulator.advance(600)
    assert held(rig) == {102, 202} and not migrating(rig)
    rig.strict.diskSoftEjectCancel(302)
    assert held(rig) == {102, 202} and migrating(rig)
    rig.simulator.advance(61)
    assert held(rig) == {102, 202, 302} and not migrating(rig) and "relocation" not in tables(rig.simulator)


def test_a_snapshot_is_where_its_volume_is(rig: Bindings) -> None:
    rig.strict.volumeUpdate("v", SSD)
    rig.simulator.advance(30)
    rig.strict.snapshotCreate("v", {"name": "s"})
    copy = rig.strict.volumeCreate({"name": "copy", "baseOn": "v"})
    for snapshot in ("s", copy["autoName"]):
        assert rig.strict.snapshotDescribe(snapshot)["objects"] == rig.strict.volumeDescribe("v")["objects"]
    rig.simulator.advance(30)
    assert not migrating(rig, "s") and rig.strict.snapshotDescribe("s")["objects"] == sets(rig)
    rig.strict.snapshotUpdate("s", {"placeHead": "hdd"})
    assert migrating(rig, "s") and rig.strict.snapshotDescribe("s")["objects"] == sets(rig)
    rig.strict.volumeTemplateCreate({"name": "t", "placeAll": "hdd"})
    rig.simulator.post("VolumeSnapshot/v", {"name": "other", "template": "t"})
    assert migrating(rig, "other") and rig.strict.snapshotDescribe("other")["objects"] == sets(rig)
    rig.simulator.advance(60)
    assert {disk for one in rig.strict.snapshotDescribe("other")["objects"] for disk in one} <= {101, 201, 301}


def test_the_relocator_tells_where_a_snapshot_goes(rig: Bindings) -> None:
    strict = rig.strict
    strict.snapshotCreate("v", {"name": "s"})
    strict.snapshotUpdate("s", SSD)
    before, shown = strict.snapshotInfo("s")["objectsPerDisk"], strict.volumeRelocatorSnapshotDisks("s")
    assert objects(shown, "current") == before and objects(strict.volumeRelocatorVolumeDisks("v"), "delta") == {}
    rig.simulator.advance(60)
    after, at_rest = strict.snapshotInfo("s")["objectsPerDisk"], strict.volumeRelocatorSnapshotDisks("s")
    assert objects(shown, "target") == after != before
    assert objects(at_rest, "current") == after and objects(at_rest, "delta") == {}


def test_relocation_takes_as_long_as_the_setting_says() -> None:
    simulator = InProcess(Settings(relocation_seconds=0.0, balancer_seconds=0.0))
    simulator.post("VolumeCreate", {"name": "v", "size": MB, "placeAll": "hdd"})
    simulator.post("VolumeUpdate/v", SSD)
    assert set(simulator.get("VolumeGetInfo/v")["objectsPerDisk"]) == {"102", "202", "302"}
    simulator.post("VolumeBalancerStatus", {"cmd": "start"})
    assert simulator.get("VolumeBalancerStatus")["status"] == "nothing to do"
    simulator.post("DiskSoftEject/101")
    simulator.post("VolumeUpdate/v", dict.fromkeys(SSD, "hdd"))
    assert set(simulator.get("VolumeGetInfo/v")["objectsPerDisk"]) == {"201", "301"}
