"""Changing size, tier, StorPool template and limits of a volume: what is sent, undone, and may come late."""

from __future__ import annotations

import msgspec
import pytest
from driver_rig import MIB, Fault, Rig, volume
from reconciler_rig import prepared, record, recorded

from harness.spi.commands import ResizeVolumeAnswer
from harness.spi.driver import ResizePayload
from harness.spi.errors import Conflict, Dead, Error, InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.objects import VolumeObject
from harness.spi.states import VolumeState
from harness.storpool import Request, VolumeSummary, VolumeUpdateDesc

SIZE, LARGER, LARGEST, SMALLER = 4 * MIB, 8 * MIB, 16 * MIB, 2 * MIB
ON_HOST = {"vm_name": "i-2-1-VM", "host_id": 7}


@pytest.fixture
def rig() -> Rig:
    rig = prepared()
    rig.records.offerings.update(
        {
            3: {},
            4: {"SP_TEMPLATE": "ssd"},
            5: {"SP_QOSCLASS": "gold"},
            6: {"SP_QOSCLASS": "gold", "SP_TEMPLATE": "ssd"},
            7: {"SP_TEMPLATE": "nowhere"},
            8: {"SP_QOSCLASS": "of gold"},
        }
    )
    return rig


@pytest.fixture
def disk(rig: Rig) -> VolumeObject:
    """On template hdd, with the limits and the tag of a tier that it was in."""
    path = recorded(rig, disk_offering_id=3)
    name = "~" + path.rpartition("/")[2]
    rig.look.volume_update(name, VolumeUpdateDesc(iops=900, bw=50, tags={"qc": "silver"}))
    rig.cluster.calls.clear()
    return volume(path=path, size=SIZE, disk_offering_id=3)


def payload(size: object = LARGER, **more: object) -> ResizePayload:
    return msgspec.convert({"size": size, **more}, ResizePayload)


def shown(rig: Rig) -> VolumeSummary:
    (found,) = rig.look.volumes_list()
    return found


def state(rig: Rig) -> tuple[object, ...]:
    found = shown(rig)
    return found.size, found.template_name, found.iops, found.bw, found.tags.get("qc", "")


BEFORE = (SIZE, "hdd", 900, 50, "silver")


@pytest.mark.parametrize(
    ("offering", "moves", "expected"),
    [
        (None, True, ("hdd", 900, 50, "silver")),
        (3, True, ("hdd", 500, "-", "")),
        (4, True, ("ssd", "-", "-", "")),
        (4, False, ("hdd", "-", "-", "")),
        (5, True, ("hdd", 900, 50, "gold")),
        (6, True, ("hdd", 900, 50, "gold")),
    ],
    ids=["none", "plain", "template", "template, by a resize", "tier", "both"],
)
def test_limits_tier_and_template_are_the_new_offerings(
    rig: Rig, disk: VolumeObject, offering: int | None, moves: bool, expected: tuple[object, ...]
) -> None:
    changed = rig.driver.resize(disk, payload(disk_offering_id=offering, max_iops=500, moves=moves))
    assert changed == msgspec.structs.replace(disk, size=LARGER)
    assert state(rig) == (LARGER, *expected)
    assert rig.unfinished() == []


@pytest.mark.parametrize("offering", [3, 4, 5, 6], ids=["plain", "template", "tier", "both"])
def test_made_changed_or_compared_a_volume_of_an_offering_is_the_same(rig: Rig, offering: int) -> None:
    of_it = {"disk_offering_id": offering, "max_iops": 500}
    made = rig.driver.create(msgspec.structs.replace(volume(), **of_it))
    changed = rig.driver.create(volume(2))
    rig.driver.resize(changed, payload(SIZE, moves=True, **of_it))
    for each in (made, changed):
        record(rig, each, **of_it)
    rig.settle()
    attributes = {
        (found.template_name, found.iops, found.bw, found.tags.get("qc")) for found in rig.look.volumes_list()
    }
    assert len(attributes) == 1
    assert [finding for finding in rig.driver.reconcile_volumes() if finding.where.startswith("volume ")] == []


