"""Records restored from a backup that was made in the midst of an operation, which went on and was finished then."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import pytest
from driver_rig import MIB, POOL, Fault, Rig, image, on_pool, snapshot_of, volume
from reconciler_rig import prepared, record, recorded

from harness.spi.driver import OperationRecord
from harness.spi.errors import Conflict, Dead
from harness.spi.inventory import SnapshotRecord
from harness.spi.objects import Host
from harness.spi.states import SnapshotState, VolumeState

HOUR = 3600.0


@pytest.fixture
def rig() -> Rig:
    return prepared()


def back_up(rig: Rig, kind: str, step: str) -> list[OperationRecord]:
    """The operation of this kind as a backup has it that is made as soon as it is at this step."""
    saved: list[OperationRecord] = []
    change = rig.records.step_operation

    def watched(operation_id: str, from_step: str, to_step: str, data: Mapping[str, str]) -> None:
        change(operation_id, from_step, to_step, data)
        found = rig.records.operations[operation_id]
        if not saved and (found.kind, found.step) == (kind, step):
            saved.append(found)

    rig.records.step_operation = watched  # type: ignore[method-assign]
    return saved


def restore(rig: Rig, saved: list[OperationRecord], after: float) -> list[str]:
    """What recovery says, again and again, when the backup is restored `after` seconds after all was finished."""
    rig.settle()
    assert (rig.records.open_operations(), len(saved)) == ([], 1)
    rig.records.outcomes.clear()
    rig.records.operations = {saved[0].id: saved[0]}
    # `settle` let hours pass; how old the operation looks is for the test to say.
    rig.time[0] = saved[0].created_at + after
    rig.restart()
    first = rig.driver.recover()
    rig.driver.recover()
    return first


@pytest.mark.parametrize("step", ["create", "made", "answered"])
def test_a_snapshot_that_was_finished_since_the_backup_is_kept_and_told(rig: Rig, step: str) -> None:
    path = recorded(rig)
    saved = back_up(rig, "take-snapshot", step)
    source = snapshot_of(volume(1, path=path))
    taken = rig.driver.take_snapshot(source)
    row = SnapshotRecord(uuid="snap-9", state=SnapshotState.BACKED_UP, removed=False, pool_id=1, path=taken.path)
    rig.records.snapshots["snap-9"] = row
    rig.settle()
    rig.records.snapshots["snap-9"] = SnapshotRecord(
        uuid="snap-9", state=SnapshotState.ERROR, removed=False, pool_id=1, path=None
    )
    (line,) = restore(rig, saved, 2 * HOUR)
    assert "restored from a backup" in line and str(taken.path).rpartition("/")[2] in line
    assert (rig.snapshots(), len(rig.records.open_operations())) == ([taken.path], 1)
    assert rig.driver.take_snapshot(source).path == taken.path, "asked for again, it is the answer"


@pytest.mark.parametrize("after", [60.0, 2 * HOUR, 48 * HOUR])
@pytest.mark.parametrize("step", ["create", "made", "answered"])
def test_a_volume_that_was_finished_since_the_backup_is_kept(rig: Rig, step: str, after: float) -> None:
    saved = back_up(rig, "create-volume", step)
    made = rig.driver.create(volume())
    record(rig, made)
    rig.settle()
    record(rig, made, path=None, state=VolumeState.ALLOCATED)
    lines = restore(rig, saved, after)
    assert rig.volumes() == [made.path]
    if step != "create":
        assert "restored from a backup" in lines[0]
        with pytest.raises(Conflict, match="restored from a backup"):
            rig.driver.create(volume(size=64 * MIB))
        assert rig.driver.create(volume()).path == made.path
        assert rig.volumes() == [made.path]


@pytest.mark.parametrize("step", ["copied", "snapped", "answered"])
def test_a_cached_template_that_was_finished_since_the_backup_is_kept(rig: Rig, step: str) -> None:
    saved = back_up(rig, "seed-template", step)
    made = rig.driver.copy(image(), on_pool(image()))
    rig.records.templates[5, 1] = str(made.path)
    rig.settle()
    rig.records.templates.clear()
    rig.records.known_templates = {"tmpl-5"}
    if step == "copied":
        # The backup was made when the snapshot had been asked for.
        data = {**saved[0].data, "snapshot.unanswered": "1", "snapshot.settles": saved[0].data["volume.settles"]}
        saved[0] = msgspec.structs.replace(saved[0], data=data)
    (line,) = restore(rig, saved, 4 * HOUR)
    assert "restored from a backup" in line
    assert rig.snapshots() == [made.path]


def test_a_check_volume_that_was_finished_since_the_backup_is_kept(rig: Rig) -> None:
    saved = back_up(rig, "check-volume", "made")
    host = Host(id=1, uuid="h", name="kvm-1", cluster_id=1)
    rig.provider.host_listener.host_connected(host, POOL)
    (path,) = rig.volumes()
    rig.settle()
    del rig.records.details[1]["SP_VOLUME_ON_CLUSTER-1"]
    (line,) = restore(rig, saved, 2 * HOUR)
    assert "restored from a backup" in line
    rig.provider.host_listener.host_connected(host, POOL)
    assert (rig.volumes(), rig.records.details[1]["SP_VOLUME_ON_CLUSTER-1"]) == ([path], path)


def test_the_backup_of_a_volume_that_was_deleted_since_is_kept(rig: Rig) -> None:
    rig.records.settings["storpool.delete.after.interval"] = str(int(30 * 24 * HOUR))
    made = rig.driver.create(volume())
    record(rig, made)
    rig.settle()
    saved = back_up(rig, "delete", "backup")
    rig.driver.delete(made)
    # In the backup the snapshot was made, and its answer not recorded.
    data = {**saved[0].data, "snapshot.unanswered": "1", "snapshot.settles": str(saved[0].created_at + 600)}
    saved[0] = msgspec.structs.replace(saved[0], data=data)
    (kept,) = rig.snapshots()
    restore(rig, saved, 2 * HOUR)
    assert (rig.snapshots(), rig.records.open_operations()) == ([kept], [])


END: dict[str, Callable[[Rig], object]] = {
    "removed by hand": lambda rig: rig.look.volume_delete(rig.look.volumes_list()[0].name),
    "nothing": lambda _: None,
}


@pytest.mark.parametrize("away", [0.5 * HOUR, 30 * HOUR])
@pytest.mark.parametrize("end", list(END))
def test_what_a_killed_server_left_is_undone_by_one_that_starts_soon_and_told_by_a_later_one(
    rig: Rig, end: str, away: float
) -> None:
    rig.cluster.strike(Fault.KILLED_AFTER)
    with pytest.raises(Dead):
        rig.driver.create(volume())
    rig.time[0] += away
    rig.restart()
    rig.time[0] += 30 * HOUR  # StorPool cannot be reached; that the server knows
    lines = rig.driver.recover()
    soon = away < HOUR
    assert (rig.volumes() == [], "restored from a backup" in lines[0]) == (soon, not soon)
    if rig.volumes():
        END[end](rig)
    rig.settle()
    assert bool(rig.records.open_operations()) == bool(rig.volumes())
