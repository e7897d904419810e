"""What only real devices can show: what a host sees of an attached object, and what a forced detach does to it."""

from __future__ import annotations

import mmap
import os
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from simulator.blocks import loop, machine
from simulator.blocks.destroy import destroy
from simulator.blocks.links import client_directories
from simulator.blocks.machine import LoopBlocks
from simulator.blocks.openers import Opener
from simulator.ports import BlocksError, DeviceBusy, Links

if TYPE_CHECKING:
    from machine_rigs import LoopRig

pytest_plugins = ("machine_rigs",)
pytestmark = pytest.mark.local

MB = 1 << 20
HERE = Links(1, ("v1",), ("l.c.1",))
THERE = Links(2, (), ("l.c.1",))


def size_of(descriptor: int) -> int:
    return os.lseek(descriptor, 0, os.SEEK_END)


def block(text: bytes) -> mmap.mmap:
    """A page that is aligned as direct I/O wants it."""
    page = mmap.mmap(-1, 4096)
    page.write(text.ljust(4096, b"."))
    return page


def test_a_client_sees_a_block_device_of_the_right_size_through_symlinks(loop_machine: LoopRig) -> None:
    loop_machine.blocks.create(1, 3 * MB + 512)
    path = loop_machine.blocks.attach(1, HERE, read_only=False)
    by_name, by_id = client_directories(loop_machine.state, 1)
    for link in (by_name / "v1", by_id / "l.c.1"):
        assert link.is_symlink() and link.resolve() == Path(path)
        assert stat.S_ISBLK(link.stat().st_mode)
    descriptor = os.open(by_id / "l.c.1", os.O_RDWR | os.O_DIRECT)
    try:
        assert size_of(descriptor) == 3 * MB + 512
        os.pwrite(descriptor, block(b"by the guest"), 512)
        loop_machine.blocks.resize(1, 5 * MB)
        assert size_of(descriptor) == 5 * MB
    finally:
        os.close(descriptor)
    assert loop_machine.blocks.read(1, 512, 12) == b"by the guest"
    loop_machine.blocks.write(1, 512, b"by the store")
    assert Path(path).read_bytes()[512:524] == b"by the store"


def test_devices_use_direct_io_and_512_byte_sectors(loop_machine: LoopRig) -> None:
    loop_machine.blocks.create(1, MB)
    path = loop_machine.blocks.attach(1, HERE, read_only=False)
    queue = Path("/sys/block") / Path(path).name / "queue"
    assert (queue / "logical_block_size").read_text().strip() == "512"
    assert (queue.parent / "loop/dio").read_text().strip() == "1"


def test_two_clients_have_devices_of_their_own_that_show_each_others_writes(loop_machine: LoopRig) -> None:
    loop_machine.blocks.create(1, MB)
    here = os.open(loop_machine.blocks.attach(1, HERE, read_only=False), os.O_RDWR | os.O_DIRECT)
    there = os.open(loop_machine.blocks.attach(1, THERE, read_only=False), os.O_RDWR | os.O_DIRECT)
    try:
        os.pwrite(here, block(b"from here"), 4096)
        page = mmap.mmap(-1, 4096)
        os.preadv(there, [page], 4096)
        assert page[:9] == b"from here"
    finally:
        os.close(here)
        os.close(there)


def test_a_read_only_client_cannot_write_and_rights_change_with_the_next_attach(loop_machine: LoopRig) -> None:
    loop_machine.blocks.create(1, MB)
    path = loop_machine.blocks.attach(1, HERE, read_only=True)
    descriptor = os.open(path, os.O_RDWR)
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"x" * 4096, 0)
    os.close(descriptor)
    path = loop_machine.blocks.attach(1, HERE, read_only=False)
    descriptor = os.open(client_directories(loop_machine.state, 1)[1] / "l.c.1", os.O_RDWR)
    with pytest.raises(DeviceBusy, match=rf"is open at client 1: .*\(pid {os.getpid()}\)"):
        loop_machine.blocks.attach(1, HERE, read_only=True)
    os.close(descriptor)
    assert loop_machine.blocks.attach(1, HERE, read_only=True) != path
    assert len(loop_machine.devices()) == 1


