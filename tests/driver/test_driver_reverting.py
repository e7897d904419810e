"""Reverting a volume to its snapshot: what it becomes, who may have it meanwhile, and what may come late."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest
from driver_rig import MIB, Fault, Rig, snapshot_of, volume
from reconciler_rig import attach, gid, hold_open, prepared, record

from harness.runtime.threads import ThreadRuntime
from harness.spi.driver import ResizePayload
from harness.spi.errors import Conflict, Dead, Error, InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.objects import SnapshotObject, VolumeObject
from harness.spi.states import VolumeState
from harness.storpool import AnswerLost, Reply, Request, VolumeUpdateDesc

SIZE = 4 * MIB
THEN, NOW, LATER = b"then...", b"now....", b"later.."


@dataclass
class Taken:
    rig: Rig
    disk: VolumeObject
    snapshot: SnapshotObject

    def bytes(self) -> bytes:
        assert self.disk.path is not None
        return self.rig.read(self.disk.path, len(NOW))

    def name(self) -> str:
        """Of the snapshot."""
        return self.rig.look.snapshot(gid(self.snapshot.path)).name

    def object(self) -> str:
        """The id that the volume has now, whatever it goes by."""
        return self.rig.look.volume(gid(self.disk.path)).global_id

    def unused(self) -> None:
        """As before, for all that can be seen."""
        assert (self.bytes(), self.rig.unfinished()) == (NOW, [])
        assert not self.name().endswith("-target")


@pytest.fixture
def taken() -> Taken:
    """A volume whose snapshot was taken, that was written to and resized since."""
    rig = prepared()
    made = rig.driver.create(volume(size=SIZE))
    assert made.path is not None
    record(rig, made)
    rig.settle()
    rig.write(made.path, THEN)
    snapshot = rig.driver.take_snapshot(snapshot_of(made))
    rig.settle()
    rig.write(made.path, NOW)
    rig.look.volume_update(gid(made.path), VolumeUpdateDesc(size=2 * SIZE))
    rig.cluster.calls.clear()
    return Taken(rig, made, snapshot)


def test_the_volume_has_bytes_and_size_of_the_snapshot_and_goes_by_its_old_id(taken: Taken) -> None:
    before = taken.object(), taken.name()
    assert taken.rig.driver.revert_snapshot(taken.snapshot) == SIZE
    assert taken.bytes() == THEN
    found = taken.rig.look.volume(gid(taken.disk.path))
    assert (found.size, found.name) == (SIZE, gid(taken.disk.path))
    assert taken.object() != before[0]
    assert (taken.name(), taken.rig.unfinished()) == (before[1], [])
    # And once more, by the path that is kept.
    assert taken.disk.path is not None
    taken.rig.write(taken.disk.path, NOW)
    taken.rig.driver.revert_snapshot(taken.snapshot)
    assert taken.bytes() == THEN


def test_what_is_on_no_pool_or_gone_is_told(taken: Taken) -> None:
    rig, snapshot = taken.rig, taken.snapshot
    with pytest.raises(InvalidParameter, match="on no pool"):
        rig.driver.revert_snapshot(msgspec.structs.replace(snapshot, path=None))
    nowhere = msgspec.structs.replace(taken.disk, path="/dev/storpool-byid/splab.b.zz")
    with pytest.raises(NotFound, match="volume DATA-1"):
        rig.driver.revert_snapshot(msgspec.structs.replace(snapshot, volume=nowhere))
    rig.driver.delete(snapshot)
    with pytest.raises(NotFound, match="snapshot s"):
        rig.driver.revert_snapshot(snapshot)
    assert (taken.bytes(), rig.unfinished()) == (NOW, [])


def test_who_has_it_open_is_named_and_keeps_it(taken: Taken) -> None:
    assert taken.disk.path is not None
    hold_open(taken.rig, taken.disk.path)
    with pytest.raises(Conflict, match="client 1"):
        taken.rig.driver.revert_snapshot(taken.snapshot)
    (kept,) = taken.rig.look.attachments_list()
    assert (kept.client, kept.rights) == (1, "rw")
    assert taken.rig.unfinished() == [] and not taken.name().endswith("-target")


def test_an_attachment_that_nobody_uses_is_let_go(taken: Taken) -> None:
    assert taken.disk.path is not None
    attach(taken.rig, taken.disk.path)
    taken.rig.driver.revert_snapshot(taken.snapshot)
    assert taken.rig.look.attachments_list() == [] and taken.bytes() == THEN


FAULTS = (Fault.NOT_SENT, Fault.TRANSIENT, Fault.REQUEST_LOST, Fault.ANSWER_LOST, Fault.ANSWER_CUT)


@pytest.mark.parametrize("length", [1, 20], ids=["once", "for long"])
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_call_suffers_the_volume_is_as_before_or_reverted_or_the_operation_is_open(
    fault: Fault, length: int, taken: Taken
) -> None:
    """Of one rig, with a fault at each call in turn; each time it is reverted in the end."""
    rig = taken.rig
    calls = _calls_of_a_revert(taken)
    for at in range(calls):
        assert taken.disk.path is not None
        rig.write(taken.disk.path, NOW)
        rig.cluster.strike(*[fault] * length, after=at)
        try:
            rig.driver.revert_snapshot(taken.snapshot)
        except (Unknown, Unavailable):
            rig.cluster.faults.clear()
            if not rig.unfinished():
                taken.unused()
            rig.driver.revert_snapshot(taken.snapshot)
        rig.cluster.faults.clear()
        assert (taken.bytes(), rig.unfinished()) == (THEN, []), f"call {at}"
        assert not taken.name().endswith("-target"), f"call {at}"


def _calls_of_a_revert(taken: Taken) -> int:
    taken.rig.cluster.calls.clear()
    taken.rig.driver.revert_snapshot(taken.snapshot)
    return len(taken.rig.cluster.calls)


@pytest.mark.parametrize("fault", [Fault.COPY_LATE, Fault.REQUEST_LATE])
def test_a_revert_that_comes_late_does_not_cost_what_was_written_since(fault: Fault, taken: Taken) -> None:
    rig = taken.rig
    for at in range(_calls_of_a_revert(taken)):
        rig.cluster.strike(fault, after=at)
        rig.cluster.lateness = [100]
        try:
            rig.driver.revert_snapshot(taken.snapshot)
        except Unknown:
            # Nobody writes to the volume until it was asked for again.
            rig.driver.revert_snapshot(taken.snapshot)
        assert rig.cluster.late
        assert taken.disk.path is not None
        rig.write(taken.disk.path, LATER)
        while rig.cluster.late:
            rig.cluster.serve(rig.cluster.late.pop(0)[1])
        assert taken.bytes() == LATER, f"call {at} came late"


@pytest.mark.parametrize("fault", [Fault.KILLED_BEFORE, Fault.KILLED_AFTER, Fault.KILLED_LATE])
def test_the_next_process_goes_on_when_it_is_asked_and_else_lets_it_be(fault: Fault, taken: Taken) -> None:
    rig = taken.rig
    for at in range(_calls_of_a_revert(taken)):
        assert taken.disk.path is not None
        rig.write(taken.disk.path, NOW)
        rig.cluster.strike(fault, after=at)
        with pytest.raises(Dead):
            rig.driver.revert_snapshot(taken.snapshot)
        rig.cluster.faults.clear()
        rig.restart()
        asked_again = at % 2 == 0
        if rig.unfinished():
            _set_state(taken, VolumeState.REVERT_SNAPSHOTTING)
            assert "until CloudStack asks" in rig.driver.recover()[0], f"call {at}"
            assert rig.unfinished()
        if asked_again:
            rig.driver.revert_snapshot(taken.snapshot)
            assert taken.bytes() == THEN, f"call {at}"
        _set_state(taken, VolumeState.READY)
        rig.settle()
        assert taken.bytes() in ((THEN,) if asked_again else (THEN, NOW)), f"call {at}"
        assert rig.unfinished() == [] and not taken.name().endswith("-target"), f"call {at}"
        rig.write(taken.disk.path, LATER)
        rig.settle()
        assert taken.bytes() == LATER, f"call {at}"


def _set_state(taken: Taken, state: VolumeState) -> None:
    kept = taken.rig.records.volumes[taken.disk.uuid]
    taken.rig.records.volumes[taken.disk.uuid] = msgspec.structs.replace(kept, state=state)


def test_while_a_revert_is_not_over_another_snapshots_is_refused(taken: Taken) -> None:
    rig = taken.rig
    other = rig.driver.take_snapshot(snapshot_of(taken.disk, 10))
    calls = _calls_of_a_revert(taken)
    rig.cluster.strike(*[Fault.ANSWER_LOST] * 30, after=calls - 1)
    with pytest.raises(Unknown):
        rig.driver.revert_snapshot(taken.snapshot)
    rig.cluster.faults.clear()
    with pytest.raises(Conflict, match="another snapshot"):
        rig.driver.revert_snapshot(other)
    rig.driver.revert_snapshot(taken.snapshot)
    rig.driver.revert_snapshot(other)
    assert taken.bytes() == NOW


def test_while_a_resize_may_arrive_late_only_a_revert_to_its_size_is_begun(taken: Taken) -> None:
    rig, kept = taken.rig, taken.disk
    rig.look.volume_update(gid(kept.path), VolumeUpdateDesc(size=SIZE, shrink_ok=True))
    other = rig.driver.take_snapshot(snapshot_of(taken.disk, 10))
    rig.cluster.strike(Fault.REQUEST_LATE, after=1)
    rig.cluster.lateness = [100]
    grown = rig.driver.resize(kept, ResizePayload(size=2 * SIZE))
    large = rig.driver.take_snapshot(snapshot_of(grown, 11))
    with pytest.raises(Conflict, match="may still arrive at StorPool, where it would set another size"):
        rig.driver.revert_snapshot(other)
    assert rig.driver.revert_snapshot(large) == 2 * SIZE
    rig.settle()
    assert rig.driver.revert_snapshot(other) == rig.look.volume(gid(kept.path)).size == SIZE
    assert rig.unfinished() == []


def test_a_resize_of_a_process_that_died_may_arrive_late(taken: Taken) -> None:
    rig = taken.rig
    rig.cluster.strike(Fault.KILLED_LATE, after=1)
    with pytest.raises(Dead):
        rig.driver.resize(taken.disk, ResizePayload(size=3 * SIZE))
    rig.restart()
    with pytest.raises(Conflict, match="may still arrive at StorPool"):
        rig.driver.revert_snapshot(taken.snapshot)
    rig.settle()
    assert rig.driver.revert_snapshot(taken.snapshot) == SIZE


def test_a_volume_that_was_just_made_keeps_its_path(taken: Taken) -> None:
    rig = taken.rig
    made = rig.driver.create(volume(2))
    snapshot = rig.driver.take_snapshot(snapshot_of(made, 11))
    record(rig, made)
    rig.driver.revert_snapshot(snapshot)
    assert rig.look.volume(gid(made.path)).name == gid(made.path)


def test_a_volume_whose_making_may_still_arrive_waits(taken: Taken) -> None:
    rig = taken.rig
    rig.cluster.strike(Fault.REQUEST_LATE)
    rig.cluster.lateness = [100]
    made = rig.driver.create(volume(2))
    snapshot = rig.driver.take_snapshot(snapshot_of(made, 11))
    record(rig, made)
    with pytest.raises(Conflict, match="may still be under way"):
        rig.driver.revert_snapshot(snapshot)
    rig.settle()
    rig.driver.revert_snapshot(snapshot)
    assert rig.unfinished() == []


def test_a_taking_of_the_name_that_comes_late_leaves_the_reverted_volume_its_path(taken: Taken) -> None:
    rig = taken.rig
    made = rig.driver.create(volume(2))
    record(rig, made)
    rig.time[0] += 61
    rig.cluster.strike(Fault.REQUEST_LATE, after=1)
    rig.cluster.lateness = [100]
    rig.driver.recover()
    rig.driver.recover()
    assert "VolumeUpdate" in rig.cluster.late[0][1].path
    rig.driver.revert_snapshot(rig.driver.take_snapshot(snapshot_of(made, 11)))
    rig.settle()
    assert rig.look.volume(gid(made.path)).name == gid(made.path)


def test_a_revert_whose_effect_is_seen_is_not_sent_again(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    real = taken.rig.cluster.exchange

    def exchange(request: Request, runtime: ThreadRuntime) -> Reply:
        reply = real(request, runtime)
        if "VolumeRevert/" in request.path:
            raise AnswerLost("lost")
        return reply

    monkeypatch.setattr(taken.rig.cluster, "exchange", exchange)
    taken.rig.driver.revert_snapshot(taken.snapshot)
    assert sum("VolumeRevert/" in call for call in taken.rig.cluster.calls) == 1
    assert taken.bytes() == THEN


def test_an_error_that_is_none_of_the_wires_is_told_and_undone(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise Error("StorPool does not want to")

    monkeypatch.setattr("harness.storpool.StorPoolClient.volume_revert", refused)
    with pytest.raises(Error, match="does not want to"):
        taken.rig.driver.revert_snapshot(taken.snapshot)
    taken.unused()
