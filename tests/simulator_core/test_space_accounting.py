"""What disks, groups and templates say of their space follows what the blocks hold (spec 6.3, 6.4)."""

from __future__ import annotations

from typing import Any

from core_rig import Bindings, bindings

MB = 1 << 20
GIB = 1 << 30
POOL = 1 << 40


def template(rig: Bindings, name: str) -> dict[str, Any]:
    [found] = [one for one in rig.strict.volumeTemplatesStatus() if one["name"] == name]
    return dict(found)


def on_disks(rig: Bindings) -> dict[str, int]:
    return {number: disk["objectsOnDiskSize"] for number, disk in rig.strict.disksList().items()}


def write(rig: Bindings, volume: str, offset: int, length: int) -> None:
    key = rig.simulator.service.object_keys()[volume]
    rig.simulator.blocks.write(key, offset, b"x" * length)


def test_what_is_written_shows_on_its_disks_in_its_template_and_in_its_groups() -> None:
    rig = bindings()
    for name, group in (("all", "default"), ("hard", "hdd")):
        rig.strict.volumeTemplateCreate({"name": name, "placeAll": group, "replication": 3})
    rig.strict.volumeTemplateCreate({"name": "mixed", "placeAll": "hdd", "placeTail": "ssd", "replication": 2})
    assert template(rig, "all")["stored"]["capacity"] == POOL
    # Half of the disks hold half as much; of two copies with one group each, each group has one to hold.
    assert template(rig, "hard")["stored"]["capacity"] == POOL // 2
    assert template(rig, "mixed")["stored"]["capacity"] == 3 * POOL // 2
    volume = rig.strict.volumeCreate({"name": "v", "size": 100 * GIB, "template": "hard"})["globalId"]
    write(rig, volume, 0, 40 * MB)
    write(rig, volume, 50 * GIB, 20 * MB)
    used = on_disks(rig)
    assert sum(used.values()) == 3 * 60 * MB
    assert {disk for disk, amount in used.items() if amount} == {"101", "201", "301"}
    hard = template(rig, "hard")
    assert (hard["storedSize"], hard["onDiskSize"]) == (60 * MB, 180 * MB)
    assert hard["stored"]["free"] == POOL // 2 - 60 * MB
    assert hard["stored"]["placeAll"]["free"] == hard["availablePlaceAll"] == POOL // 2 - 60 * MB
    assert template(rig, "mixed")["stored"]["free"] <= 3 * POOL // 2 - 60 * MB * 3
    # A snapshot shares what it has with its volume, and is not counted twice.
    rig.strict.snapshotCreate("v", {"name": "s"})
    write(rig, volume, 70 * GIB, 10 * MB)
    assert template(rig, "hard")["storedSize"] == 70 * MB
    described = rig.strict.diskDescribe(101)["objects"].values()
    assert {one["volume"]: one["storedSize"] for one in described} == {"v": 10 * MB, "s": 60 * MB}
    rig.strict.volumeDelete("v")
    assert sum(on_disks(rig).values()) == 3 * 60 * MB
    rig.strict.snapshotDelete("s")
    rig.simulator.advance(10)
    assert sum(on_disks(rig).values()) == 0
    assert template(rig, "hard")["stored"]["free"] == POOL // 2


def test_a_full_pool_has_no_space_in_any_template() -> None:
    rig = bindings()
    rig.strict.volumeTemplateCreate({"name": "all", "placeAll": "default", "replication": 3})
    rig.simulator.blocks.taken = POOL
    assert template(rig, "all")["stored"]["free"] == 0
