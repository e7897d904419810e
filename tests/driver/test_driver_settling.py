"""What becomes of an object whose making was answered: the records tell, and what nobody has is undone at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
from driver_rig import Rig, image, looks_out, on_pool, snapshot_of, volume
from reconciler_rig import prepared, record, recorded, retag

from harness.driver.operations import Operation, Operations
from harness.driver.settling import Settler
from harness.runtime.simulated import Simulation
from harness.spi.inventory import SnapshotRecord
from harness.spi.objects import VolumeObject
from harness.spi.states import SnapshotState, VolumeState


@pytest.fixture
def rig() -> Rig:
    return prepared()


FATES: dict[str, tuple[Callable[[Rig, VolumeObject], object], bool]] = {
    "recorded": (lambda rig, made: record(rig, made), True),
    "not recorded": (lambda rig, made: record(rig, made, path=None, state=VolumeState.ALLOCATED), False),
    "another one recorded": (lambda rig, made: record(rig, made, path="/dev/storpool-byid/splab.b.zz"), False),
    "expunged": (lambda rig, made: record(rig, made, path=None, removed=True, state=VolumeState.EXPUNGED), False),
    "being created": (lambda rig, made: record(rig, made, path=None, state=VolumeState.CREATING), True),
    "unknown": (lambda rig, _: rig.records.volumes.clear(), True),
}


@pytest.mark.parametrize("restart", [True, False], ids=["next process", "same process"])
@pytest.mark.parametrize("fate", list(FATES))
def test_an_answered_volume_that_nobody_has_is_undone_without_waiting_for_the_grace_time(
    rig: Rig, fate: str, restart: bool
) -> None:
    made = rig.driver.create(volume())
    change, kept = FATES[fate]
    change(rig, made)
    if restart:
        rig.restart()
    else:
        rig.driver.recover()
        assert rig.volumes() == [made.path], "its answer may be on the way to the records"
        rig.time[0] += 61
    lines = rig.driver.recover()
    assert (rig.volumes() == [made.path], rig.volumes() == []) == (kept, not kept), lines
    # Time alone ends what the records say nothing about, and the next process has not waited yet.
    open_still = fate == "being created" or (fate == "unknown" and restart)
    left = [operation for operation in rig.records.open_operations() if not looks_out(operation)]
    assert bool(left) == open_still
    if fate == "being created":
        assert rig.driver.create(volume()).path == made.path


def test_open_operations_are_listed_once_a_round_however_many_there_are(rig: Rig) -> None:
    for number in range(5):
        record(rig, rig.driver.create(volume(number)), path=None, state=VolumeState.CREATING)
    rig.records.listings = 0
    assert len(rig.driver.recover()) == 5
    assert rig.records.listings == 1
    path = recorded(rig, 7)
    retag(rig, path, cvm="vm-9")
    rig.records.listings = 0
    assert len(rig.driver.reconcile_volumes()) == 1
    assert rig.records.listings == 0


@pytest.mark.parametrize("state", [SnapshotState.ERROR, SnapshotState.CREATING, SnapshotState.BACKED_UP])
def test_an_answered_snapshot_that_nobody_has_is_undone(rig: Rig, state: SnapshotState) -> None:
    path = recorded(rig)
    taken = rig.driver.take_snapshot(snapshot_of(volume(1, path=path)))
    own = taken.path if state is SnapshotState.BACKED_UP else None
    rig.records.snapshots["snap-9"] = SnapshotRecord(uuid="snap-9", state=state, removed=False, pool_id=1, path=own)
    rig.restart()
    rig.driver.recover()
    assert rig.snapshots() == ([] if state is SnapshotState.ERROR else [taken.path])
    assert (rig.records.open_operations() == []) == (state is not SnapshotState.CREATING)


@pytest.mark.parametrize("entry", ["none", "none, of an unknown template", "being seeded", "another path"])
def test_an_answered_seed_that_nobody_has_is_undone(rig: Rig, entry: str) -> None:
    rig.records.known_templates = {"tmpl-5"} if entry == "none" else set()
    seeded = rig.driver.copy(image(), on_pool(image()))
    if entry in ("being seeded", "another path"):
        path = "" if entry == "being seeded" else "/dev/storpool-byid/splab.b.zz"
        rig.records.templates[5, 1] = path
    rig.driver.recover()
    assert rig.snapshots() == [seeded.path], "its answer may be on the way to the records"
    rig.time[0] += 61
    rig.driver.recover()
    assert rig.snapshots() == ([] if entry in ("none", "another path") else [seeded.path])
    open_seeds = [operation for operation in rig.records.open_operations() if operation.kind == "seed-template"]
    assert bool(open_seeds) == (entry == "being seeded")


class Unlisted:
    """`Operations` that cannot be listed the first time."""

    answer_time = 60.0

    def __init__(self) -> None:
        self.looks = 0

    def open(self) -> list[Operation]:
        self.looks += 1
        if self.looks == 1:
            raise RuntimeError("nobody foresaw this")
        return []


def test_an_error_that_nobody_foresaw_does_not_end_the_background_task() -> None:
    simulation, operations = Simulation(1), Unlisted()
    runtime = simulation.process("management")
    settler = Settler(runtime, cast(Operations, operations))

    def main() -> None:
        runtime.spawn("answered", settler.wake)
        simulation.main.sleep(10 * operations.answer_time)

    simulation.run(main)
    assert operations.looks == 2
