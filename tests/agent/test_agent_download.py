"""Copying an image onto a volume: formats, sizes and what stays behind; the last tests run the real qemu-img."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from agent_fakes import MIB, ClockRuntime, FakeHost, Rig

from harness.agent import qemu_img
from harness.agent.real_host import RealHost
from harness.agent.secondary import KernelMount, QemuNfs, split_store
from harness.runtime.threads import ThreadRuntime
from harness.spi.commands import AnyAnswer, CopyCmdAnswer, StorPoolDownloadTemplateCommand
from harness.spi.errors import Conflict, ErrorClass, InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.objects import DataStore, ImageFormat, StoreRole, TemplateObject
from harness.spi.ports import CommandResult, Output

STORE = DataStore(id=2, uuid="s", name="secondary", role=StoreRole.IMAGE, provider="NFS", url="nfs://10.0.0.9/export/x")
POOL = DataStore(id=1, uuid="p", name="pool", role=StoreRole.PRIMARY, provider="StorPool", url="storpool:ssd")
IMAGE = "template/tmpl/2/201/image.qcow2"
Program = Callable[[tuple[str, ...]], CommandResult]


def template(store: DataStore, path: str, image_format: ImageFormat = ImageFormat.QCOW2) -> TemplateObject:
    return TemplateObject(id=201, uuid="t", name="t", format=image_format, size=8 * MIB, store=store, path=path)


def programs(*, convert_rc: int = 0, **info: object) -> Program:
    """qemu-img whose `info` shows these fields."""
    shown = {"virtual-size": 8 * MIB, "format": "qcow2"} | {key.replace("_", "-"): value for key, value in info.items()}

    def run(argv: tuple[str, ...]) -> CommandResult:
        if argv[:2] == ("qemu-img", "info"):
            return CommandResult(argv, 0, json.dumps(shown).encode(), b"")
        return CommandResult(
            argv, convert_rc, b"", b"qemu-img: error while writing: I/O error\n" if convert_rc else b""
        )

    return run


def download(rig: Rig, size: int = 64 * MIB, image_format: ImageFormat = ImageFormat.QCOW2) -> AnyAnswer:
    path = rig.volume(0, size=size).path
    command = StorPoolDownloadTemplateCommand(
        source=template(STORE, IMAGE, image_format), destination=template(POOL, path, ImageFormat.RAW), wait=100
    )
    return rig.agent().handle(command)


def left_nothing(rig: Rig) -> None:
    assert rig.attached == set()
    assert rig.mounts == rig.unmounts


def test_a_template_is_copied_with_explicit_formats_onto_an_attached_device() -> None:
    rig = Rig()
    seen: list[tuple[str, ...]] = []
    inner = programs()

    def run(argv: tuple[str, ...]) -> CommandResult:
        seen.append(argv)
        assert (argv[1] == "convert") == ("d.n.1" in rig.attached)
        return inner(argv)

    rig.programs = run
    answer = download(rig)
    assert isinstance(answer, CopyCmdAnswer), answer
    assert (answer.path, answer.size) == ("/dev/storpool-byid/d.n.1", 8 * MIB)
    left_nothing(rig)
    info, convert = seen
    assert info[info.index("-f") + 1] == "qcow2"
    assert convert[convert.index("-f") + 1] == "qcow2"
    assert convert[convert.index("-O") + 1] == "raw"
    assert convert[convert.index("-t") + 1] == "none", "with another cache mode qemu-img would not flush"
    assert "-n" in convert
    assert convert[-2:] == (f"/mnt/store/{IMAGE}", "/dev/storpool-byid/d.n.1")


@pytest.mark.parametrize(
    ("program", "error_class", "words"),
    [
        (programs(backing_filename="/etc/shadow"), ErrorClass.PERMANENT, "backing file"),
        (programs(full_backing_filename="json:{}"), ErrorClass.PERMANENT, "backing file"),
        (programs(format_specific={"data": {"data-file": "/etc/shadow"}}), ErrorClass.PERMANENT, "data file"),
        (programs(encrypted=True), ErrorClass.PERMANENT, "encrypted"),
        (programs(virtual_size=65 * MIB), ErrorClass.PERMANENT, str(65 * MIB)),
        (programs(convert_rc=1), ErrorClass.TRANSIENT, "I/O error"),
    ],
)
def test_an_image_that_must_not_or_cannot_be_copied_leaves_nothing(
    program: Program, error_class: ErrorClass, words: str
) -> None:
    rig = Rig(programs=program)
    answer = download(rig)
    assert not answer.result
    assert answer.error_class is error_class
    assert words in answer.details
    left_nothing(rig)


@pytest.mark.parametrize("step", ["mount", "qemu-img info", "qemu-img convert", "attach d.n.1"])
@pytest.mark.parametrize("error", [Unknown("killed after 100 s"), Unavailable("gone"), Conflict("held")])
def test_a_copy_that_fails_at_any_step_leaves_nothing(step: str, error: Exception) -> None:
    rig = Rig(programs=programs())
    rig.fail(step, error, times=9)
    answer = download(rig)
    assert not answer.result
    left_nothing(rig)


def test_a_copy_that_was_killed_may_be_tried_again() -> None:
    rig = Rig(programs=programs())
    rig.fail("qemu-img convert", Unknown("killed"))
    answer = download(rig)
    assert answer.error_class is ErrorClass.TRANSIENT
    assert "100 s" in answer.details


def test_a_good_copy_stays_good_when_the_volume_cannot_be_detached() -> None:
    rig = Rig(programs=programs())
    rig.fail("detach d.n.1", Conflict("open"), times=99)
    answer = download(rig)
    assert answer.result
    assert "stays attached" in answer.details


def test_a_failed_copy_stays_the_error_when_the_volume_cannot_be_detached_either() -> None:
    rig = Rig(programs=programs(convert_rc=1))
    rig.fail("detach d.n.1", Conflict("open"), times=99)
    answer = download(rig)
    assert "I/O error" in answer.details.partition(";")[0]
    assert "may still be attached" in answer.details


@pytest.mark.parametrize(
    "path", ["", "/", "../x", "a/../../etc/shadow", "a/./b", "a,b", "a b", "a\nb", "-a", "a?uid=0"]
)
def test_no_path_leads_out_of_the_store(path: str) -> None:
    with pytest.raises(InvalidParameter), QemuNfs().file(STORE, path):
        raise AssertionError("should not get here")


@pytest.mark.parametrize("url", ["http://h/x", "nfs:///x", "nfs://h", "nfs://h/../x", "nfs://h/x?uid=0", "nfs://a b/x"])
def test_a_store_that_is_not_nfs_is_refused(url: str) -> None:
    with pytest.raises(InvalidParameter):
        split_store(DataStore(id=2, uuid="s", name="s", role=StoreRole.IMAGE, provider="NFS", url=url))


def test_qemu_reads_the_file_from_its_nfs_url() -> None:
    with QemuNfs().file(STORE, f"/{IMAGE}") as file:
        assert file == f"nfs://10.0.0.9/export/x/{IMAGE}"


class MountHost(FakeHost):
    """Runs nothing, and remembers what it was asked to run."""

    def __init__(self, *, real: str | None = None, failing: str = "") -> None:
        super().__init__(Rig())
        self.ran: list[tuple[str, ...]] = []
        self.left: tuple[str, ...] = ()
        self._real = real
        self._failing = failing

    def list_directory(self, path: str) -> tuple[str, ...]:
        assert path == "/run/mnt"
        return self.left

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float,
        operation: str | None = None,
        output: Output | None = None,  # noqa: ARG002 - the contract's signature
    ) -> CommandResult:
        assert (stdin, timeout > 0, operation) == (b"", True, None)
        asked = tuple(argv)
        self.ran.append(asked)
        if asked[0] == "realpath":
            return CommandResult(asked, 0, f"{self._real or asked[-1]}\n".encode(), b"")
        return CommandResult(asked, 32 if asked[0] == self._failing else 0, b"", b"mount.nfs: access denied\n")


def mounted(host: MountHost) -> str:
    with KernelMount(ClockRuntime(), host, "/run/mnt").file(STORE, IMAGE) as file:
        return file


def test_a_kernel_mount_is_read_only_and_always_taken_away() -> None:
    host = MountHost()
    file = mounted(host)
    target = "/run/mnt/splab-agent.00000000-0000-4000-8000-000000000001.00000000-0000-4000-8000-000000000002"
    assert file == f"{target}/{IMAGE}"
    mount = next(argv for argv in host.ran if argv[0] == "mount")
    assert mount[-2:] == ("10.0.0.9:/export/x", target)
    assert "ro" in mount[mount.index("-o") + 1].split(",")
    assert host.ran[-2:] == [("umount", target), ("rmdir", target)]


def test_a_mount_that_fails_is_transient_and_leaves_no_directory() -> None:
    host = MountHost(failing="mount")
    with pytest.raises(Unavailable, match="access denied"):
        mounted(host)
    assert host.ran[-1][0] == "rmdir"


def test_a_link_on_the_export_does_not_lead_to_a_file_of_the_host() -> None:
    host = MountHost(real="/etc/shadow")
    with pytest.raises(InvalidParameter, match="leaves the store"):
        mounted(host)
    assert host.ran[-2][0] == "umount"


def test_an_image_that_a_domain_holds_is_mounted_until_it_lets_go() -> None:
    host = MountHost()
    mount, target = KernelMount(ClockRuntime(), host, "/run/mnt"), "/run/mnt/splab-iso.i-2-7-VM"
    assert mount.hold(STORE, IMAGE, "i-2-7-VM") == f"{target}/{IMAGE}"
    options = next(argv for argv in host.ran if argv[0] == "mount")
    assert options[-1] == target and "ro" in options[options.index("-o") + 1].split(",")
    host.ran.clear()
    # The next agent knows it by the domain's name.
    KernelMount(ClockRuntime(), host, "/run/mnt").let_go("i-2-7-VM")
    assert host.ran[-2:] == [("umount", "-l", target), ("rmdir", target)]
    with pytest.raises(InvalidParameter):
        mount.hold(STORE, IMAGE, "../i-2-7-VM")


def test_an_image_that_cannot_be_held_leaves_no_mount() -> None:
    host = MountHost(real="/etc/shadow")
    with pytest.raises(InvalidParameter, match="leaves the store"):
        KernelMount(ClockRuntime(), host, "/run/mnt").hold(STORE, IMAGE, "i-2-7-VM")
    assert host.ran[-2][0] == "umount" and host.ran[-1][0] == "rmdir"


def test_a_mount_that_is_busy_is_taken_away_lazily() -> None:
    host = MountHost(failing="umount")
    mounted(host)
    assert host.ran[-2][:2] == ("umount", "-l")


def test_mounts_that_a_dead_agent_left_are_taken_away_and_those_in_use_or_of_others_are_not() -> None:
    host = MountHost()
    dead = ClockRuntime()
    dead.uuids = 100
    left = []
    for _ in range(2):
        with KernelMount(dead, host, "/run/mnt").file(STORE, IMAGE) as file:
            left.append(file.removeprefix("/run/mnt/").partition("/")[0])
    # CloudStack's own, and what only looks like one of ours.
    others = (dead.uuid(), f"{dead.uuid()}.{dead.uuid()}", "splab-agent.mine", f"{left[0]}.old", f"a.{left[0]}")
    mount = KernelMount(ClockRuntime(), host, "/run/mnt")
    with mount.file(STORE, IMAGE) as file:
        host.left = (*others, *left, file.removeprefix("/run/mnt/").partition("/")[0])
        host.ran.clear()
        mount.clean_up()
    gone = [argv for argv in host.ran if argv[0] in ("umount", "rmdir")][:4]
    assert gone == [
        ("umount", "-l", f"/run/mnt/{left[0]}"),
        ("rmdir", f"/run/mnt/{left[0]}"),
        ("umount", "-l", f"/run/mnt/{left[1]}"),
        ("rmdir", f"/run/mnt/{left[1]}"),
    ]
    assert len(host.ran) == 6, "and the one in use, once, when its use is over"


@pytest.fixture
def real_host() -> RealHost:
    if shutil.which("qemu-img") is None:
        pytest.skip("needs qemu-img (package qemu-utils)")
    return RealHost(ThreadRuntime("agent"))


def make(path: Path, *argv: str) -> str:
    subprocess.run(["qemu-img", "create", "-q", *argv], check=True)
    return str(path)


@pytest.mark.local
def test_real_images_are_read_as_what_they_are_said_to_be(real_host: RealHost, tmp_path: Path) -> None:
    base = make(tmp_path / "base.qcow2", "-f", "qcow2", str(tmp_path / "base.qcow2"), "7M")
    image = qemu_img.info(real_host, base, ImageFormat.QCOW2, 30)
    qemu_img.check_guest_image(image, base)
    assert image.virtual_size == 7 * MIB

    overlay = str(tmp_path / "overlay.qcow2")
    make(Path(overlay), "-f", "qcow2", "-F", "qcow2", "-b", base, overlay)
    with pytest.raises(InvalidParameter, match="backing file"):
        qemu_img.check_guest_image(qemu_img.info(real_host, overlay, ImageFormat.QCOW2, 30), overlay)

    split = str(tmp_path / "split.qcow2")
    make(Path(split), "-f", "qcow2", "-o", f"data_file={tmp_path}/data", split, "1M")
    with pytest.raises(InvalidParameter, match="data file"):
        qemu_img.check_guest_image(qemu_img.info(real_host, split, ImageFormat.QCOW2, 30), split)

    raw = tmp_path / "disk.raw"
    raw.write_bytes(bytes(MIB))
    with pytest.raises(InvalidParameter, match="real format"):
        qemu_img.info(real_host, str(raw), ImageFormat.QCOW2, 30)
    with pytest.raises(NotFound):
        qemu_img.info(real_host, str(tmp_path / "missing"), ImageFormat.QCOW2, 30)
    # A qcow2 header that a guest wrote onto its raw disk stays data.
    assert qemu_img.info(real_host, overlay, ImageFormat.RAW, 30).backing_filename is None


@pytest.mark.local
def test_a_real_copy_writes_the_guests_disk_and_wipes_what_was_under_it(real_host: RealHost, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root for a loop device")
    content = os.urandom(MIB) + bytes(2 * MIB) + os.urandom(MIB)
    raw = tmp_path / "raw"
    raw.write_bytes(content)
    image = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image)], check=True)
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xaa" * (6 * MIB))
    loop = ["losetup", "--find", "--show", "--direct-io=off", str(backing)]
    device = subprocess.run(loop, check=True, capture_output=True, text=True).stdout.strip()
    try:
        qemu_img.convert_to_device(real_host, str(image), ImageFormat.QCOW2, device, 60, "op-1")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    written = backing.read_bytes()
    assert written[: len(content)] == content
    assert written[len(content) :] == b"\xaa" * (2 * MIB)
