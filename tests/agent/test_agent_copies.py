"""Snapshots and volumes to and from files: formats, a file that is there already, and what stays behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from agent_fakes import MIB, FakeSecondary, Rig

from harness.agent.domain_xml import disk_xml, read_disks
from harness.agent.operations import Kind
from harness.spi.commands import (
    AnyAnswer,
    CopyCmdAnswer,
    CreateObjectCommand,
    ModifyStoragePoolCommand,
    StorPoolBackupSnapshotCommand,
    StorPoolBackupTemplateFromSnapshotCommand,
    StorPoolCopyVolumeToSecondaryCommand,
    StorPoolDownloadVolumeCommand,
    ToSecondary,
)
from harness.spi.errors import ErrorClass, NotFound
from harness.spi.objects import (
    DataStore,
    Disk,
    ImageFormat,
    SnapshotObject,
    StoreRole,
    TemplateObject,
    VolumeObject,
    VolumeType,
)
from harness.spi.ports import CommandResult

NFS = DataStore(
    id=2, uuid="s", name="nfs", role=StoreRole.PRIMARY, provider="DefaultPrimary", url="nfs://10.0.0.9/export/primary"
)
SECONDARY = DataStore(
    id=3, uuid="i", name="secondary", role=StoreRole.IMAGE, provider="NFS", url="nfs://10.0.0.9/export/secondary"
)
POOL = DataStore(id=1, uuid="p", name="pool", role=StoreRole.PRIMARY, provider="StorPool", url="storpool:ssd")
FILE = "0f-file"


def volume(store: DataStore, path: str, size: int = 8 * MIB) -> VolumeObject:
    image = ImageFormat.QCOW2 if store is NFS else ImageFormat.RAW
    return VolumeObject(
        id=1, uuid="v", name="v", type=VolumeType.DATADISK, size=size, store=store, path=path, format=image
    )


class Programs:
    """qemu-img beside one file, which is there from the first or once it was written."""

    def __init__(self, *, there: bool = False, size: int = 8 * MIB, rc: int = 0, said: str = "No such file") -> None:
        self.there = there
        self.size = size
        self.rc = rc
        self.said = said
        self.ran: list[tuple[str, ...]] = []

    def __call__(self, argv: tuple[str, ...]) -> CommandResult:
        self.ran.append(argv)
        if argv[1] in ("convert", "create"):
            self.there = True
            return CommandResult(argv, self.rc, b"", b"qemu-img: No space left on device\n" if self.rc else b"")
        if not self.there:
            return CommandResult(argv, 1, b"", f"qemu-img: Could not open: {self.said}\n".encode())
        shown = {"virtual-size": self.size, "format": "qcow2", "actual-size": 4096}
        return CommandResult(argv, 0, json.dumps(shown).encode(), b"")

    def options(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """Of the one convert, and its two files."""
        (argv,) = [argv for argv in self.ran if argv[1] == "convert"]
        words = [word for word in argv[2:-2] if word not in ("-n", "-p")]
        return dict(zip(words[::2], words[1::2], strict=True)), argv[-2:]


def snapshot(store: DataStore, path: str) -> SnapshotObject:
    return SnapshotObject(id=7, uuid="u", name="s", volume=volume(POOL, path), size=8 * MIB, store=store, path=path)


def template(path: str) -> TemplateObject:
    return TemplateObject(id=9, uuid="t", name="t", format=ImageFormat.QCOW2, size=8 * MIB, store=SECONDARY, path=path)


UPLOADS: dict[str, Callable[[str], ToSecondary]] = {
    "backup": lambda path: StorPoolBackupSnapshotCommand(
        source=snapshot(POOL, path), destination=snapshot(SECONDARY, FILE), wait=100
    ),
    "template": lambda path: StorPoolBackupTemplateFromSnapshotCommand(
        source=snapshot(POOL, path), destination=template(FILE), wait=100
    ),
    "volume": lambda path: StorPoolCopyVolumeToSecondaryCommand(
        source=volume(POOL, path), destination=volume(NFS, FILE), wait=100
    ),
}
"""What a StorPool snapshot at a path is copied to a file as."""


def upload(rig: Rig, what: str) -> AnyAnswer:
    return rig.agent().handle(UPLOADS[what](rig.volume(0, size=8 * MIB).path))


def download(rig: Rig, size: int = 8 * MIB) -> AnyAnswer:
    target = volume(POOL, rig.volume(0, size=size).path, size)
    return rig.agent().handle(StorPoolDownloadVolumeCommand(source=volume(NFS, FILE), destination=target, wait=100))


def left_nothing(rig: Rig) -> None:
    assert rig.attached == set()
    assert rig.mounts == rig.unmounts


@pytest.mark.parametrize("what", UPLOADS)
def test_a_device_is_read_as_raw_whatever_its_guest_wrote_and_written_with_a_flush(what: str) -> None:
    programs = Programs()
    rig = Rig(programs=programs)
    answer = upload(rig, what)
    assert isinstance(answer, CopyCmdAnswer) and answer.result, answer
    assert (answer.path, answer.size, answer.physical_size) == (FILE, 8 * MIB, 4096)
    options, files = programs.options()
    assert options == {"-f": "raw", "-O": "qcow2", "-T": "none", "-t": "writeback"}, "a format is never probed"
    assert files == ("/dev/storpool-byid/d.n.1", f"/mnt/store/{FILE}")
    left_nothing(rig)


def test_a_file_is_read_as_what_its_record_says_and_written_past_the_page_cache() -> None:
    programs = Programs(there=True)
    rig = Rig(programs=programs)
    answer = download(rig)
    assert answer.result, answer
    options, files = programs.options()
    assert options == {"-f": "qcow2", "-O": "raw", "-t": "none"}
    assert files == (f"/mnt/store/{FILE}", "/dev/storpool-byid/d.n.1")
    left_nothing(rig)


@pytest.mark.parametrize("what", UPLOADS)
def test_a_file_that_is_there_is_never_written_to(what: str) -> None:
    programs = Programs(there=True)
    rig = Rig(programs=programs)
    answer = upload(rig, what)
    assert not answer.result and answer.error_class is ErrorClass.CONFLICT, answer
    assert [argv[1] for argv in programs.ran] == ["info"], "not even the snapshot is attached for it"
    left_nothing(rig)


def test_a_file_that_is_gone_is_not_copied_from_a_second_time() -> None:
    rig = Rig(programs=Programs())
    answer = download(rig)
    assert not answer.result and "missing" in answer.details, answer
    left_nothing(rig)


@pytest.mark.parametrize("what", UPLOADS)
@pytest.mark.parametrize(("rc", "size", "words"), [(1, 8, "No space left"), (0, 4, "but the snapshot has")])
def test_an_upload_that_fails_or_is_cut_short_leaves_nothing_attached(
    what: str, rc: int, size: int, words: str
) -> None:
    rig = Rig(programs=Programs(rc=rc, size=size * MIB))
    answer = upload(rig, what)
    assert not answer.result and answer.error_class is ErrorClass.TRANSIENT, answer
    assert words in answer.details
    left_nothing(rig)


def test_a_volume_that_is_too_small_is_not_written_to() -> None:
    programs = Programs(there=True)
    rig = Rig(programs=programs)
    answer = download(rig, size=4 * MIB)
    assert not answer.result and "has only 4194304" in answer.details, answer
    assert [argv[1] for argv in programs.ran] == ["info"]
    left_nothing(rig)


def test_a_new_volume_is_made_once_and_left_alone_after_that() -> None:
    programs = Programs()
    agent = Rig(programs=programs).agent()
    command = CreateObjectCommand(volume=volume(NFS, FILE), wait=100)
    assert agent.handle(command).result and agent.handle(command).result
    assert [argv for argv in programs.ran if argv[1] == "create"] == [
        ("qemu-img", "create", "-q", "-f", "qcow2", f"/mnt/store/{FILE}", str(8 * MIB))
    ]
    programs.size = MIB
    assert agent.handle(command).error_class is ErrorClass.CONFLICT, "another file has its name"


@pytest.mark.parametrize(("said", "reached"), [("No such file", True), ("Failed to mount NFS share", False)])
def test_a_pool_is_reached_when_its_server_answers(said: str, reached: bool) -> None:
    answer = Rig(programs=Programs(said=said)).agent().handle(ModifyStoragePoolCommand(pool=NFS, wait=100))
    assert answer.result is reached, answer


class Mounts(FakeSecondary):
    """As kernel mounts are: each has a name of its own, and a file that is read must be there."""

    def __init__(self, rig: Rig, programs: Programs) -> None:
        super().__init__(rig)
        self._programs = programs
        self._made = 0

    @contextmanager
    def file(self, store: DataStore, path: str) -> Iterator[str]:
        with self.new_file(store, path) as name:
            if not self._programs.there:
                raise NotFound(f"{path} does not exist on image store {store.name}")
            yield name

    @contextmanager
    def new_file(self, store: DataStore, path: str) -> Iterator[str]:
        self._made += 1
        with super().file(store, path) as name:
            yield f"/{self._made}{name}"


def test_a_pool_is_reached_by_a_mount_too() -> None:
    rig = Rig()
    answer = rig.agent(Mounts(rig, Programs())).handle(ModifyStoragePoolCommand(pool=NFS, wait=100))
    assert answer.result, answer


def test_a_volume_that_is_being_made_is_not_made_at_the_same_time_by_another_mount() -> None:
    programs = Programs()
    rig = Rig()
    agent = rig.agent(Mounts(rig, programs))
    meanwhile: list[AnyAnswer] = []

    def run(argv: tuple[str, ...]) -> CommandResult:
        if argv[1] == "create":
            rig.programs = programs
            meanwhile.append(agent.handle(CreateObjectCommand(volume=volume(NFS, FILE), wait=10)))
        return programs(argv)

    rig.programs = run
    assert agent.handle(CreateObjectCommand(volume=volume(NFS, FILE), wait=100)).result
    assert [answer.error_class for answer in meanwhile] == [ErrorClass.CONFLICT]


def test_a_disk_on_nfs_is_what_it_is_read_back_as() -> None:
    disk = Disk(
        path=f"{NFS.url}/{FILE}",
        serial="abc",
        device_id=1,
        size=MIB,
        type=VolumeType.DATADISK,
        format=ImageFormat.QCOW2,
    )
    (shown,) = read_disks(f"<domain><devices>{disk_xml(disk)}</devices></domain>")
    assert (shown.source, shown.target, shown.serial, shown.format) == (disk.path, "vdb", "abc", "qcow2")


@pytest.mark.parametrize("rc", [0, 1])
@pytest.mark.parametrize("what", UPLOADS)
def test_a_late_attach_of_a_snapshot_is_taken_off_whatever_became_of_its_copy(what: str, rc: int) -> None:
    rig = Rig(programs=Programs(rc=rc))
    assert upload(rig, what).result is (rc == 0)
    assert [record.kind for record in rig.records()] == [Kind.LATE_ATTACH]
