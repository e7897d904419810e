"""What the devices of volumes are held to follows volumes, templates, sizes and attachments, also over a restart."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from simulator.inprocess import ApiError, InProcess
from simulator.settings import Settings

GIB = 1 << 30
NUMBERS = st.sampled_from(["-", 0, 1, 7, 500, "800"])
NAMES = st.sampled_from(["a", "b"])


def number(shown: int | str) -> int:
    return 0 if shown == "-" else int(shown)


class LimitsOfDevices(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.simulator = InProcess(Settings(bandwidth_unit_bytes=1000))
        self.simulator.post("VolumeTemplateCreate", {"name": "t", "placeAll": "hdd", "iops": 300})
        for name in ("a", "b"):
            self.simulator.post("VolumeCreate", {"name": name, "size": GIB // 2, "template": "t"})

    @rule(name=NAMES, iops=NUMBERS, bw=NUMBERS, kind=st.sampled_from(["total", "perGiB"]))
    def change(self, name: str, iops: int | str, bw: int | str, kind: str) -> None:
        self.simulator.post(f"VolumeUpdate/{name}", {"iops": iops, "bw": bw, "limitType": kind})

    @rule(name=NAMES, gib=st.sampled_from([512, GIB // 2, 3 * GIB]))
    def resize(self, name: str, gib: int) -> None:
        self.simulator.post(f"VolumeUpdate/{name}", {"size": gib, "shrinkOk": True})

    @rule(iops=NUMBERS)
    def propagate(self, iops: int | str) -> None:
        self.simulator.post("VolumeTemplateUpdate/t", {"iops": iops, "propagate": True})

    @rule(name=NAMES, client=st.sampled_from([1, 2]), rights=st.sampled_from(["rw", "ro"]))
    def attach(self, name: str, client: int, rights: str) -> None:
        self.simulator.post("VolumesReassignWait", {"reassign": [{"volume": name, rights: [client]}]})

    @rule(name=NAMES, client=st.sampled_from([1, 2, "all"]))
    def detach(self, name: str, client: int | str) -> None:
        wanted = "all" if client == "all" else [client]
        self.simulator.post("VolumesReassign", [{"volume": name, "detach": wanted}])

    @rule(name=NAMES)
    def revert(self, name: str) -> None:
        snapshot = self.simulator.post(f"VolumeSnapshot/{name}")["snapshotGlobalId"]
        try:
            self.simulator.post(f"VolumeRevert/{name}", {"toSnapshot": f"~{snapshot}"})
        except ApiError as error:
            assert error.name == "busy"

    @rule()
    def restart(self) -> None:
        for key in self.simulator.blocks.objects():
            # Those of a new process remember none.
            self.simulator.blocks.limit(key, 0, 0)
        self.simulator.restart()

    @invariant()
    def devices_are_held_to_what_the_volume_shows(self) -> None:
        attached = {item["volume"] for item in self.simulator.get("AttachmentsList")}
        keys = self.simulator.service.object_keys()
        for shown in self.simulator.get("VolumesList"):
            held = self.simulator.blocks.limits(keys[shown["globalId"]])
            assert held == (self._expected(shown) if shown["name"] in attached else (0, 0)), shown

    @staticmethod
    def _expected(shown: dict[str, Any]) -> tuple[int, int]:
        scale = shown["size"] / GIB if shown.get("limitType") == "perGiB" else 1
        limits = [number(shown["iops"]) * scale, number(shown["bw"]) * 1000 * scale]
        return tuple(max(1, int(limit)) if limit else 0 for limit in limits)  # type: ignore[return-value]  # two


TestLimitsOfDevices = LimitsOfDevices.TestCase
TestLimitsOfDevices.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