def test_links_follow_a_new_name_and_never_take_one_that_another_object_has_now(loop_machine: LoopRig) -> None:
    blocks = loop_machine.blocks
    blocks.create(1, MB)
    blocks.create(2, MB)
    first = blocks.attach(1, Links(1, ("old",), ("l.c.1",)), read_only=False)
    second = blocks.attach(2, Links(1, ("old",), ("l.c.2",)), read_only=False)
    by_name, by_id = client_directories(loop_machine.state, 1)
    assert blocks.attach(1, Links(1, ("new",), ("l.c.1",)), read_only=False) == first
    assert {link.name: str(link.readlink()) for link in by_name.iterdir()} == {"old": second, "new": first}
    blocks.detach(1, 1, force=False)
    assert [link.name for link in (*by_name.iterdir(), *by_id.iterdir())] == ["old", "l.c.2"]


@pytest.mark.parametrize("name", ["../x", "", ".", "a/b"])
def test_a_name_that_would_leave_the_clients_directory_is_refused(loop_machine: LoopRig, name: str) -> None:
    loop_machine.blocks.create(1, MB)
    with pytest.raises(BlocksError, match="cannot be the name of a device"):
        loop_machine.blocks.attach(1, Links(1, (name,), ("l.c.1",)), read_only=False)
    assert loop_machine.devices() == []


def test_a_busy_detach_changes_nothing_and_names_who_has_the_device_open(loop_machine: LoopRig) -> None:
    loop_machine.blocks.create(1, MB)
    path = loop_machine.blocks.attach(1, HERE, read_only=False)
    program = "import sys, os; os.open(sys.argv[1], os.O_RDWR); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == "open\n"
        with pytest.raises(DeviceBusy, match=rf"is open at client 1: python.* \(pid {child.pid}\)"):
            loop_machine.blocks.detach(1, 1, force=False)
        child.stdin.close()
        child.wait(timeout=10)
    assert size_of_path(client_directories(loop_machine.state, 1)[1] / "l.c.1") == MB
    loop_machine.blocks.detach(1, 1, force=False)
    assert list(client_directories(loop_machine.state, 1)[1].iterdir()) == []


