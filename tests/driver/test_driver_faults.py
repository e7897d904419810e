"""Whatever one exchange suffers: after a retry or a restart there is one object or none, and the records agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pytest
from driver_rig import MIB, Fault, Rig, image, on_pool, snapshot_of, volume
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.spi.driver import OperationRecord
from harness.spi.errors import Dead, Error
from harness.spi.objects import DataObject, VolumeObject


@dataclass
class Case:
    """An action on a prepared rig."""

    prepare: Callable[[Rig], DataObject | None]
    act: Callable[[Rig, DataObject | None], DataObject | None]
    made: str | None
    """Which list grows by the answer's path; None for a deletion."""
    longest: int
    """More calls than it makes, so that a fault beyond its end strikes nothing."""


def nothing(rig: Rig) -> None:
    assert objects(rig) == {"volumes": set(), "snapshots": set()}


def cached(rig: Rig) -> DataObject:
    return rig.driver.copy(image(), on_pool(image()))


def recorded(rig: Rig) -> DataObject:
    made = cached(rig)
    rig.records.templates[5, 1] = str(made.path)
    return made


def existing(rig: Rig) -> VolumeObject:
    return rig.driver.create(volume())


def delete(rig: Rig, item: DataObject | None) -> None:
    assert item is not None
    rig.driver.delete(item)


def clone(rig: Rig, template: DataObject | None) -> DataObject:
    assert template is not None
    return rig.driver.copy(template, volume(size=MIB))


def take_snapshot(rig: Rig, of: DataObject | None) -> DataObject:
    assert isinstance(of, VolumeObject)
    return rig.driver.take_snapshot(snapshot_of(of))


def expiring(rig: Rig) -> VolumeObject:
    rig.records.settings["storpool.delete.after.interval"] = "300"
    return existing(rig)


CASES = {
    "create": Case(nothing, lambda rig, _: rig.driver.create(volume()), "volumes", 8),
    "seed": Case(nothing, lambda rig, _: cached(rig), "snapshots", 12),
    "clone": Case(recorded, clone, "volumes", 8),
    "snapshot": Case(existing, take_snapshot, "snapshots", 8),
    "delete": Case(existing, delete, None, 6),
    "delete with backup": Case(expiring, delete, None, 10),
}


def objects(rig: Rig) -> dict[str, set[str]]:
    return {"volumes": set(rig.volumes()), "snapshots": set(rig.snapshots())}


def start(rig: Rig) -> None:
    """Start the management server anew, however often it dies while it recovers."""
    while True:
        rig.restart()
        try:
            rig.driver.recover()
            return
        except Dead:
            continue


def run(
    name: str, faults: dict[int, Fault], *, retries: int, settle_first: bool, lateness: list[int], unrecorded: int = 0
) -> None:
    case, rig = CASES[name], Rig()
    target = case.prepare(rig)
    before = objects(rig)
    rig.cluster.calls.clear()
    rig.cluster.faults = dict(faults)
    rig.cluster.lateness = list(lateness)
    answer: DataObject | None = None
    answered = False
    left = retries + 1
    while left:
        left -= 1
        try:
            answer = case.act(rig, target)
            answered = True
            if not unrecorded:
                break
            # It dies before it has recorded the answer, and asks again until it has one: there are six faults at most.
            unrecorded -= 1
            left += 7
            answered = False
            start(rig)
        except Error:
            assert objects(rig).keys() == before.keys()
        except Dead:
            start(rig)
        if settle_first:
            rig.settle()
    lines = rig.settle()

    after = objects(rig)
    assert rig.records.open_operations() == [], lines
    if case.made is None:
        gone = before["volumes"] - after["volumes"]
        assert (len(gone) == 1) if answered else (len(gone) <= 1)
        assert after["snapshots"] == before["snapshots"], "the expiring snapshot stayed"
        return
    expected = {key: set(paths) for key, paths in before.items()}
    if answered:
        assert answer is not None and answer.path is not None
        expected[case.made].add(answer.path)
    assert after == expected, lines
    if answered and case.made == "volumes":
        assert [v.name for v in rig.look.volumes_list()] == [f"~{v.global_id}" for v in rig.look.volumes_list()]


