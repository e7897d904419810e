"""Whatever was changed by hand and whatever befalls the first pass: what may be mended is, the rest is as it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from driver_rig import Fault, Rig, snapshot_of, volume
from hypothesis import given, settings
from hypothesis import strategies as st
from reconciler_rig import (
    FOREIGN_CLIENT,
    attach,
    attached,
    both,
    gid,
    hold_open,
    lost_volume,
    prepared,
    record,
    recorded,
    retag,
    running,
)

from harness.spi.errors import Dead
from harness.spi.inventory import SnapshotRecord
from harness.spi.objects import device_path
from harness.spi.states import SnapshotState
from harness.storpool import VolumeCreateDesc, VolumeSnapshotDesc, VolumeUpdateDesc

WANTED: tuple[dict[str, str], ...] = (
    {"uuid": "vol-0", "cs": "volume", "cvm": "vm-1", "disk": "0", "vc-policy": "daily"},
    {"uuid": "vol-1", "cs": "volume", "cvm": "vm-1", "disk": "4", "vc-policy": "daily"},
    {"uuid": "vol-2", "cs": "volume"},
)
"""Tags of three volumes: two of a VM that runs on host 1, one of nobody."""


@dataclass
class Cloud:
    """A cloud in which everything agrees, and what is expected of it after changes by hand."""

    rig: Rig = field(default_factory=prepared)
    paths: list[str] = field(default_factory=list)
    limits: list[int | Literal["-"]] = field(default_factory=lambda: [300, 300, "-"])
    attached: set[tuple[str, int]] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    """Objects that stay although no record names them."""
    young: int = 0

    def __post_init__(self) -> None:
        rig = self.rig
        running(rig)
        rig.records.vm_tags["vm-1", "vc-policy"] = "daily"
        for number in range(3):
            self.paths.append(recorded(rig, number, max_iops=None if number == 2 else 300))
            desc = VolumeUpdateDesc(tags=WANTED[number], iops=self.limits[number])
            rig.look.volume_update(gid(self.paths[number]), desc)
        for number in (0, 1):
            owner = {"vm_uuid": "vm-1", "device_id": int(WANTED[number]["disk"]), "max_iops": 300}
            record(rig, volume(number, path=self.paths[number]), **owner)
            attach(rig, self.paths[number])
            self.attached.add((self.paths[number], 1))
        taken = rig.driver.take_snapshot(snapshot_of(volume(2, path=self.paths[2]))).path
        rig.records.snapshots["snap-9"] = SnapshotRecord(
            uuid="snap-9", state=SnapshotState.BACKED_UP, removed=False, pool_id=1, path=taken
        )
        for tags in ({}, {"cs": "volume", "uuid": "of-another-cloud"}, {"virt": "pve", "uuid": "vol-2"}):
            made = rig.look.volume_create(VolumeCreateDesc(size=4096, template="hdd", tags=tags)).global_id
            self.kept.add(device_path(made))
            attach(rig, device_path(made), 2)
            self.attached.add((device_path(made), 2))
            taken = rig.look.snapshot_create(f"~{made}", VolumeSnapshotDesc(tags=tags)).snapshot_global_id
            self.kept.add(device_path(taken))
        rig.settle()

    def change(self, what: str, number: int, key: str, value: str, client: int) -> None:
        rig, path = self.rig, self.paths[number]
        if what == "tag":
            retag(rig, path, **{key: value})
        elif what == "limit":
            rig.look.volume_update(gid(path), VolumeUpdateDesc(iops=77))
            if number == 2:
                self.limits[number] = 77
        elif what == "attachment":
            attach(rig, path, client)
            if client == FOREIGN_CLIENT:
                self.attached.add((path, client))
        elif what == "open attachment":
            hold_open(rig, path)
            self.attached.add((path, 1))
        elif what == "snapshot":
            spare = f"spare-{len(rig.records.outcomes)}"
            rig.records.outcomes[spare] = "done"
            tags = {"cs": "snapshot", "uuid": "snap-9"}
            rig.look.snapshot_create(gid(path), VolumeSnapshotDesc(name=f"cs-{spare}-snapshot", tags=tags))
        elif what == "young volume":
            self.young += 1
        elif what == "volume":
            lost = lost_volume(rig, 20 + len(rig.records.volumes))
            if client == FOREIGN_CLIENT:
                attach(rig, lost, client)
                self.kept.add(lost)
                self.attached.add((lost, client))
        else:
            assert what == "check volume"
            lost = lost_volume(rig, 20 + len(rig.records.volumes))
            rig.records.details[1][f"SP_VOLUME_ON_CLUSTER-{len(rig.records.volumes)}"] = lost
            self.kept.add(lost)

    def grow_old(self) -> None:
        rig = self.rig
        rig.time[0] += 2 * 86400
        for number in range(self.young):
            made = rig.driver.create(volume(100 + number)).path
            assert made is not None
            self.kept.add(made)


def state(rig: Rig) -> tuple[object, ...]:
    return rig.look.volumes_list(), rig.look.snapshots_list(), rig.look.attachments_list()


CHANGE = st.tuples(
    st.sampled_from(
        ["tag", "limit", "attachment", "open attachment", "snapshot", "young volume", "volume", "check volume"]
    ),
    st.integers(0, 2),
    st.sampled_from(["uuid", "cs", "cvm", "disk", "vc-policy"]),
    st.sampled_from(["", "vm-2", "template", "3"]),
    st.integers(1, 3),
)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(CHANGE, max_size=8),
    st.dictionaries(st.integers(0, 30), st.sampled_from(sorted(Fault, key=str)), max_size=4),
    st.lists(st.integers(1, 12), max_size=4),
)
def test_two_passes_mend_what_may_be_mended_and_a_third_changes_nothing(
    drift: list[tuple[str, int, str, str, int]], faults: dict[int, Fault], lateness: list[int]
) -> None:
    cloud = Cloud()
    rig = cloud.rig
    for what in drift:
        cloud.change(*what)
    foreign = {v.global_id: v for v in rig.look.volumes_list() if device_path(v.global_id) in cloud.kept}
    cloud.grow_old()

    rig.cluster.calls.clear()
    rig.cluster.faults, rig.cluster.lateness = dict(faults), list(lateness)
    try:
        both(rig)
    except Dead:
        rig.restart()
    rig.settle()
    for _ in range(2):
        both(rig)

    for number, path in enumerate(cloud.paths):
        found = rig.look.volume(gid(path))
        assert (found.tags, found.iops) == (WANTED[number], cloud.limits[number])
    assert attached(rig) == cloud.attached
    there = set(rig.volumes()) | set(rig.snapshots())
    named = {*cloud.paths, rig.records.snapshots["snap-9"].path}
    assert there == named | cloud.kept
    now = {v.global_id: v for v in rig.look.volumes_list()}
    assert {key: now[key] for key in foreign} == foreign
    before = state(rig)
    assert not [finding for finding in both(rig) if finding.mended]
    assert state(rig) == before
    assert rig.unfinished() == []
