"""Allocation groups, and copies that are given up."""

from __future__ import annotations

import pytest
from core_rig import Bindings
from placement_rig import OBJECT, held, migrating, tables, with_volume


@pytest.fixture
def rig() -> Bindings:
    return with_volume()


def test_an_allocation_group_shares_disk_sets(rig: Bindings) -> None:
    strict = rig.strict
    strict.snapshotCreate("v", {"name": "s"})
    strict.volumeCreate({"name": "child", "parent": "s"})
    strict.volumeCreate({"name": "other", "parent": "s", "replication": 3})
    strict.volumeCreate({"name": "w", "size": 16 * OBJECT, "placeAll": "hdd", "replication": 2})
    sets = {name: strict.volumeDescribe(name)["targetDiskSets"] for name in ("v", "child", "w")}
    assert sets["v"] == sets["child"] == strict.snapshotDescribe("s")["targetDiskSets"] != sets["w"]
    assert strict.vagList(1)["targetDiskSets"] == sets["v"] and strict.vagList(1)["parentVagId"] == 1
    number = strict.volumeList("w")[0]["id"]
    rig.refused("invalidParam", "volumeUpdateVag", "other", {"vagId": "parent"})
    rig.refused("invalidParam", "volumeUpdateVag", "w", {"vagId": "parent"})
    rig.refused("objectDoesNotExist", "volumeUpdateVag", "w", {"vagId": 99})
    rig.refused("objectDoesNotExist", "snapshotUpdateVag", "w", {"vagId": 1})
    strict.volumeUpdateVag("child", {"vagId": number})
    assert migrating(rig, "child") and strict.volumeDescribe("child")["targetDiskSets"] == sets["w"]
    strict.volumeUpdateVag("child", {"vagId": "parent"})
    strict.volumeUpdateVag("w", {"vagId": 1})
    rig.refused("objectDoesNotExist", "vagList", number)
    assert strict.volumeDescribe("w")["targetDiskSets"] == sets["v"]
    strict.volumeRevert("w", {"toSnapshot": "s"})
    assert strict.volumeDescribe("w")["targetDiskSets"] == sets["v"]
    strict.volumeRevert("v", {"toSnapshot": "s"})
    assert strict.volumeDescribe("v")["targetDiskSets"] == sets["v"]
    strict.volumeUpdateVag("w", {"vagId": strict.volumeList("w")[0]["id"]})
    assert strict.volumeDescribe("w")["targetDiskSets"] != sets["v"]


def test_the_number_of_disk_sets_is_the_groups_and_goes_with_it(rig: Bindings) -> None:
    strict = rig.strict
    strict.volumeCreate({"name": "small", "size": OBJECT})
    few = strict.volumeDescribe("v")["targetDiskSets"]
    strict.vagUpdate({"vagId": "1", "targetsCount": 16})
    many = strict.volumeDescribe("v")["targetDiskSets"]
    assert len(few) == 8 and len(many) == 16 and many[:8] == few and migrating(rig)
    strict.vagUpdate({"vagId": "1", "targetsCount": 2})
    rig.simulator.advance(61)
    rig.restart()
    assert strict.volumeDescribe("v")["targetDiskSets"] == few[:2] and not migrating(rig)
    taken = strict.snapshotCreate("v", {})["autoName"]
    strict.snapshotUpdateVag(taken, {"vagId": strict.snapshotList(taken)[0]["id"]})
    strict.volumeRevert("v", {"toSnapshot": taken})
    strict.volumeUpdate("v", {"tags": {"k": "v"}})
    assert strict.volumeDescribe("v")["targetDiskSets"] == few[:2]
    for sets, name in ((3, "invalidParam"), (128, "invalidParam"), (0, "invalidParam")):
        assert rig.refuses("POST", "VagUpdate", {"vagId": "1", "targetsCount": sets}) == name
    rig.refused("objectDoesNotExist", "vagUpdate", {"vagId": "77", "targetsCount": 2})
    strict.volumeDelete("v")
    assert "vag" not in tables(rig.simulator)


def test_abandoned_copies_are_made_again_elsewhere(rig: Bindings) -> None:
    strict = rig.strict
    strict.volumeCreate({"name": "w", "size": 16 * OBJECT, "replication": 2})
    disk = min(held(rig, "w"))
    rig.refused("busy", "volumeAbandonDisk", "w", {"diskId": disk})
    rig.refused("objectDoesNotExist", "volumeAbandonDisk", "w", {"diskId": 999})
    rig.simulator.post(f"/_sim/disk/{disk}", {"up": False})
    strict.volumeAbandonDisk("w", {"diskId": disk})
    status = strict.volumesQuickStatus()["w"]
    assert status["decreasedRedundancy"] and status["migrating"] and disk not in held(rig, "w")
    assert status["downDrives"] == [] == status["missingTargetDrives"]
    rig.refused("invalidParam", "volumeAbandonDisk", "w", {"diskId": disk})
    rig.simulator.advance(30)
    rig.restart()
    rig.simulator.advance(31)
    status = strict.volumesQuickStatus()["w"]
    assert not status["decreasedRedundancy"] and not status["migrating"]
    rig.simulator.post(f"/_sim/disk/{disk}", {"up": True})
    assert disk not in held(rig, "w") and not migrating(rig, "w")


def test_abandoned_copies_of_a_snapshot_are_made_again_elsewhere(rig: Bindings) -> None:
    strict = rig.strict
    strict.volumeCreate({"name": "w", "size": 16 * OBJECT, "replication": 2})
    name = strict.snapshotCreate("w", {})["autoName"]
    before = strict.snapshotInfo(name)["objectsPerDisk"]
    disk = int(min(before))
    rig.refused("busy", "snapshotAbandonDisk", name, {"diskId": disk})
    rig.refused("objectDoesNotExist", "snapshotAbandonDisk", name, {"diskId": 999})
    rig.simulator.post(f"/_sim/disk/{disk}", {"up": False})
    strict.snapshotAbandonDisk(name, {"diskId": disk})
    assert migrating(rig, name) and not migrating(rig, "w")
    rig.refused("invalidParam", "snapshotAbandonDisk", name, {"diskId": disk})
    rig.simulator.advance(61)
    assert str(disk) not in strict.snapshotInfo(name)["objectsPerDisk"]
    rig.simulator.post(f"/_sim/disk/{disk}", {"up": True})
    assert str(disk) not in strict.snapshotInfo(name)["objectsPerDisk"]
    assert strict.volumeInfo("w")["objectsPerDisk"] == before


def test_the_last_good_copy_is_not_abandoned(rig: Bindings) -> None:
    disks = sorted(held(rig))
    for disk in disks:
        rig.simulator.post(f"/_sim/disk/{disk}", {"up": False})
    rig.refused("busy", "volumeAbandonDisk", "v", {"diskId": disks[0]})
    for disk in disks[1:]:
        rig.simulator.post(f"/_sim/disk/{disk}", {"up": True})
    rig.refused("busy", "volumeAbandonDisk", "v", {"diskId": disks[0]})
    rig.simulator.advance(6)
    rig.strict.volumeAbandonDisk("v", {"diskId": disks[0]})
