"""Backing a snapshot up, and bringing it back: what an agent's answer means, and what is left after each."""

from __future__ import annotations

import msgspec
import pytest
from driver_rig import IMAGES, MIB, Fault, Rig, image, snapshot_of, volume
from reconciler_rig import attach, prepared, record

from harness.spi.commands import (
    AnyAnswer,
    AnyCommand,
    CopyCmdAnswer,
    ResizeVolumeAnswer,
    StorPoolBackupSnapshotCommand,
    StorPoolDownloadTemplateCommand,
)
from harness.spi.errors import Conflict, Error, ErrorClass, InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.objects import SnapshotObject, VolumeObject

SIZE = 4 * MIB
FILE = "snapshots/2/1/snap-9.qcow2"


@pytest.fixture
def rig() -> Rig:
    return prepared()


@pytest.fixture
def taken(rig: Rig) -> SnapshotObject:
    made = rig.driver.create(volume(size=SIZE))
    record(rig, made)
    snapshot = rig.driver.take_snapshot(snapshot_of(made))
    rig.settle()
    rig.agent.answer = lambda _: CopyCmdAnswer(result=True, size=SIZE, physical_size=12345)
    return snapshot


def on_images(snapshot: SnapshotObject, path: str | None = FILE) -> SnapshotObject:
    return msgspec.structs.replace(snapshot, store=IMAGES, path=path)


def open_backups(rig: Rig) -> list[dict[str, str]]:
    return [dict(operation.data) for operation in rig.unfinished() if operation.kind == "backup-snapshot"]


def test_a_backup_has_the_disks_size_and_the_files_and_leaves_the_snapshot(rig: Rig, taken: SnapshotObject) -> None:
    rig.records.settings["backup.snapshot.wait"] = "77"
    made = rig.driver.copy(taken, on_images(taken))
    assert isinstance(made, SnapshotObject)
    assert (made.path, made.size, made.physical_size) == (FILE, SIZE, 12345)
    (command,) = rig.agent.commands
    assert isinstance(command, StorPoolBackupSnapshotCommand)
    assert (command.wait, command.source.path, command.destination.path) == (77, taken.path, FILE)
    assert (rig.snapshots(), rig.unfinished()) == ([taken.path], [])


@pytest.mark.parametrize(
    ("answer", "error", "open_still"),
    [
        (CopyCmdAnswer(result=False, details="no room"), Error, False),
        (CopyCmdAnswer(result=False, details="hangs", error_class=ErrorClass.UNKNOWN), Unknown, True),
        (CopyCmdAnswer(result=False, details="later", error_class=ErrorClass.TRANSIENT), Unavailable, False),
        (CopyCmdAnswer(result=False, details="there", error_class=ErrorClass.CONFLICT), Conflict, False),
        (ResizeVolumeAnswer(result=True, size=SIZE), Error, False),
    ],
    ids=["failed", "unknown", "transient", "conflict", "of another command"],
)
def test_a_copy_that_was_not_made_is_an_error_and_the_snapshot_survives_it(
    rig: Rig, taken: SnapshotObject, answer: AnyAnswer, error: type[Error], open_still: bool
) -> None:
    rig.agent.answer = lambda _: answer
    with pytest.raises(error) as caught:
        rig.driver.copy(taken, on_images(taken))
    assert type(caught.value) is error and "kvm-1" in str(caught.value)
    assert rig.snapshots() == [taken.path]
    assert bool(open_backups(rig)) == open_still


def test_after_a_copy_whose_end_is_unknown_the_next_has_an_operation_of_its_own(
    rig: Rig, taken: SnapshotObject
) -> None:
    rig.agent.faults = [Fault.REQUEST_LOST]
    with pytest.raises(Unknown):
        rig.driver.copy(taken, on_images(taken, "snapshots/first.qcow2"))
    (first,) = rig.unfinished()
    rig.agent.faults = [Fault.REQUEST_LOST]
    with pytest.raises(Unknown):
        rig.driver.copy(taken, on_images(taken, "snapshots/second.qcow2"))
    (second,) = rig.unfinished()
    assert (first.id != second.id, second.data["file"]) == (True, "snapshots/second.qcow2")
    assert rig.records.outcomes[first.id] == "undone"
    rig.restart()
    assert "not waited for" in rig.driver.recover()[0]
    assert rig.unfinished() == []


def test_a_snapshot_that_storpool_has_lost_is_told_and_nobody_is_asked_to_copy(rig: Rig, taken: SnapshotObject) -> None:
    with pytest.raises(NotFound, match="no path"):
        rig.driver.copy(msgspec.structs.replace(taken, path=None), on_images(taken))
    rig.driver.delete(taken)
    with pytest.raises(NotFound, match="gone from StorPool"):
        rig.driver.copy(taken, on_images(taken))
    assert (rig.agent.commands, rig.unfinished()) == ([], [])


