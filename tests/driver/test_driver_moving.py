"""Row 18: volumes that go to another pool, as StorPool shows them at every step that fails."""

from __future__ import annotations

import msgspec
import pytest
from driver_rig import MIB, POOL, Fault, Rig, volume

from harness.spi.commands import AnyAnswer, AnyCommand, CopyCmdAnswer, StorPoolDownloadVolumeCommand
from harness.spi.commands import StorPoolCopyVolumeToSecondaryCommand as Upload
from harness.spi.errors import Dead, Error, InvalidParameter, Unavailable, Unknown
from harness.spi.objects import DataStore, ImageFormat, StoreRole, VolumeObject
from harness.storpool import SnapshotReassignDesc

OTHER = DataStore(id=9, uuid="ssd;p", name="other", role=StoreRole.PRIMARY, provider="StorPool", url="storpool:ssd")
NFS = DataStore(
    id=8, uuid="n", name="nfs", role=StoreRole.PRIMARY, provider="DefaultPrimary", url="nfs://h/export/primary"
)
DATA = b"what the volume holds"


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.records.offerings[3] = {}
    rig.records.details[OTHER.id] = {**rig.records.details[POOL.id], "SP_TEMPLATE": "ssd"}
    rig.agent.answer = lambda command: _copy(rig, command)
    return rig


def _copy(rig: Rig, command: AnyCommand) -> AnyAnswer:
    if isinstance(command, StorPoolDownloadVolumeCommand):
        assert command.destination.path is not None
        rig.write(command.destination.path, DATA)
        return CopyCmdAnswer(result=True, path=command.destination.path, size=command.source.size)
    assert isinstance(command, Upload)
    assert command.source.path in rig.snapshots(), "what is copied is a snapshot, so that the volume stays free"
    return CopyCmdAnswer(result=True, path=command.destination.path, size=command.source.size)


def made(rig: Rig) -> VolumeObject:
    volume_on_pool = rig.driver.create(volume(size=4 * MIB, disk_offering_id=3, max_iops=500))
    rig.settle()
    return volume_on_pool


def to(store: DataStore, of: VolumeObject, path: str | None = None) -> VolumeObject:
    return msgspec.structs.replace(of, store=store, path=path, format=ImageFormat.QCOW2 if path else ImageFormat.RAW)


def on_nfs() -> VolumeObject:
    return to(NFS, volume(size=4 * MIB, disk_offering_id=3), "file")


def test_within_a_cluster_the_volume_itself_goes(rig: Rig) -> None:
    source = made(rig)
    moved = rig.driver.copy(source, to(OTHER, source))
    assert isinstance(moved, VolumeObject)
    assert (moved.path, moved.store) == (source.path, OTHER)
    (shown,) = rig.look.volumes_list()
    assert (shown.template_name, shown.iops, shown.size) == ("ssd", 500, 4 * MIB)
    assert (rig.snapshots(), rig.unfinished()) == ([], [])


def test_a_move_that_is_asked_for_twice_is_one(rig: Rig) -> None:
    source = made(rig)
    assert rig.driver.copy(source, to(OTHER, source)) == rig.driver.copy(source, to(OTHER, source))
    assert [v.template_name for v in rig.look.volumes_list()] == ["ssd"]
    assert rig.unfinished() == []


def test_a_pool_of_another_cluster_is_refused(rig: Rig) -> None:
    source = made(rig)
    rig.records.details[OTHER.id]["SP_AUTH_TOKEN"] = "another"
    assert not rig.driver.can_copy(source, to(OTHER, source))
    with pytest.raises(InvalidParameter):
        rig.driver.copy(source, to(OTHER, source))


@pytest.mark.parametrize("fault", [Fault.NOT_SENT, Fault.REQUEST_LOST, Fault.ANSWER_LOST])
def test_an_upload_without_an_answer_leaves_the_volume_and_no_snapshot(rig: Rig, fault: Fault) -> None:
    source = made(rig)
    rig.agent.faults = [fault]
    with pytest.raises(Unavailable if fault is Fault.NOT_SENT else Unknown):
        rig.driver.copy(source, to(NFS, source, "file"))
    rig.settle()
    assert (rig.volumes(), rig.snapshots(), rig.unfinished()) == ([source.path], [], [])


def test_a_snapshot_that_an_agent_may_be_reading_is_left_until_it_cannot_be(rig: Rig) -> None:
    source = made(rig)

    def begins(command: AnyCommand) -> AnyAnswer:
        assert isinstance(command, Upload)
        name = "~" + str(command.source.path).rpartition("/")[2]
        rig.look.volumes_reassign_wait([SnapshotReassignDesc(snapshot=name, ro=(1,))])
        raise Unknown("no answer from the agent")

    rig.agent.answer = begins
    with pytest.raises(Unknown):
        rig.driver.copy(source, to(NFS, source, "file"))
    rig.driver.recover()
    assert len(rig.snapshots()) == 1
    rig.settle()
    assert (rig.volumes(), rig.snapshots(), rig.unfinished()) == ([source.path], [], [])


def test_an_upload_keeps_no_snapshot_and_leaves_the_source(rig: Rig) -> None:
    source = made(rig)
    copied = rig.driver.copy(source, to(NFS, source, "file"))
    assert isinstance(copied, VolumeObject) and (copied.path, copied.size) == ("file", 4 * MIB)
    assert (rig.volumes(), rig.snapshots()) == ([source.path], [])


def test_what_a_dead_server_was_uploading_is_given_up(rig: Rig) -> None:
    source = made(rig)
    rig.cluster.strike(Fault.KILLED_AFTER)
    with pytest.raises(Dead):
        rig.driver.copy(source, to(NFS, source, "file"))
    rig.restart()
    rig.settle()
    assert (rig.volumes(), rig.snapshots(), rig.unfinished()) == ([source.path], [], [])


def test_a_download_makes_a_volume_of_the_offering_with_the_files_bytes(rig: Rig) -> None:
    rig.records.offerings[3] = {"SP_QOSCLASS": "gold"}
    copied = rig.driver.copy(on_nfs(), to(POOL, on_nfs()))
    assert isinstance(copied, VolumeObject) and copied.path is not None
    assert rig.read(copied.path, len(DATA)) == DATA
    assert rig.tags(copied.path)["qc"] == "gold"
    (sent,) = rig.agent.commands
    assert isinstance(sent, StorPoolDownloadVolumeCommand) and sent.source.format is ImageFormat.QCOW2


@pytest.mark.parametrize("fault", [Fault.NOT_SENT, Fault.ANSWER_LOST])
def test_a_download_that_failed_leaves_no_volume_once_it_is_given_up(rig: Rig, fault: Fault) -> None:
    rig.agent.faults = [fault]
    with pytest.raises(Error):
        rig.driver.copy(on_nfs(), to(POOL, on_nfs()))
    rig.driver.delete(to(POOL, on_nfs()))
    rig.time[0] += 20_000
    rig.settle()
    assert (rig.volumes(), rig.unfinished()) == ([], [])