def test_without_a_limit_of_its_own_the_storpool_templates_is_given(rig: Rig, disk: VolumeObject) -> None:
    rig.cluster.serve(Request("POST", "VolumeTemplateUpdate/hdd", b'{"iops": 250, "bw": 9}', 1))
    rig.driver.resize(disk, payload(disk_offering_id=3))
    assert state(rig) == (LARGER, "hdd", 250, 9, "")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"size": SMALLER}, "would shrink"),
        ({"size": 0}, "whole sectors"),
        ({"size": SIZE + 100}, "whole sectors"),
        ({"disk_offering_id": 7, "moves": True}, "no template nowhere"),
        ({"disk_offering_id": 8}, "tier 'of gold'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(
    rig: Rig, disk: VolumeObject, more: dict[str, object], text: str
) -> None:
    with pytest.raises(InvalidParameter, match=text):
        rig.driver.resize(disk, payload(**{"size": LARGER, **more}))
    assert state(rig) == BEFORE
    assert rig.unfinished() == []
    assert not any("VolumeUpdate" in call for call in rig.cluster.calls)


def test_a_volume_that_is_on_no_pool_or_gone_is_refused(rig: Rig, disk: VolumeObject) -> None:
    with pytest.raises(InvalidParameter, match="on no pool"):
        rig.driver.resize(msgspec.structs.replace(disk, path=None), payload())
    rig.driver.delete(disk)
    with pytest.raises(NotFound, match="no volume"):
        rig.driver.resize(disk, payload())
    assert rig.unfinished() == []


def test_the_guest_is_told_of_another_size_only(rig: Rig, disk: VolumeObject) -> None:
    rig.driver.resize(disk, payload(SIZE, disk_offering_id=5, **ON_HOST))
    assert rig.agent.commands == []
    # CloudStack does not know that StorPool has this size: perhaps nobody has told the guest.
    rig.driver.resize(msgspec.structs.replace(disk, size=SMALLER), payload(SIZE, **ON_HOST))
    rig.driver.resize(disk, payload(LARGER, **ON_HOST))
    assert len(rig.agent.commands) == 2


def test_a_larger_size_of_which_the_guest_was_not_told_is_taken_back_with_all_the_rest(
    rig: Rig, disk: VolumeObject
) -> None:
    rig.agent.answer = lambda _: ResizeVolumeAnswer(result=False, details="the guest was not told")
    with pytest.raises(Unavailable, match="not told"):
        rig.driver.resize(disk, payload(disk_offering_id=4, moves=True, **ON_HOST))
    assert state(rig) == BEFORE
    assert rig.unfinished() == []


def test_a_smaller_size_is_gone_on_with_when_the_guest_was_not_told(rig: Rig, disk: VolumeObject) -> None:
    rig.agent.faults = [Fault.NOT_SENT] * 3
    smaller = payload(SMALLER, shrink_ok=True, **ON_HOST)
    with pytest.raises(Unknown, match="tried again"):
        rig.driver.resize(disk, smaller)
    assert shown(rig).size == SMALLER
    assert [operation.step for operation in rig.unfinished()] == ["tell"]
    assert rig.driver.resize(disk, smaller).size == SMALLER
    assert rig.unfinished() == []


def test_a_guest_that_may_have_been_told_keeps_the_larger_size(rig: Rig, disk: VolumeObject) -> None:
    rig.agent.faults = [Fault.ANSWER_LOST, Fault.NOT_SENT, Fault.NOT_SENT]
    with pytest.raises(Unknown):
        rig.driver.resize(disk, payload(**ON_HOST))
    assert shown(rig).size == LARGER
    rig.agent.faults = [Fault.NOT_SENT] * 3
    rig.restart()
    with pytest.raises(Unknown):
        rig.driver.resize(disk, payload(**ON_HOST))
    assert shown(rig).size == LARGER


def test_while_one_change_is_under_way_another_is_refused(rig: Rig, disk: VolumeObject) -> None:
    rig.agent.faults = [Fault.ANSWER_LOST] * 3
    with pytest.raises(Unknown):
        rig.driver.resize(disk, payload(**ON_HOST))
    with pytest.raises(Conflict, match="another change"):
        rig.driver.resize(disk, payload(LARGEST, **ON_HOST))
    # Where the VM runs by now makes no other change of it.
    rig.driver.resize(disk, payload(vm_name="i-2-1-VM", host_id=8))
    assert shown(rig).size == LARGER


AFTER_A_LOST_GROWTH = {
    "the same": ({"size": LARGER}, True),
    "larger": ({"size": LARGEST}, True),
    "smaller": ({"size": SMALLER, "shrink_ok": True}, False),
}