@pytest.mark.parametrize("settle_first", [False, True], ids=["retried at once", "recovered first"])
@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("name", list(CASES))
def test_any_single_fault_leaves_one_object_or_none(name: str, fault: Fault, settle_first: bool) -> None:
    for call in range(CASES[name].longest):
        run(name, {call: fault}, retries=2, settle_first=settle_first, lateness=[])
        run(name, {call: fault}, retries=0, settle_first=settle_first, lateness=[])


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(CASES)),
    st.dictionaries(st.integers(0, 24), st.sampled_from(sorted(Fault, key=str)), max_size=6),
    st.integers(0, 3),
    st.booleans(),
    st.lists(st.integers(1, 12), max_size=6),
    st.integers(0, 2),
)
def test_any_faults_leave_one_object_or_none(
    name: str,
    faults: dict[int, Fault],
    retries: int,
    settle_first: bool,
    lateness: list[int],
    unrecorded: int,
) -> None:
    unrecorded = min(unrecorded, retries)
    # Long after its start CloudStack asks no more for what it did not record.
    settle_first = settle_first and not unrecorded
    run(name, faults, retries=retries + unrecorded, settle_first=settle_first, lateness=lateness, unrecorded=unrecorded)


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("name", list(CASES))
def test_an_answer_that_was_not_recorded_does_not_make_a_second_object(name: str, fault: Fault) -> None:
    for call in range(2 * CASES[name].longest):
        run(name, {call: fault}, retries=4, settle_first=False, lateness=[], unrecorded=1)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["info", "revoke"]), min_size=1, max_size=4),
    st.dictionaries(st.integers(0, 10), st.sampled_from(sorted(Fault, key=str)), max_size=3),
)
def test_tags_end_as_the_last_call_that_was_made_wanted_them(calls: list[str], faults: dict[int, Fault]) -> None:
    rig = Rig()
    made = existing(rig)
    attached = msgspec.structs.replace(made, device_id=1)
    rig.cluster.calls.clear()
    rig.cluster.faults = dict(faults)
    settled = True
    for call in calls:
        try:
            if call == "info":
                rig.driver.provide_vm_info("vm-1", attached)
            else:
                rig.driver.revoke_access(made)
            settled = True
        except Error:
            settled = False
        except Dead:
            settled = False
            rig.restart()
    rig.settle()
    assert rig.records.open_operations() == []
    if settled:
        expected = {"cvm": "vm-1", "disk": "1"} if calls[-1] == "info" else {}
        assert rig.tags(made.path) == {"uuid": "vol-1", "cs": "volume", **expected}


@pytest.mark.parametrize("fault", [Fault.NOT_SENT, Fault.REQUEST_LOST, Fault.ANSWER_LOST])
@pytest.mark.parametrize("restart", [False, True])
def test_a_lost_agent_message_leaves_one_cached_template_or_none(fault: Fault, restart: bool) -> None:
    rig = Rig()
    rig.agent.faults = [fault]
    with pytest.raises(Error):
        cached(rig)
    if restart:
        rig.restart()
        rig.settle()
        assert objects(rig) == {"volumes": set(), "snapshots": set()}
    made = cached(rig)
    rig.settle()
    assert objects(rig) == {"volumes": set(), "snapshots": {made.path}}
    assert rig.records.open_operations() == []


def test_an_operation_of_an_unknown_kind_is_reported_and_kept() -> None:
    rig = Rig()
    operation = rig.records.begin_operation(
        OperationRecord(id="x", kind="later", subject="s", step="a", data={}, created_at=0.0)
    )
    assert "does not know" in rig.driver.recover()[0]
    assert rig.records.open_operations() == [operation]
