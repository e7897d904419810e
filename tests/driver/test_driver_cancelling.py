"""Copies whose answer was lost: the host is told to end them, and then only what is late is waited for."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from driver_rig import IMAGES, MIB, POOL, SETTLE, Fault, Rig, image, on_pool, snapshot_of, volume
from reconciler_rig import attach, attached, gid, prepared, record

from harness.spi.commands import Answer, AnyAnswer, AnyCommand, CopyCmdAnswer
from harness.spi.errors import Error, ErrorClass, Unavailable, Unknown
from harness.spi.objects import DataStore, ImageFormat, SnapshotObject, StoreRole
from harness.storpool import SnapshotReassignDesc, VolumeReassignDesc

SIZE = 4 * MIB
FILE = "snapshots/2/1/snap-9.qcow2"
NFS = DataStore(
    id=8, uuid="n", name="nfs", role=StoreRole.PRIMARY, provider="DefaultPrimary", url="nfs://h/export/primary"
)
WAITS = ("primary.storage.download.wait", "backup.snapshot.wait", "copy.volume.wait")
HOURS = 6 * 3600.0


@pytest.fixture
def rig() -> Rig:
    rig = prepared()
    for name in WAITS:
        rig.records.settings[name] = str(int(HOURS))
    return rig


def taken(rig: Rig) -> SnapshotObject:
    made = rig.driver.create(volume(size=SIZE))
    record(rig, made)
    return rig.driver.take_snapshot(snapshot_of(made))


def seed(rig: Rig) -> None:
    rig.driver.copy(image(), on_pool(image()))


def encrypt(rig: Rig) -> None:
    rig.driver.create(volume(3, SIZE, encrypted=True))


def restore(rig: Rig) -> None:
    of = snapshot_of(volume(size=SIZE))
    rig.driver.copy(msgspec.structs.replace(of, store=IMAGES, path=FILE, size=SIZE), volume(7))


def download(rig: Rig) -> None:
    there = msgspec.structs.replace(volume(2, size=SIZE), store=NFS, path="file", format=ImageFormat.QCOW2)
    rig.driver.copy(there, msgspec.structs.replace(there, store=POOL, path=None, format=ImageFormat.RAW))


def export(rig: Rig) -> None:
    made = rig.driver.create(volume(4, size=SIZE))
    record(rig, made)
    rig.driver.copy(made, msgspec.structs.replace(made, store=IMAGES, path="volumes/4"))


def make_template(rig: Rig) -> None:
    made = rig.driver.create(volume(4, size=SIZE))
    record(rig, made)
    rig.driver.copy(made, msgspec.structs.replace(image(), path="template/9"))


COPIES: dict[str, Callable[[Rig], None]] = {
    "template to pool": seed,
    "encrypted volume": encrypt,
    "snapshot from its backup": restore,
    "volume from another pool": download,
    "volume to secondary": export,
    "template from volume": make_template,
}


def lose(rig: Rig, what: str) -> str:
    """A host copies, and its answer is lost. Path of the object that it has attached."""
    before = {*rig.volumes(), *rig.snapshots()}
    rig.agent.faults = [Fault.REQUEST_LOST]
    with pytest.raises(Unknown):
        COPIES[what](rig)
    assert rig.agent.cancels == [], "it may still be answered for"
    owned = {found.path for found in rig.records.volumes.values()}
    (path,) = {*rig.volumes(), *rig.snapshots()} - before - owned
    hold(rig, path)
    return path


def hold(rig: Rig, path: str) -> None:
    if path in rig.snapshots():
        rig.look.volumes_reassign_wait([SnapshotReassignDesc(snapshot=gid(path), ro=(1,))])
    else:
        attach(rig, path)


def let_go(rig: Rig, path: str) -> None:
    """What an agent does before it answers."""
    kind = SnapshotReassignDesc(snapshot=gid(path)) if path in rig.snapshots() else VolumeReassignDesc(volume=gid(path))
    rig.look.volumes_reassign_wait([msgspec.structs.replace(kind, detach=(1,), force=False)])


def there(rig: Rig, path: str) -> bool:
    return path in {*rig.volumes(), *rig.snapshots()}


@pytest.mark.parametrize("what", COPIES)
def test_a_copy_whose_answer_was_lost_is_ended_and_what_it_used_goes_at_once(rig: Rig, what: str) -> None:
    path = lose(rig, what)
    rig.restart()
    rig.agent.at_cancel = lambda: let_go(rig, path)
    rig.driver.recover()
    assert rig.agent.cancels == [path]
    assert not there(rig, path)
    rig.time[0] += SETTLE + 1
    rig.driver.recover()
    assert rig.agent.cancels == [path], "once is enough"
    assert [found for found in rig.records.open_operations() if found.data.get("host")] == []


@pytest.mark.parametrize("what", COPIES)
def test_while_its_host_cannot_be_asked_a_copy_is_waited_for_and_asked_about_again(rig: Rig, what: str) -> None:
    path = lose(rig, what)
    rig.restart()
    rig.agent.deaf = True
    rig.driver.recover()
    rig.time[0] += SETTLE + 1
    rig.driver.recover()
    assert rig.agent.cancels == [path, path]
    assert there(rig, path) and (path, 1) in attached(rig)

    rig.agent.deaf = False
    rig.agent.at_cancel = lambda: let_go(rig, path)
    rig.driver.recover()
    assert not there(rig, path)


def test_a_host_that_never_answers_is_not_asked_for_longer_than_the_copy_may_take(rig: Rig) -> None:
    path = lose(rig, "template to pool")
    rig.agent.deaf = True
    rig.driver.recover()
    rig.time[0] += HOURS + SETTLE + 1
    asked = len(rig.agent.cancels)
    rig.driver.recover()
    assert len(rig.agent.cancels) == asked and not there(rig, path)


def test_a_host_that_does_not_know_how_to_end_a_copy_is_waited_for_as_long_as_it_may_take(rig: Rig) -> None:
    path = lose(rig, "template to pool")
    rig.agent.cancel_answer = Answer(result=False, details="HTTP 400: not a command", error_class=ErrorClass.PERMANENT)
    rig.driver.recover()
    rig.time[0] += HOURS - 1
    rig.driver.recover()
    assert there(rig, path) and (path, 1) in attached(rig)
    rig.time[0] += SETTLE + 2
    rig.driver.recover()
    assert not there(rig, path)


def test_what_is_late_of_a_cancelled_copy_is_waited_for_and_no_longer(rig: Rig) -> None:
    path = lose(rig, "template to pool")
    rig.driver.recover()
    assert there(rig, path), "a late copy of the command has it attached, that nobody may have opened yet"
    rig.time[0] += SETTLE - 1
    rig.driver.recover()
    assert there(rig, path)
    rig.time[0] += 2
    rig.driver.recover()
    assert not there(rig, path)


@pytest.mark.parametrize("what", COPIES)
def test_no_host_is_asked_about_a_copy_that_was_answered(rig: Rig, what: str) -> None:
    def answer(command: AnyCommand) -> AnyAnswer:
        if what == "encrypted volume":
            return rig.agent.carry_out(command)
        return CopyCmdAnswer(result=True, size=SIZE, physical_size=1)

    rig.agent.answer = answer
    COPIES[what](rig)
    rig.settle()
    assert rig.agent.cancels == []


@pytest.mark.parametrize("what", COPIES)
@pytest.mark.parametrize("error_class", [None, ErrorClass.TRANSIENT, ErrorClass.CONFLICT])
def test_no_host_is_asked_about_a_copy_that_has_failed(rig: Rig, what: str, error_class: ErrorClass | None) -> None:
    rig.agent.answer = lambda _: Answer(result=False, details="no room", error_class=error_class)
    with pytest.raises(Error, match="no room"):
        COPIES[what](rig)
    rig.settle()
    assert (rig.agent.cancels, rig.unfinished()) == ([], [])


def test_a_copy_that_did_not_arrive_is_not_asked_about(rig: Rig) -> None:
    rig.agent.faults = [Fault.NOT_SENT]
    with pytest.raises(Unavailable):
        seed(rig)
    assert (rig.agent.cancels, rig.volumes()) == ([], [])


def test_a_backup_that_is_tried_again_does_not_wait_for_the_try_before(rig: Rig) -> None:
    snapshot = taken(rig)
    rig.agent.answer = lambda _: CopyCmdAnswer(result=True, size=SIZE, physical_size=1)
    first, second = (msgspec.structs.replace(snapshot, store=IMAGES, path=f"snapshots/{n}") for n in (1, 2))
    rig.agent.faults = [Fault.REQUEST_LOST]
    with pytest.raises(Unknown):
        rig.driver.copy(snapshot, first)
    rig.driver.copy(snapshot, second)
    assert rig.agent.cancels == ["snapshots/1"]
    rig.agent.faults = [Fault.REQUEST_LOST]
    with pytest.raises(Unknown):
        rig.driver.copy(snapshot, first)
    rig.restart()
    rig.agent.deaf = True
    rig.driver.recover()
    assert rig.agent.cancels == ["snapshots/1"] * 2
    assert rig.unfinished() == [], "its file is nobody's but its own, so a host that is away is not waited for"