@pytest.mark.parametrize("name", AFTER_A_LOST_GROWTH)
def test_after_a_growth_that_may_arrive_late_only_what_it_would_not_undo_is_begun(
    rig: Rig, disk: VolumeObject, name: str
) -> None:
    rig.cluster.strike(Fault.ANSWER_LOST, after=1)
    rig.driver.resize(disk, payload())
    assert [operation.step for operation in rig.unfinished()] == ["settle"]
    more, allowed = AFTER_A_LOST_GROWTH[name]
    if not allowed:
        with pytest.raises(Conflict, match="may still arrive"):
            rig.driver.resize(disk, payload(**more))
        assert shown(rig).size == LARGER
        rig.time[0] += 1201
    rig.driver.resize(disk, payload(**more))
    assert shown(rig).size == more["size"]


def test_after_a_shrink_that_may_arrive_late_nothing_else_is_begun(rig: Rig, disk: VolumeObject) -> None:
    smaller = payload(SMALLER, shrink_ok=True)
    rig.cluster.strike(Fault.REQUEST_LATE, after=1)
    rig.cluster.lateness = [10]
    rig.driver.resize(disk, smaller)
    for other in (payload(LARGER), smaller):
        with pytest.raises(Conflict, match="may still arrive"):
            rig.driver.resize(disk, other)
    rig.settle()
    assert (shown(rig).size, rig.unfinished()) == (SMALLER, [])


@pytest.mark.parametrize("fault", [Fault.NOT_SENT, Fault.REQUEST_LOST, Fault.ANSWER_LOST])
def test_an_update_that_is_never_answered_may_have_arrived(rig: Rig, disk: VolumeObject, fault: Fault) -> None:
    rig.cluster.strike(*[fault] * 12, after=1)
    error: type[Error] = Unavailable if fault is Fault.NOT_SENT else Unknown
    with pytest.raises(error):
        rig.driver.resize(disk, payload())
    rig.cluster.faults.clear()
    assert [operation.step for operation in rig.unfinished()] == ([] if error is Unavailable else ["update"])
    assert shown(rig).size == (LARGER if fault is Fault.ANSWER_LOST else SIZE)
    rig.driver.resize(disk, payload())
    assert shown(rig).size == LARGER


@pytest.mark.parametrize("fault", [Fault.KILLED_BEFORE, Fault.KILLED_AFTER, Fault.KILLED_LATE])
def test_the_next_process_goes_on_and_then_counts_with_a_late_update(
    rig: Rig, disk: VolumeObject, fault: Fault
) -> None:
    smaller = payload(SMALLER, shrink_ok=True, disk_offering_id=5)
    rig.cluster.strike(fault, after=1)
    with pytest.raises(Dead):
        rig.driver.resize(disk, smaller)
    rig.restart()
    assert "open until CloudStack" in recovered_while(rig, disk, VolumeState.RESIZING)
    rig.driver.resize(disk, smaller)
    assert state(rig)[0] == SMALLER
    assert [operation.step for operation in rig.unfinished()] == ["settle"]
    with pytest.raises(Conflict, match="may still arrive"):
        rig.driver.resize(disk, payload(LARGER))


def recovered_while(rig: Rig, disk: VolumeObject, volume_state: VolumeState) -> str:
    rig.records.volumes[disk.uuid] = msgspec.structs.replace(rig.records.volumes[disk.uuid], state=volume_state)
    (line,) = rig.driver.recover()
    return line


def test_what_cloudstack_gave_up_is_not_sent_any_more_and_its_tags_are_put_right(rig: Rig, disk: VolumeObject) -> None:
    rig.cluster.strike(Fault.KILLED_LATE, after=1)
    rig.cluster.lateness = [1]
    with pytest.raises(Dead):
        rig.driver.resize(disk, payload(disk_offering_id=5))
    rig.restart()
    assert "until an earlier update can no longer arrive" in recovered_while(rig, disk, VolumeState.READY)
    rig.settle()
    # It came late, and nobody wants its tier.
    assert (shown(rig).size, shown(rig).tags.get("qc", "")) == (LARGER, "")
    assert rig.unfinished() == []


def test_of_a_volume_that_is_gone_nothing_stays_open(rig: Rig, disk: VolumeObject) -> None:
    rig.cluster.strike(Fault.KILLED_AFTER, after=1)
    with pytest.raises(Dead):
        rig.driver.resize(disk, payload())
    rig.restart()
    rig.records.volumes[disk.uuid] = msgspec.structs.replace(rig.records.volumes[disk.uuid], removed=True)
    assert "the volume is gone" in rig.driver.recover()[0]
    assert rig.unfinished() == []