def restored(rig: Rig, taken: SnapshotObject, **more: object) -> VolumeObject:
    made = rig.driver.copy(on_images(taken), msgspec.structs.replace(volume(7), **more))
    assert isinstance(made, VolumeObject)
    return made


def writes(rig: Rig) -> None:
    """The agent copies, as it does with templates."""
    rig.agent.answer = None


def test_a_restored_volume_has_the_backups_bytes_and_the_attributes_of_its_own_offering(
    rig: Rig, taken: SnapshotObject
) -> None:
    rig.records.settings["primary.storage.download.wait"] = "88"
    rig.records.offerings[4] = {"SP_TEMPLATE": "ssd"}
    writes(rig)
    made = restored(rig, taken, size=MIB, disk_offering_id=4, max_iops=500)
    (command,) = rig.agent.commands
    assert isinstance(command, StorPoolDownloadTemplateCommand)
    assert (command.wait, command.source.path, command.destination.path) == (88, FILE, made.path)
    assert made.path is not None and rig.read(made.path, 1) == b"s"
    found = rig.look.volume("~" + made.path.rpartition("/")[2])
    # Never smaller than what is copied onto it.
    assert (made.size, found.size, found.template_name, found.iops) == (SIZE, SIZE, "ssd", "-")


def test_without_a_file_no_empty_volume_is_taken_for_the_snapshots(rig: Rig, taken: SnapshotObject) -> None:
    before = rig.volumes()
    with pytest.raises(InvalidParameter, match="no path on its image store"):
        rig.driver.copy(on_images(taken, None), volume(7))
    assert (rig.volumes(), rig.unfinished(), rig.agent.commands) == (before, [], [])


@pytest.mark.parametrize("error_class", [None, ErrorClass.TRANSIENT, ErrorClass.CONFLICT])
def test_a_volume_onto_which_nothing_was_copied_goes_again(
    rig: Rig, taken: SnapshotObject, error_class: ErrorClass | None
) -> None:
    before = rig.volumes()
    rig.agent.answer = lambda _: CopyCmdAnswer(result=False, details="it failed", error_class=error_class)
    with pytest.raises(Error, match="it failed"):
        restored(rig, taken)
    rig.settle()
    assert (rig.volumes(), rig.unfinished()) == (before, [])


def test_a_volume_that_may_still_be_written_to_is_neither_used_nor_deleted_yet(rig: Rig, taken: SnapshotObject) -> None:
    before = set(rig.volumes())
    used: list[str] = []

    def hang(command: AnyCommand) -> AnyAnswer:
        assert isinstance(command, StorPoolDownloadTemplateCommand) and command.destination.path is not None
        used.append(command.destination.path)
        attach(rig, used[0])
        raise Unknown("no answer from the agent")

    rig.agent.answer = hang
    with pytest.raises(Unknown):
        restored(rig, taken)
    writes(rig)
    made = restored(rig, taken)
    record(rig, made)
    rig.driver.recover()
    assert set(rig.volumes()) - before == {made.path, *used}, "the agent may be about to open it"
    rig.time[0] += 2 * 10800
    rig.settle()
    assert (set(rig.volumes()) - before, rig.unfinished()) == ({made.path}, [])


def test_no_agent_is_told_before_the_volume_is_there(rig: Rig, taken: SnapshotObject) -> None:
    seen: list[bool] = []

    def look(command: AnyCommand) -> AnyAnswer:
        assert isinstance(command, StorPoolDownloadTemplateCommand)
        seen.append(command.destination.path in rig.volumes())
        return CopyCmdAnswer(result=True)

    rig.agent.answer = look
    rig.cluster.strike(Fault.ANSWER_LOST)
    restored(rig, taken)
    assert seen == [True]


@pytest.mark.parametrize("setting", ["soon", "0.5", "-1"])
def test_a_wait_that_is_no_number_of_seconds_is_told_and_leaves_nothing_of_the_template(
    rig: Rig, taken: SnapshotObject, setting: str
) -> None:
    before = rig.snapshots()
    rig.records.settings["backup.snapshot.wait"] = setting
    with pytest.raises(InvalidParameter, match=r"setting backup\.snapshot\.wait is .*, not a number of seconds"):
        rig.driver.copy(taken, image())
    assert (rig.snapshots(), rig.agent.commands, rig.unfinished()) == (before, [], [])