def size_of_path(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return size_of(descriptor)
    finally:
        os.close(descriptor)


def test_a_mounted_device_is_busy_although_no_process_has_it_open(loop_machine: LoopRig, tmp_path: Path) -> None:
    loop_machine.blocks.create(1, 16 * MB)
    path = loop_machine.blocks.attach(1, HERE, read_only=False)
    subprocess.run(["mkfs.ext4", "-q", path], check=True, timeout=60)
    (tmp_path / "mnt").mkdir()
    subprocess.run(["mount", path, tmp_path / "mnt"], check=True, timeout=60)
    try:
        with pytest.raises(DeviceBusy, match="a mount or a driver of the kernel"):
            loop_machine.blocks.detach(1, 1, force=False)
    finally:
        subprocess.run(["umount", tmp_path / "mnt"], check=True, timeout=60)
    loop_machine.blocks.detach(1, 1, force=False)


def test_after_a_forced_detach_a_host_that_hung_can_no_longer_write(loop_machine: LoopRig) -> None:
    """Direct and buffered writers: nothing of what they write afterwards reaches the volume."""
    blocks = loop_machine.blocks
    blocks.create(1, MB)
    path = blocks.attach(1, HERE, read_only=False)
    direct, buffered = os.open(path, os.O_RDWR | os.O_DIRECT), os.open(path, os.O_RDWR)
    try:
        os.pwrite(direct, block(b"before"), 0)
        os.pwrite(buffered, b"dirty" * 100, 8192)
        blocks.detach(1, 1, force=True)
        there = blocks.attach(1, THERE, read_only=False)
        with pytest.raises(OSError):
            os.pwrite(direct, block(b"late"), 0)
        with pytest.raises(OSError):
            os.pwrite(buffered, b"late" * 1024, 4096)
            os.fsync(buffered)
        assert there != path
        assert blocks.read(1, 0, 6) == b"before" and blocks.read(1, 4096, 4) == bytes(4)
        blocks.detach(1, 2, force=False)
        blocks.delete(1)
    finally:
        os.close(direct)
        os.close(buffered)
    assert loop_machine.devices() == []


def test_a_device_that_somebody_else_took_away_is_made_again_and_never_mistaken(loop_machine: LoopRig) -> None:
    blocks = loop_machine.blocks
    blocks.create(1, MB)
    blocks.create(2, MB)
    lost = blocks.attach(1, HERE, read_only=False)
    subprocess.run(["losetup", "-d", lost], check=True, timeout=10)
    other = blocks.attach(2, THERE, read_only=False)
    assert other == lost
    mine = blocks.attach(1, HERE, read_only=False)
    assert mine != other
    blocks.detach(1, 1, force=True)
    assert [status.path for status in loop_machine.devices()] == [other]


def test_a_clone_of_a_device_in_use_is_what_was_on_the_device_at_that_moment(loop_machine: LoopRig) -> None:
    blocks = loop_machine.blocks
    blocks.create(1, MB)
    device = os.open(blocks.attach(1, HERE, read_only=False), os.O_RDWR | os.O_DIRECT)
    try:
        os.pwrite(device, block(b"one"), 0)
        blocks.clone(1, 2, MB)
        os.pwrite(device, block(b"two"), 0)
    finally:
        os.close(device)
    path = blocks.attach(2, Links(1, (), ("l.c.2",)), read_only=True)
    assert Path(path).read_bytes()[:3] == b"one"


@pytest.mark.parametrize("stays", [False, True], ids=["one look", "a user"])
def test_another_simulator_that_looks_at_a_device_does_not_make_it_busy(
    loop_machine: LoopRig, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    blocks = loop_machine.blocks
    blocks.create(1, MB)
    held = [os.open(blocks.attach(1, HERE, read_only=False), os.O_RDONLY)]

    def looked_for(_device: str) -> list[Opener]:
        """Whoever only looks has gone when the next one asks."""
        met = [Opener(4194303, "python")] if held else []
        if held and not stays:
            os.close(held.pop())
        return met

    monkeypatch.setattr(machine, "openers", looked_for)
    with pytest.raises(DeviceBusy) if stays else nullcontext():
        blocks.detach(1, 1, force=False)
    assert bool(loop_machine.devices()) == stays
    for device in held:
        os.close(device)


def test_what_a_guest_discards_is_free_again(loop_machine: LoopRig) -> None:
    blocks = loop_machine.blocks
    blocks.create(1, 64 * MB)
    blocks.write(1, 0, b"x" * 32 * MB)
    path = blocks.attach(1, HERE, read_only=False)
    subprocess.run(["blkdiscard", path], check=True, timeout=60)
    assert blocks.stored(1) == 0
    assert Path(path).read_bytes()[:MB] == bytes(MB)


@pytest.mark.parametrize("loop_machine", ["btrfs", "xfs"], indirect=True)
def test_closing_unmounts_the_pool_only_when_nothing_is_attached(loop_machine: LoopRig) -> None:
    loop_machine.blocks.create(1, MB)
    path = loop_machine.blocks.attach(1, HERE, read_only=False)
    loop_machine.blocks.close()
    assert size_of_path(Path(path)) == MB
    blocks = loop_machine.restart()
    assert blocks.reconcile({1: MB}, {1: [(HERE, False)]}) == []
    blocks.detach(1, 1, force=False)
    blocks.close()
    assert loop_machine.left() == []


def test_a_start_keeps_a_device_that_a_killed_detach_had_marked_to_go(loop_machine: LoopRig) -> None:
    blocks = loop_machine.blocks
    blocks.create(1, MB)
    path = blocks.attach(1, HERE, read_only=False)
    with loop_machine.hold(1, 1):
        marked = loop_machine.devices()[0]
        loop.clear(marked.number, marked.tag, force=True)
        blocks = loop_machine.restart()
        assert blocks.reconcile({1: MB}, {1: [(HERE, False)]}) == []
    assert loop_machine.device(1, 1) == path


def test_a_start_replaces_a_device_over_a_file_that_is_no_longer_the_objects(loop_machine: LoopRig) -> None:
    blocks = loop_machine.blocks
    blocks.create(1, MB)
    stale = blocks.attach(1, HERE, read_only=False)
    loop_machine.file(1).rename(loop_machine.file(1).with_suffix(".old"))
    loop_machine.file(1).write_bytes(b"restored".ljust(MB, b"\0"))
    loop_machine.file(1).with_suffix(".old").unlink()
    with loop_machine.hold(1, 1):
        blocks = loop_machine.restart()
        assert any(stale in line for line in blocks.reconcile({1: MB}, {1: [(HERE, False)]}))
        assert loop_machine.device(1, 1) != stale
    assert (client_directories(loop_machine.state, 1)[1] / "l.c.1").read_bytes()[:8] == b"restored"
    assert len(loop_machine.devices()) == 1


def test_what_an_interrupted_clone_left_is_neither_used_nor_kept(loop_machine: LoopRig) -> None:
    blocks = loop_machine.blocks
    blocks.create(1, MB)
    blocks.write(1, 0, b"whole")
    root = loop_machine.root
    for key in (2, 3):
        blocks.create(key, MB)
        (root / str(key)).rename(root / f".new-{key}")
    blocks.clone(1, 2, MB)
    assert blocks.read(2, 0, 5) == b"whole"
    assert loop_machine.restart().reconcile({1: MB, 2: MB}, {}) == ["removed .new-3, left by an interrupted create"]
    assert loop_machine.objects() == [1, 2]


def test_after_a_reboot_everything_is_attached_again(loop_machine: LoopRig) -> None:
    blocks = loop_machine.blocks
    blocks.create(1, MB)
    blocks.write(1, 0, b"kept")
    blocks.attach(1, HERE, read_only=False)
    blocks.attach(1, THERE, read_only=True)
    for status in loop_machine.devices():
        subprocess.run(["losetup", "-d", status.path], check=True, timeout=10)
    wanted = {1: [(HERE, False), (THERE, True)]}
    assert len(loop_machine.restart().reconcile({1: MB}, wanted)) == 2
    for client in (1, 2):
        assert (client_directories(loop_machine.state, client)[1] / "l.c.1").read_bytes()[:4] == b"kept"
    assert loop_machine.restart().reconcile({1: MB}, wanted) == []


def test_a_mount_namespace_made_meanwhile_does_not_keep_the_pool(loop_machine: LoopRig) -> None:
    """Hosts of a lab are such namespaces, and they outlive the simulator."""
    with subprocess.Popen(
        ["unshare", "--mount", sys.executable, "-c", "print('there', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as namespace:
        assert namespace.stdout is not None and namespace.stdout.readline() == "there\n"
        loop_machine.blocks.create(1, MB)
        loop_machine.blocks.close()
        assert loop_machine.left() == []
        namespace.kill()


def test_destroy_names_who_keeps_it_from_removing_and_finishes_when_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = loop.missing()
    if lacking is not None:
        pytest.skip(f"loop devices need {lacking}")
    monkeypatch.setattr("simulator.blocks.destroy._SETTLE_SECONDS", 0.2)
    state = tmp_path / "state"
    blocks = LoopBlocks(state, size=512 * MB)
    try:
        blocks.reconcile({}, {})
        blocks.create(1, MB)
        held = os.open(blocks.attach(1, HERE, read_only=False), os.O_RDWR)
        try:
            with pytest.raises(BlocksError, match=rf"cannot be removed yet.*pid {os.getpid()}"):
                destroy(state)
            with pytest.raises(OSError):
                os.pwrite(held, b"x" * 4096, 0)
            assert (state / "pool.img").exists()
        finally:
            os.close(held)
        blocks.close()
        assert len(destroy(state)) >= 3
        assert list(state.iterdir()) == []
        assert destroy(state) == []
    finally:
        destroy(state)


def test_without_root_the_error_names_it_and_the_way_without_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(BlocksError, match=r"root.*--blocks memory"):
        LoopBlocks(tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_pool_keeps_its_kind_and_falls_back_to_what_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = loop.missing()
    if lacking is not None:
        pytest.skip(f"loop devices need {lacking}")
    state = tmp_path / "state"
    monkeypatch.setattr("simulator.blocks.pool.program", lambda _name: None)
    try:
        assert LoopBlocks(state, size=512 * MB).kind == "plain"
        monkeypatch.undo()
        assert LoopBlocks(state, size=512 * MB).kind == "plain"
        with pytest.raises(BlocksError, match="holds a plain pool, not btrfs"):
            LoopBlocks(state, kind="btrfs")
    finally:
        destroy(state)
