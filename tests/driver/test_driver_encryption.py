"""Encrypted volumes on StorPool: their sizes, what an agent is asked, and what is left when that fails."""

from __future__ import annotations

import msgspec
import pytest
from driver_rig import MIB, Fault, Rig, image, on_pool, snapshot_of, volume

from harness.spi.commands import (
    Answer,
    AnyAnswer,
    AnyCommand,
    StorPoolResizeVolumeCommand,
    StorPoolSetVolumeEncryptionAnswer,
    StorPoolSetVolumeEncryptionCommand,
)
from harness.spi.driver import ResizePayload
from harness.spi.errors import Error, ErrorClass, InsufficientCapacity, InvalidParameter, Unavailable, Unknown
from harness.spi.objects import LUKS_HEADER, SnapshotObject, TemplateObject, VolumeObject

SIZE = 4 * MIB
DELETE_AFTER = "storpool.delete.after.interval"


@pytest.fixture
def rig() -> Rig:
    return Rig()


def encrypted(number: int = 1, size: int = SIZE) -> VolumeObject:
    return volume(number, size, encrypted=True)


def stored(rig: Rig, made: VolumeObject) -> int:
    assert made.path is not None
    return rig.look.volume("~" + made.path.rpartition("/")[2]).size


def asked(rig: Rig) -> list[StorPoolSetVolumeEncryptionCommand]:
    return [command for command in rig.agent.commands if isinstance(command, StorPoolSetVolumeEncryptionCommand)]


def seeded(rig: Rig) -> TemplateObject:
    made = rig.driver.copy(image(), on_pool(image()))
    assert isinstance(made, TemplateObject)
    return made


def test_a_data_volume_has_its_size_and_the_header_beside_it(rig: Rig) -> None:
    made = rig.driver.create(encrypted())
    assert (made.size, stored(rig, made)) == (SIZE, SIZE + LUKS_HEADER)
    (command,) = asked(rig)
    assert (command.path, command.size, command.source) == (made.path, SIZE + LUKS_HEADER, None)
    assert command.passphrase.reveal() == b"passphrase of vol-1"
    rig.settle()
    assert rig.unfinished() == [] and rig.volumes() == [made.path]


def test_a_root_volume_is_blank_and_written_from_the_template_and_no_clone(rig: Rig) -> None:
    template = seeded(rig)
    made = rig.driver.copy(template, encrypted(size=SIZE))
    assert isinstance(made, VolumeObject) and made.path is not None
    assert (made.size, stored(rig, made)) == (template.size, template.size + LUKS_HEADER)
    (command,) = asked(rig)
    assert command.source == template.path
    assert rig.look.volume("~" + made.path.rpartition("/")[2]).parent_name in ("", "-", None)
    assert rig.read(made.path, 4) == b"LUKS"


def test_no_record_of_an_operation_has_the_passphrase(rig: Rig) -> None:
    rig.driver.create(encrypted())
    assert b"passphrase of" not in msgspec.json.encode(list(rig.records.operations.values()))


def test_without_a_host_that_encrypts_nothing_is_made(rig: Rig) -> None:
    rig.agent.encrypts = False
    with pytest.raises(InsufficientCapacity):
        rig.driver.create(encrypted())
    assert rig.volumes() == [] and rig.unfinished() == []


def wrong_answer(command: AnyCommand) -> AnyAnswer:
    del command
    return StorPoolSetVolumeEncryptionAnswer(result=True, size=SIZE - 512)


def refused(command: AnyCommand) -> AnyAnswer:
    del command
    return Answer(result=False, details="cryptsetup: no", error_class=ErrorClass.PERMANENT)


@pytest.mark.parametrize("answer", [wrong_answer, refused])
def test_a_volume_that_is_not_encrypted_in_full_is_an_error_and_goes(rig: Rig, answer: object) -> None:
    """Weaknesses 1 and 20: the original called it a success, and left it."""
    rig.agent.answer = answer  # type: ignore[assignment]  # one of the two functions above
    with pytest.raises(Error):
        rig.driver.create(encrypted())
    rig.settle()
    assert rig.volumes() == [] and rig.unfinished() == []


