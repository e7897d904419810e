"""Operations that a fault left open: what a later call, a restart or a late request makes of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import msgspec
import pytest
from driver_rig import MIB, SETTLE, TOKEN, Cluster, Fault, Rig, image, looks_out, on_pool, snapshot_of, volume
from reconciler_rig import attach, prepared, recorded

from harness.driver import StorPoolProvider
from harness.driver import tags as driver_tags
from harness.runtime.simulated import Simulation
from harness.spi.commands import AnyAnswer, AnyCommand
from harness.spi.errors import Conflict, Dead, Error, Unavailable, Unknown
from harness.spi.objects import TemplateObject
from harness.storpool import Reply, Request, StorPoolClient, VolumeReassignDesc

LATE, LOST, CUT_OFF = Fault.REQUEST_LATE, Fault.ANSWER_LOST, Fault.NOT_SENT


@dataclass
class Served:
    """Straight to the cluster."""

    cluster: Cluster

    def call(self, request: Request) -> Reply:
        return self.cluster.serve(request)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def seed(rig: Rig) -> TemplateObject:
    made = rig.driver.copy(image(), on_pool(image()))
    assert isinstance(made, TemplateObject)
    return made


def steps(rig: Rig) -> list[tuple[str, str]]:
    found = [operation for operation in rig.records.open_operations() if not looks_out(operation)]
    return [(operation.kind, operation.step) for operation in found]


def test_an_answer_that_was_not_recorded_is_given_again_by_the_next_process(rig: Rig) -> None:
    template = seed(rig)
    rig.restart()
    rig.driver.recover()
    assert (rig.snapshots(), rig.unfinished()) == ([], []), "nobody knew of it, so it was undone"

    template = seed(rig)
    rig.records.templates[5, 1] = str(template.path)
    made = rig.driver.create(volume())
    taken = rig.driver.take_snapshot(snapshot_of(made))
    rig.restart()
    rig.driver.recover()

    assert rig.driver.create(volume()) == made
    assert rig.driver.take_snapshot(snapshot_of(made)) == taken
    rig.settle()
    assert rig.volumes() == [made.path]
    assert set(rig.snapshots()) == {template.path, taken.path}
    assert rig.records.open_operations() == []
    assert rig.look.volumes_list()[0].name.startswith("~")


def test_an_answer_stays_open_until_it_is_surely_recorded(rig: Rig) -> None:
    rig.driver.create(volume())
    rig.time[0] += 59
    assert "open until it is surely recorded" in rig.driver.recover()[0]
    rig.time[0] += 2
    assert "done" in rig.driver.recover()[0]
    assert steps(rig) == []


def test_seeding_again_gives_the_snapshot_that_is_there_and_makes_a_new_one_when_it_is_not(rig: Rig) -> None:
    made = seed(rig)
    assert seed(rig) == made
    rig.cluster.strike(*[CUT_OFF] * 3, after=1)
    with pytest.raises(Unavailable):
        seed(rig)
    assert rig.snapshots() == [made.path]
    rig.driver.delete(made)
    again = seed(rig)
    assert rig.snapshots() == [again.path] != [made.path]


def test_an_answered_operation_ends_by_itself() -> None:
    simulation = Simulation(1)
    rig = Rig()
    runtime = simulation.process("management")
    provider = StorPoolProvider(
        runtime, rig.records, rig.agent, lambda _: StorPoolClient(Served(rig.cluster), runtime), SETTLE
    )

    def create(number: int) -> None:
        provider.driver.create(volume(number))

    def live() -> None:
        runtime.spawn("first", lambda: create(1))
        simulation.main.sleep(30)
        runtime.spawn("second", lambda: create(2))
        simulation.main.sleep(1)
        assert steps(rig) == [("create-volume", "answered")] * 2
        simulation.main.sleep(200)

    simulation.run(live)
    assert steps(rig) == []
    assert rig.look.volumes_list()[0].name.startswith("~")


def test_a_create_that_may_still_arrive_twice_keeps_the_name_taken(rig: Rig) -> None:
    rig.cluster.lateness = [4, 30]
    rig.cluster.strike(LATE)
    rig.cluster.faults[2] = LATE  # call 1 looks for the volume
    made = rig.driver.create(volume())
    rig.time[0] += SETTLE / 2
    assert "made; open" in rig.driver.recover()[0]
    assert rig.look.volumes_list()[0].name.startswith("cs-")
    rig.settle()
    assert rig.volumes() == [made.path]
    assert rig.look.volumes_list()[0].name.startswith("~")


def test_a_second_create_gives_the_same_volume_and_risks_nothing(rig: Rig) -> None:
    made = rig.driver.create(volume())
    rig.cluster.strike(Fault.KILLED_BEFORE, after=1)
    assert rig.driver.create(volume()).path == made.path
    rig.restart()
    rig.settle()
    assert rig.volumes() == [made.path]


def test_a_second_create_after_the_volume_was_lost_makes_it_again(rig: Rig) -> None:
    made = rig.driver.create(volume())
    assert made.path is not None
    rig.look.volume_delete("~" + made.path.rpartition("/")[2])
    again = rig.driver.create(volume())
    assert again.path != made.path
    rig.settle()
    assert rig.volumes() == [again.path]


def test_a_volume_that_is_there_is_not_replaced_by_a_create_with_other_attributes(rig: Rig) -> None:
    made = rig.driver.create(volume())
    with pytest.raises(Conflict, match="other attributes"):
        rig.driver.create(volume(size=64 * MIB))
    assert rig.volumes() == [made.path]


def test_an_answer_nobody_recorded_gives_way_to_a_create_with_other_attributes(rig: Rig) -> None:
    rig.driver.create(volume())
    rig.restart()
    made = rig.driver.create(volume(size=64 * MIB))
    rig.settle()
    assert rig.volumes() == [made.path]
    assert [v.size for v in rig.look.volumes_list()] == [64 * MIB]


def test_a_retry_with_another_size_replaces_what_the_first_try_left(rig: Rig) -> None:
    rig.cluster.strike(*[LOST] * 2)
    rig.cluster.faults |= dict.fromkeys(range(2, 20), CUT_OFF)
    with pytest.raises(Unknown):
        rig.driver.create(volume(size=4 * MIB))
    rig.cluster.faults.clear()
    assert len(rig.volumes()) == 1
    made = rig.driver.create(volume(size=8 * MIB))
    assert [v.size for v in rig.look.volumes_list()] == [8 * MIB]
    assert rig.volumes() == [made.path]
    rig.settle()
    assert (rig.volumes(), rig.records.open_operations()) == ([made.path], [])


def test_a_create_that_arrives_after_its_volume_was_deleted_is_cleaned_up(rig: Rig) -> None:
    rig.cluster.lateness = [50]
    rig.cluster.strike(LATE)
    made = rig.driver.create(volume())
    rig.driver.delete(made)
    rig.settle()
    assert (rig.volumes(), rig.records.open_operations()) == ([], [])


def test_an_operation_in_progress_is_not_recovered(rig: Rig) -> None:
    lines: list[str] = []

    def copy(command: AnyCommand) -> AnyAnswer:
        assert rig.runtime.spawn("recover", lambda: lines.extend(rig.driver.recover())).join(10)
        return rig.agent.carry_out(command)

    rig.agent.answer = copy
    made = seed(rig)
    assert not [line for line in lines if "seed" in line]
    assert rig.snapshots() == [made.path]


def test_clean_up_that_fails_too_is_told_beside_the_first_error_and_made_good_later(rig: Rig) -> None:
    # create, snapshot, 3 x look at it, delete volume, 3 x delete snapshot
    faults = [CUT_OFF] * 3
    rig.cluster.strike(*faults, after=2)
    rig.cluster.faults |= dict.fromkeys((6, 7, 8), CUT_OFF)
    with pytest.raises(Unavailable, match="refused; cleaning up after it failed too"):
        seed(rig)
    assert ("seed-template", "undo") in steps(rig)
    made = seed(rig)
    assert rig.snapshots() == [made.path]
    assert (rig.volumes(), rig.unfinished()) == ([], [])


def test_a_copy_of_a_create_that_arrives_when_its_volume_was_discarded_is_found_and_removed(rig: Rig) -> None:
    rig.cluster.lateness = [6]  # create, snapshot, look at it, delete volume: beyond
    rig.cluster.strike(Fault.COPY_LATE)
    made = seed(rig)
    assert rig.volumes() == []
    rig.settle()
    assert (rig.volumes(), rig.snapshots(), rig.records.open_operations()) == ([], [made.path], [])


def test_a_copy_of_a_create_that_arrives_when_its_volume_has_no_name_any_more_is_found_and_removed(rig: Rig) -> None:
    rig.cluster.lateness = [3]  # create, look, rename: the next one
    rig.cluster.strike(Fault.COPY_LATE)
    made = rig.driver.create(volume())
    rig.time[0] += 61
    rig.driver.recover()
    rig.driver.provide_vm_info("vm-1", made)
    assert len(rig.volumes()) == 2
    rig.settle()
    assert (rig.volumes(), rig.records.open_operations()) == ([made.path], [])


def test_a_copy_of_a_create_is_found_although_a_copy_of_the_taking_of_its_name_came_after_it(rig: Rig) -> None:
    rig.cluster.faults = {0: Fault.COPY_LATE, 2: Fault.COPY_LATE}  # create, look, first of two renames
    rig.cluster.lateness = [4, 3]
    made = rig.driver.create(volume())
    rig.time[0] += 61
    rig.driver.recover()
    for _ in range(2):
        rig.driver.provide_vm_info("vm-1", made)
    assert [found.name.endswith("-given-volume") for found in rig.look.volumes_list()] == [False, True]
    rig.settle()
    assert (rig.volumes(), rig.records.open_operations()) == ([made.path], [])


def test_a_recovery_waits_for_a_storage_api_that_does_not_answer_once_and_not_for_each_operation(rig: Rig) -> None:
    for number in range(1, 5):
        made = rig.driver.create(volume(number))
        rig.cluster.strike(*[CUT_OFF] * 10)
        with pytest.raises(Error):
            rig.driver.revoke_access(made)
        rig.cluster.faults.clear()
    assert [kind for kind, _ in steps(rig)].count("tags") == 4
    rig.time[0] += 2 * SETTLE
    rig.cluster.calls.clear()
    rig.cluster.faults = dict.fromkeys(range(100), LOST)
    assert "as all of pool 1" in " ".join(rig.driver.recover())
    assert 0 < len(rig.cluster.calls) <= 4, "three sendings and a look"
    rig.settle()
    assert rig.records.open_operations() == []


def test_the_backup_of_a_volume_whose_deletion_was_cut_off_is_kept(rig: Rig) -> None:
    rig.records.settings["storpool.delete.after.interval"] = "300"
    made = rig.driver.create(volume())
    rig.cluster.strike(Fault.KILLED_AFTER, after=4)  # look, let go, snapshot, look at it, delete
    with pytest.raises(Dead):
        rig.driver.delete(made)
    rig.restart()
    assert any("step delete): done" in line for line in rig.driver.recover())
    assert (rig.volumes(), len(rig.snapshots())) == ([], 1)


def test_a_deletion_that_is_asked_for_again_makes_a_backup_of_the_volume_as_it_is_then(rig: Rig) -> None:
    rig.records.settings["storpool.delete.after.interval"] = "300"
    made = rig.driver.create(volume())
    rig.cluster.strike(*[Fault.REQUEST_LOST] * 30, after=4)
    with pytest.raises(Unknown):
        rig.driver.delete(made)
    rig.cluster.faults.clear()
    assert rig.volumes() == [made.path]
    rig.driver.delete(made)
    assert (rig.volumes(), len(rig.snapshots())) == ([], 2)


def test_a_deletion_that_is_refused_makes_no_backup(rig: Rig) -> None:
    rig.records.settings["storpool.delete.after.interval"] = "300"
    made = rig.driver.create(volume())
    assert made.path is not None
    rig.look.volumes_reassign_wait([VolumeReassignDesc(volume="~" + made.path.rpartition("/")[2], rw=(1,))])
    rig.blocks_of(made.path, rig.cluster.blocks.open)
    for _ in range(3):
        with pytest.raises(Conflict, match="in use by StorPool client 1 and"):
            rig.driver.delete(made)
        rig.settle()
    assert (rig.volumes(), rig.snapshots(), rig.records.open_operations()) == ([made.path], [], [])
    assert not [call for call in rig.cluster.calls if "VolumeSnapshot" in call], "none was made to be taken back"


def test_an_attachment_that_nobody_uses_keeps_a_deletion_with_a_backup_from_nothing(rig: Rig) -> None:
    rig.records.settings["storpool.delete.after.interval"] = "300"
    made = rig.driver.create(volume())
    assert made.path is not None
    rig.look.volumes_reassign_wait([VolumeReassignDesc(volume="~" + made.path.rpartition("/")[2], rw=(1,))])
    rig.driver.delete(made)
    assert (rig.volumes(), len(rig.snapshots())) == ([], 1)


def test_recovery_never_deletes_a_volume_that_a_dead_process_wanted_to_delete(rig: Rig) -> None:
    made = rig.driver.create(volume())
    rig.cluster.strike(Fault.KILLED_BEFORE)
    with pytest.raises(Dead):
        rig.driver.delete(made)
    rig.restart()
    assert any("not carried out" in line for line in rig.driver.recover())
    rig.settle()
    assert (rig.volumes(), rig.records.open_operations()) == ([made.path], [])


def lose_a_create(rig: Rig) -> None:
    rig.cluster.strike(*[Fault.REQUEST_LOST] * 2, CUT_OFF, CUT_OFF, CUT_OFF)
    with pytest.raises(Unknown):
        rig.driver.create(volume())


def lose_an_update(rig: Rig) -> None:
    made = rig.driver.create(volume())
    rig.cluster.strike(LOST)
    rig.driver.revoke_access(made)


def lose_a_detach(rig: Rig) -> None:
    path = recorded(rig)
    attach(rig, path)
    rig.cluster.strike(Fault.REQUEST_LOST, after=2)
    rig.driver.reconcile_volumes()
    rig.driver.recover()


def lose_a_copy(rig: Rig) -> None:
    rig.records.settings["primary.storage.download.wait"] = "60"
    rig.agent.faults = [Fault.REQUEST_LOST]
    with pytest.raises(Unknown):
        seed(rig)
    # While an agent may use it, what is attached is not known to be unused.
    attach(rig, rig.volumes()[0])


def lose_a_copy_and_give_the_volume_up(rig: Rig) -> None:
    lose_a_copy(rig)
    rig.driver.recover()


LOSSES = {
    "create": lose_a_create,
    "answer": lambda rig: rig.driver.create(volume()),
    "tags": lose_an_update,
    "detach": lose_a_detach,
    "copy": lose_a_copy,
    "discard": lose_a_copy_and_give_the_volume_up,
}


@pytest.mark.parametrize("what", list(LOSSES))
def test_a_clock_that_is_put_back_keeps_no_operation_open_for_longer_than_ever(what: str) -> None:
    rig = prepared()
    LOSSES[what](rig)
    assert rig.records.open_operations()
    rig.cluster.faults.clear()
    rig.time[0] -= 36_000
    for _ in range(3):
        rig.driver.recover()
        rig.time[0] += SETTLE + 61
    rig.driver.recover()
    assert rig.records.open_operations() == []


def test_tags_of_a_dead_process_that_arrive_late_are_put_right(rig: Rig) -> None:
    made = rig.driver.create(volume())
    rig.cluster.lateness = [50]
    rig.cluster.strike(Fault.KILLED_LATE)
    with pytest.raises(Dead):
        rig.driver.provide_vm_info("vm-1", msgspec.structs.replace(made, device_id=1))
    rig.restart()
    rig.driver.recover()
    rig.driver.revoke_access(made)
    assert rig.cluster.late
    rig.settle()
    assert rig.tags(made.path) == {"uuid": "vol-1", "cs": "volume"}


def test_a_tag_update_does_not_forget_what_an_unfinished_one_wanted(rig: Rig) -> None:
    made = rig.driver.create(volume())
    attached = msgspec.structs.replace(made, device_id=1)
    rig.cluster.strike(*[Fault.REQUEST_LOST] * 3)
    with pytest.raises(Unknown):
        rig.driver.provide_vm_info("vm-1", attached)
    rig.records.vm_tags["vm-1", "vc-policy"] = "daily"
    rig.driver.provide_vm_tags("vm-1", attached, "vc-policy")
    expected = {"uuid": "vol-1", "cs": "volume", "cvm": "vm-1", "disk": "1", "vc-policy": "daily"}
    assert rig.tags(made.path) == expected
    rig.settle()
    assert rig.tags(made.path) == expected


def test_recovery_that_cannot_reach_storpool_keeps_the_operation_and_says_so(rig: Rig) -> None:
    rig.cluster.strike(Fault.KILLED_AFTER)
    with pytest.raises(Dead):
        rig.driver.create(volume())
    rig.restart()
    rig.cluster.strike(*[CUT_OFF] * 30)
    assert "still open" in rig.driver.recover()[0]
    rig.settle()
    assert (rig.volumes(), rig.records.open_operations()) == ([], [])


def test_the_token_is_in_no_record_error_or_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    token = rig.records.details[1]["SP_AUTH_TOKEN"]
    rig.cluster.strike(*[LOST] * 30)
    with pytest.raises(Error) as caught:
        rig.driver.create(volume())
    rig.cluster.faults.clear()
    rig.settle()
    assert rig.records.outcomes
    assert token not in f"{caught.value!r}{rig.records.operations}{caplog.text}{vars(rig.driver)}"


def test_what_is_open_on_a_pool_that_was_removed_is_told_once_and_given_up(rig: Rig) -> None:
    made = rig.driver.create(volume())
    rig.driver.delete(made)
    del rig.records.details[1]
    (line,) = rig.driver.recover()
    assert "pool 1 was removed" in line and TOKEN not in line
    assert rig.driver.recover() == []
    assert rig.records.operations == {}


def test_ended_operations_are_forgotten_after_their_time_without_any_reconciler() -> None:
    rig = prepared()
    for _ in range(3):
        assert rig.driver.recover() == []
        rig.time[0] += 1000
    assert rig.records.purges == [rig.time[0] - 3000 - 604800]
    rig.records.to_purge = True
    rig.time[0] -= 36_000  # the clock was put back
    rig.driver.recover()
    assert 10 < len(rig.records.purges) < 1000, "a round has an end, whatever there is to forget"
    rig.records.purges.clear()
    for setting, told in (("0", []), ("soon", ["not a number of seconds"])):
        rig.records.settings["storpool.operations.retention"] = setting
        rig.time[0] += 3600
        lines = rig.driver.recover()
        assert [text in line for line, text in zip(lines, told, strict=True)] == [True] * len(told)
    assert rig.records.purges == []


def test_updates_of_tags_at_the_same_time_do_not_meet_in_what_is_remembered(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deterministic: one update is held in the midst of remembering, with room for one, while another one wants to."""
    monkeypatch.setattr(driver_tags, "REMEMBERED", 1)
    one, other = rig.driver.create(volume(1)), rig.driver.create(volume(2))
    begun = threading.Event()
    remembered = rig.driver._tags._recent

    class Held(OrderedDict[str, float]):
        def __setitem__(self, subject: str, when: float) -> None:
            super().__setitem__(subject, when)
            if subject == "volume:vol-1":
                second.start()
                begun.wait(10)
                second.join(0.2)

    def update() -> None:
        begun.set()
        rig.driver.revoke_access(other)

    second = threading.Thread(target=update)
    rig.driver._tags._recent = Held(remembered)
    rig.driver.revoke_access(one)
    second.join(10)
    assert not second.is_alive()
    assert list(rig.driver._tags._recent) == ["volume:vol-2"]
