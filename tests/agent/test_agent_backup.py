"""Backing a snapshot up: formats, a file that is there already, and what stays behind."""

from __future__ import annotations

import json

from agent_fakes import MIB, Rig

from harness.spi.commands import AnyAnswer, CopyCmdAnswer, StorPoolBackupSnapshotCommand
from harness.spi.errors import ErrorClass
from harness.spi.objects import DataStore, SnapshotObject, StoreRole, VolumeObject, VolumeType
from harness.spi.ports import CommandResult

STORE = DataStore(id=2, uuid="s", name="secondary", role=StoreRole.IMAGE, provider="NFS", url="nfs://10.0.0.9/export")
POOL = DataStore(id=1, uuid="p", name="pool", role=StoreRole.PRIMARY, provider="StorPool", url="storpool:ssd")
FILE = "snapshots/u.try.qcow2"


def snapshot(store: DataStore, path: str) -> SnapshotObject:
    volume = VolumeObject(id=1, uuid="v", name="v", type=VolumeType.DATADISK, size=8 * MIB)
    return SnapshotObject(id=7, uuid="u", name="s", volume=volume, size=8 * MIB, store=store, path=path)


class Programs:
    """qemu-img beside one file, which is there from the first or once it was written."""

    def __init__(self, *, there: bool = False, size: int = 8 * MIB, rc: int = 0) -> None:
        self.there = there
        self.size = size
        self.rc = rc
        self.ran: list[tuple[str, ...]] = []

    def __call__(self, argv: tuple[str, ...]) -> CommandResult:
        self.ran.append(argv)
        if argv[1] == "convert":
            self.there = True
            return CommandResult(argv, self.rc, b"", b"qemu-img: No space left on device\n" if self.rc else b"")
        if not self.there:
            return CommandResult(argv, 1, b"", b"qemu-img: Could not open: No such file or directory\n")
        shown = {"virtual-size": self.size, "format": "qcow2", "actual-size": 4096}
        return CommandResult(argv, 0, json.dumps(shown).encode(), b"")


def back_up(rig: Rig) -> AnyAnswer:
    source = snapshot(POOL, rig.volume(0, size=8 * MIB).path)
    return rig.agent().handle(StorPoolBackupSnapshotCommand(source=source, destination=snapshot(STORE, FILE), wait=100))


def left_nothing(rig: Rig) -> None:
    assert rig.attached == set()
    assert rig.mounts == rig.unmounts


def test_a_snapshot_is_read_as_raw_and_written_with_a_flush() -> None:
    programs = Programs()
    rig = Rig(programs=programs)
    answer = back_up(rig)
    assert isinstance(answer, CopyCmdAnswer) and answer.result, answer
    assert (answer.path, answer.size, answer.physical_size) == (FILE, 8 * MIB, 4096)
    (convert,) = [argv for argv in programs.ran if argv[1] == "convert"]
    options = {convert[at]: convert[at + 1] for at in range(2, len(convert) - 2, 2)}
    assert options == {"-f": "raw", "-O": "qcow2", "-T": "none", "-t": "writeback"}, "a format is never probed"
    assert convert[-2:] == ("/dev/storpool-byid/d.n.1", f"/mnt/store/{FILE}")
    left_nothing(rig)


def test_a_file_that_is_there_is_never_written_to() -> None:
    programs = Programs(there=True)
    rig = Rig(programs=programs)
    answer = back_up(rig)
    assert not answer.result and answer.error_class is ErrorClass.CONFLICT, answer
    assert [argv[1] for argv in programs.ran] == ["info"], "not even the snapshot is attached for it"
    left_nothing(rig)


def test_a_copy_that_fails_or_is_cut_short_leaves_nothing_attached() -> None:
    for programs, words in ((Programs(rc=1), "No space left"), (Programs(size=4 * MIB), "the snapshot has")):
        rig = Rig(programs=programs)
        answer = back_up(rig)
        assert not answer.result and answer.error_class is ErrorClass.TRANSIENT, answer
        assert words in answer.details
        left_nothing(rig)
