"""The balancer, from start to commit."""

from __future__ import annotations

import pytest
from core_rig import Bindings
from placement_rig import DISKS, MB, OBJECT, SSD, balancer, fill, migrating, objects, tables, with_volume


@pytest.fixture
def rig() -> Bindings:
    return with_volume()


def test_the_balancer_evens_out_disks_when_it_is_told_to(rig: Bindings) -> None:
    strict = rig.strict
    for number in range(10):
        strict.volumeCreate({"name": f"w{number}", "size": 30 * OBJECT, "replication": 2})
    for command in ("stop", "commit"):
        rig.refused("invalidParam", "volumeBalancerSetStatus", {"cmd": command})
    strict.volumeBalancerSetStatus({"cmd": "start"})
    assert balancer(rig) == "working"
    assert not any(shown["reallocated"] for shown in strict.volumeBalancerVolumesStatus())
    rig.refused("busy", "volumeBalancerSetStatus", {"cmd": "start"})
    rig.refused("busy", "volumeBalancerSetStatus", {"cmd": "commit"})
    rig.simulator.advance(5)
    rig.restart()
    assert balancer(rig) == "ready"
    before, uneven = strict.volumesList(), fill(rig)
    wanted = {int(disk): shown["objectsAllocated"]["target"] for disk, shown in strict.volumeBalancerDisks().items()}
    moved = [shown["name"] for shown in strict.volumeBalancerVolumesStatus() if shown["reallocated"]]
    sets = {name: strict.volumeBalancerVolumeDiskSets(name)["balancerDiskSets"] for name in moved}
    assert moved and max(wanted.values()) - min(wanted.values()) < max(uneven) - min(uneven)
    strict.volumeBalancerSetStatus({"cmd": "stop"})
    assert balancer(rig) == "nothing to do" and fill(rig) == uneven and strict.volumesList() == before
    strict.volumeBalancerSetStatus({"cmd": "start"})
    rig.simulator.advance(5)
    strict.volumeBalancerSetStatus({"cmd": "commit"})
    assert balancer(rig) == "commiting" and fill(rig) == uneven and all(migrating(rig, name) for name in moved)
    for command in ("start", "stop", "commit"):
        rig.refused("busy", "volumeBalancerSetStatus", {"cmd": command})
    rig.simulator.advance(30)
    rig.restart()
    assert balancer(rig) == "commiting"
    rig.simulator.advance(30)
    assert balancer(rig) == "nothing to do" and fill(rig) == list(wanted.values())
    assert "balancer" not in tables(rig.simulator) and "relocation" not in tables(rig.simulator)
    for name in moved:
        assert strict.volumeDescribe(name)["targetDiskSets"] == sets[name]
        assert all(len({disk // 100 for disk in one}) == 2 for one in sets[name])
    strict.volumeBalancerSetStatus({"cmd": "start"})
    rig.simulator.advance(5)
    assert balancer(rig) == "nothing to do"


def test_the_balancer_tells_what_it_would_move_of_each_volume_and_snapshot(rig: Bindings) -> None:
    strict = rig.strict
    for number in range(10):
        strict.volumeCreate({"name": f"w{number}", "size": 30 * OBJECT, "replication": 2})
        strict.snapshotCreate(f"w{number}", {"name": f"s{number}"})
    strict.volumeBalancerSetStatus({"cmd": "start"})
    rig.simulator.advance(5)
    moved = {one["name"]: one["snapshot"] for one in strict.volumeBalancerVolumesStatus() if one["reallocated"]}
    assert set(moved.values()) == {True, False}
    told = {}
    for name, snapshot in moved.items():
        if snapshot:
            disks, sets = strict.volumeBalancerSnapshotDisks(name), strict.volumeBalancerSnapshotDiskSets(name)
        else:
            disks, sets = strict.volumeBalancerVolumeDisks(name), strict.volumeBalancerVolumeDiskSets(name)
        assert (objects(disks, "current"), sets["currentDiskSets"]) == where(rig, name, snapshot=snapshot)
        assert (sets["name"], sets["snapshot"], sets["reallocated"]) == (name, snapshot, True)
        told[name] = objects(disks, "target"), sets["balancerDiskSets"]
        assert told[name] != where(rig, name, snapshot=snapshot)
    strict.volumeBalancerSetStatus({"cmd": "commit"})
    rig.simulator.advance(60)
    assert {name: where(rig, name, snapshot=snapshot) for name, snapshot in moved.items()} == told


def where(rig: Bindings, name: str, *, snapshot: bool) -> tuple[dict[str, int], list[list[int]]]:
    """Objects by disk, and disk sets."""
    strict = rig.strict
    if snapshot:
        return strict.snapshotInfo(name)["objectsPerDisk"], strict.snapshotDescribe(name)["targetDiskSets"]
    return strict.volumeInfo(name)["objectsPerDisk"], strict.volumeDescribe(name)["targetDiskSets"]


def test_a_second_run_adds_to_what_the_first_chose(rig: Bindings) -> None:
    strict, overrides = rig.strict, []
    for group in ("default", "hdd"):
        for number in range(8):
            strict.volumeCreate({"name": f"{group}{number}", "size": 30 * OBJECT, "replication": 2, "placeAll": group})
        strict.volumeBalancerSetStatus({"cmd": "start"})
        rig.simulator.advance(5)
        wanted = [shown["objectsAllocated"]["target"] for shown in strict.volumeBalancerDisks().values()]
        strict.volumeBalancerSetStatus({"cmd": "commit"})
        rig.simulator.advance(60)
        assert fill(rig) == wanted
        overrides.append({number: set(strict.vagList(number)["overrides"]) for number in range(1, 10)})
    assert overrides[0] != overrides[1]
    assert all(before <= overrides[1][vag] for vag, before in overrides[0].items())
    vag = next(vag for vag, chosen in overrides[1].items() if chosen)
    chosen = strict.vagList(vag)["overrides"]
    for count in (64, 4, 1):
        strict.vagUpdate({"vagId": str(vag), "targetsCount": count})
        kept = {number: disks for number, disks in chosen.items() if int(number) < count}
        assert strict.vagList(vag)["overrides"] == kept


def test_the_balancer_leaves_small_differences(rig: Bindings) -> None:
    strict = rig.strict
    strict.volumeDelete("v")
    strict.placementGroupUpdate("two", {"addDisks": [101, 201]})
    for number in range(200):
        strict.volumeCreate({"name": f"w{number}", "size": MB, "replication": 1, "placeAll": "two"})
    strict.volumeBalancerSetStatus({"cmd": "start"})
    rig.simulator.advance(5)
    shown = strict.volumeBalancerDisks()
    first, second = (shown[disk]["objectsAllocated"] for disk in ("101", "201"))
    assert abs(first["current"] - second["current"]) > 5 >= abs(first["target"] - second["target"]) > 1


def test_the_balancer_leaves_groups_alone_whose_members_disagree(rig: Bindings) -> None:
    strict = rig.strict
    strict.volumeCreate({"name": "w", "size": 16 * OBJECT, "placeAll": "ssd", "replication": 1})
    strict.volumeCreate({"name": "large", "size": 400 * OBJECT, "placeAll": "ssd", "replication": 1})
    strict.snapshotCreate("large", {"name": "s"})
    strict.volumeUpdate("large", {"placeTail": "default"})
    rig.simulator.advance(60)
    strict.volumeBalancerSetStatus({"cmd": "start"})
    rig.simulator.advance(5)
    moved = {found["name"] for found in strict.volumeBalancerVolumesStatus() if found["reallocated"]}
    assert moved and not moved & {"large", "s"}


def test_the_balancer_waits_for_the_relocator_and_is_blocked_by_disks_that_it_chose(rig: Bindings) -> None:
    for number in range(10):
        rig.strict.volumeCreate({"name": f"w{number}", "size": 30 * OBJECT, "replication": 2})
    rig.strict.volumeBalancerSetStatus({"cmd": "start"})
    rig.simulator.advance(5)
    rig.strict.volumeUpdate("v", SSD)
    assert balancer(rig) == "waiting"
    rig.refused("busy", "volumeBalancerSetStatus", {"cmd": "commit"})
    rig.simulator.advance(60)
    assert balancer(rig) == "ready"
    for disk in DISKS:
        rig.simulator.post(f"/_sim/disk/{disk}", {"up": False})
    assert balancer(rig) == "blocked"
    assert all(shown["blocked"] for shown in rig.strict.volumeBalancerVolumesStatus())
    rig.refused("busy", "volumeBalancerSetStatus", {"cmd": "commit"})
    rig.strict.volumeBalancerSetStatus({"cmd": "stop"})
    assert balancer(rig) == "nothing to do"


def test_a_committed_run_is_over_when_what_it_moves_is_deleted(rig: Bindings) -> None:
    for number in range(10):
        rig.strict.volumeCreate({"name": f"w{number}", "size": 30 * OBJECT, "replication": 2})
    rig.strict.volumeBalancerSetStatus({"cmd": "start"})
    rig.simulator.advance(5)
    gone = next(shown["name"] for shown in rig.strict.volumeBalancerVolumesStatus() if shown["reallocated"])
    rig.strict.volumeDelete(gone)
    rig.strict.volumeBalancerSetStatus({"cmd": "commit"})
    rig.strict.volumeCreate({"name": "x", "size": MB, "placeAll": "hdd"})
    rig.strict.volumeUpdate("x", SSD)
    assert balancer(rig) == "commiting"
    rig.simulator.advance(1)
    for volume in rig.strict.volumesList():
        if volume["name"] != "x":
            rig.strict.volumeDelete(volume["name"])
    assert migrating(rig, "x")
    assert balancer(rig) == "nothing to do"
    assert not {"balancer", "vag"} & tables(rig.simulator)