def test_one_whose_encryption_has_no_known_end_is_never_used(rig: Rig) -> None:
    rig.agent.faults = [Fault.ANSWER_LOST]
    with pytest.raises(Unknown):
        rig.driver.create(encrypted())
    (doubtful,) = rig.volumes()
    made = rig.driver.create(encrypted())
    assert made.path != doubtful
    rig.settle()
    assert rig.volumes() == [made.path]


def test_a_command_that_did_not_arrive_leaves_nothing(rig: Rig) -> None:
    rig.agent.faults = [Fault.NOT_SENT]
    with pytest.raises(Unavailable):
        rig.driver.create(encrypted())
    rig.settle()
    assert rig.volumes() == [] and rig.unfinished() == []


def test_a_resize_leaves_room_for_the_header_and_tells_the_guest_the_rest(rig: Rig) -> None:
    made = rig.driver.create(encrypted())
    payload = ResizePayload(size=2 * SIZE, vm_name="i-2-1-VM", host_id=1)
    grown = rig.driver.resize(made, payload)
    assert (grown.size, stored(rig, made)) == (2 * SIZE, 2 * SIZE + LUKS_HEADER)
    command = rig.agent.commands[-1]
    assert isinstance(command, StorPoolResizeVolumeCommand)
    assert (command.size, command.overhead) == (2 * SIZE + LUKS_HEADER, LUKS_HEADER)
    smaller = ResizePayload(size=SIZE, shrink_ok=True, vm_name="i-2-1-VM", host_id=1)
    assert rig.driver.resize(grown, smaller).size == SIZE
    assert stored(rig, made) == SIZE + LUKS_HEADER


def test_to_shrink_by_less_than_the_header_must_be_asked_for_too(rig: Rig) -> None:
    made = rig.driver.create(encrypted(size=SIZE))
    with pytest.raises(InvalidParameter, match="shrink"):
        rig.driver.resize(made, ResizePayload(size=SIZE - MIB))
    assert stored(rig, made) == SIZE + LUKS_HEADER


def taken(rig: Rig, made: VolumeObject) -> SnapshotObject:
    return rig.driver.take_snapshot(snapshot_of(made))


def test_a_revert_and_a_volume_of_a_snapshot_have_the_guests_size(rig: Rig) -> None:
    made = rig.driver.create(encrypted())
    rig.settle()
    snapshot = taken(rig, made)
    grown = rig.driver.resize(made, ResizePayload(size=2 * SIZE))
    assert rig.driver.revert_snapshot(msgspec.structs.replace(snapshot, volume=grown)) == SIZE
    assert stored(rig, made) == SIZE + LUKS_HEADER
    other = rig.driver.copy(snapshot, encrypted(2, SIZE // 2))
    assert isinstance(other, VolumeObject)
    assert (other.size, stored(rig, other)) == (SIZE, SIZE + LUKS_HEADER)
    larger = rig.driver.copy(snapshot, encrypted(3, 3 * SIZE))
    assert isinstance(larger, VolumeObject)
    assert (larger.size, stored(rig, larger)) == (3 * SIZE, 3 * SIZE + LUKS_HEADER)
    assert len(asked(rig)) == 1, "a clone has the header already"


@pytest.mark.parametrize("source", [True, False])
def test_a_snapshot_and_its_volume_are_encrypted_or_neither(rig: Rig, source: bool) -> None:
    made = rig.driver.create(volume(1, SIZE, encrypted=source))
    snapshot = taken(rig, made)
    with pytest.raises(InvalidParameter, match="encrypted"):
        rig.driver.copy(snapshot, volume(2, SIZE, encrypted=not source))
    assert rig.volumes() == [made.path]


def test_a_deleted_volume_leaves_no_snapshot_that_nobody_could_open(rig: Rig) -> None:
    rig.records.settings[DELETE_AFTER] = "3600"
    made = rig.driver.create(encrypted())
    rig.driver.delete(made)
    assert rig.volumes() == [] and rig.snapshots() == []
