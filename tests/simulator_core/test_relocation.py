"""Whatever is asked of placement, copies obey the rules, every answer tells the same story, and all gets where it belongs."""

from __future__ import annotations

from itertools import product
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from core_rig import Bindings, bindings
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from simulator.inprocess import ApiError, InProcess
from simulator.settings import Settings

MB = 1 << 20
OBJECT = 32 * MB
DISKS = [101, 102, 201, 202, 301, 302]
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
                assert 0 <= objects["toRecover"] and (status["volumesToRelocate"] or not objects["delta"])

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
        tables = {record["type"] for record in msgspec.msgpack.decode(self.simulator.service.encoded_state())["records"]}
        assert "relocation" not in tables


TestPlacement = Placement.TestCase
TestPlacement.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


