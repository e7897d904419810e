"""A cluster with a volume to move, and what tests ask of it."""

from __future__ import annotations

from typing import Any

import msgspec
from core_rig import Bindings, bindings

from simulator.inprocess import InProcess

MB = 1 << 20
OBJECT = 32 * MB
DISKS = [101, 102, 201, 202, 301, 302]
SSD = {"placeHead": "ssd", "placeAll": "ssd", "placeTail": "ssd"}


def with_volume() -> Bindings:
    """The volume `v` has 16 objects in two copies on hard disks."""
    made = bindings()
    made.strict.volumeCreate({"name": "v", "size": 16 * OBJECT, "placeAll": "hdd", "replication": 2})
    made.simulator.blocks.write(1, 0, b"x" * 4096 * 64)
    return made


def tables(simulator: InProcess) -> set[str]:
    """Kinds of records that are there."""
    return {record["type"] for record in msgspec.msgpack.decode(simulator.service.encoded_state())["records"]}


def held(rig: Bindings, name: str = "v") -> set[int]:
    return set(map(int, rig.strict.volumeInfo(name)["objectsPerDisk"]))


def migrating(rig: Bindings, name: str = "v") -> bool:
    return bool(rig.strict.volumesQuickStatus()[name]["migrating"])


def sets(rig: Bindings) -> list[list[int]]:
    """Of the objects of `v`."""
    found: list[list[int]] = rig.strict.volumeDescribe("v")["objects"]
    return found


def fill(rig: Bindings) -> list[int]:
    return [disk["objectsAllocated"] for disk in rig.strict.disksList().values()]


def balancer(rig: Bindings) -> str:
    return str(rig.strict.volumeBalancerGetStatus()["status"])


def objects(shown: dict[str, Any], what: str) -> dict[str, int]:
    """By disk, of an estimate: how many are there now (`current`) or will be (`target`), where there are any."""
    counts = {disk: int(one["objectsAllocated"][what]) for disk, one in shown.items()}
    return {disk: count for disk, count in counts.items() if count}
