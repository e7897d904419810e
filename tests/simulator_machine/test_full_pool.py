"""A pool that is full, and room that comes back, as a guest's device and the API's clients see both."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulator_processes import Running, eventually, zygote

from simulator.blocks import loop
from simulator.blocks.destroy import destroy
from simulator.inprocess import ApiError

pytestmark = pytest.mark.local
MB = 1 << 20


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A simulator with the smallest pool."""
    lacking = loop.missing()
    if lacking is not None:
        pytest.skip(f"loop devices need {lacking}")
    state = tmp_path / "state"
    try:
        with zygote(state, "--pool-size", "512M") as made:
            started = made.start()
            yield started
            assert made.end(signal.SIGTERM) == 0
    finally:
        destroy(state)


def attached(running: Running, name: str, size: int) -> Path:
    running.post("VolumeCreate", {"name": name, "size": size})
    running.post("VolumesReassignWait", [{"volume": name, "rw": [1]}])
    return running.state / f"clients/1/storpool/{name}"


def fill(device: Path, byte: int, size: int) -> int:
    """Write as QEMU does with `cache=none`: how many MiB went in, and an error is raised unless it is ENOSPC."""
    chunk = mmap.mmap(-1, MB)
    chunk[:] = bytes([byte]) * MB
    descriptor = os.open(device, os.O_WRONLY | os.O_DIRECT)
    try:
        for at in range(0, size, MB):
            try:
                os.pwrite(descriptor, chunk, at)
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
                return at // MB
    finally:
        os.close(descriptor)
    return size // MB


def stored(running: Running) -> dict[str, int]:
    """MiB by volume."""
    return {entry["name"]: entry["storedSize"] // MB for entry in running.get("VolumesSpace")}


def refused(running: Running, path: str, body: object) -> None:
    before = running.get("VolumesAndSnapshotsList"), sorted(running.objects())
    with pytest.raises(ApiError) as caught:
        running.post(path, body)
    assert (caught.value.status, caught.value.name) == (507, "insufficientResources")
    assert (running.get("VolumesAndSnapshotsList"), sorted(running.objects())) == before


def test_a_full_pool_is_told_to_writer_and_client_and_both_go_on_when_there_is_room(running: Running) -> None:
    ballast, guest = attached(running, "ballast", 150 * MB), attached(running, "guest", 330 * MB)
    attached(running, "late", 100 * MB)
    assert fill(ballast, 1, 150 * MB) == 150
    went_in = fill(guest, 2, 330 * MB)
    assert 200 < went_in < 330
    for path, body in (
        ("VolumeCreate", {"name": "new", "size": MB}),
        ("VolumeCreate", {"name": "new", "baseOn": "ballast"}),
        ("VolumeSnapshot/ballast", {"name": "new"}),
        ("VolumesGroupSnapshot", {"volumes": [{"volume": "ballast"}, {"volume": "guest"}]}),
    ):
        refused(running, path, body)
    # A writer through the page cache hears of it at the sync; of today's kernels only that it failed.
    with (running.state / "clients/1/storpool/late").open("wb", buffering=0) as late:
        late.write(b"x" * 16 * MB)
        with pytest.raises(OSError) as told:
            os.fsync(late.fileno())
    assert told.value.errno in (errno.EIO, errno.ENOSPC)
    # What was written stays, and may be written over.
    assert fill(guest, 3, went_in * MB) == went_in
    with guest.open("rb") as content:
        assert content.read(went_in * MB) == b"\3" * went_in * MB
    running.post("VolumeDelete/ballast", {"onAttached": "detach"})
    eventually("there is room", lambda: fill(guest, 4, 330 * MB) == 330)
    running.post("VolumeCreate", {"name": "new", "size": MB})
    assert stored(running)["guest"] == 330


def test_what_a_guest_discards_is_room_for_others(running: Running) -> None:
    guest = attached(running, "guest", 300 * MB)
    assert fill(guest, 1, 300 * MB) == 300
    assert fill(attached(running, "other", 300 * MB), 1, 300 * MB) < 300
    subprocess.run(["blkdiscard", "--length", str(200 * MB), str(guest)], check=True, timeout=60)
    assert stored(running)["guest"] == 100
    eventually("there is room", lambda: fill(running.state / "clients/1/storpool/other", 2, 300 * MB) == 300)
    with guest.open("rb") as content:
        content.seek(199 * MB)
        assert content.read(2 * MB) == bytes(MB) + b"\1" * MB


def test_fstrim_in_a_guest_frees_what_its_file_system_does_not_use(running: Running) -> None:
    guest = attached(running, "guest", 256 * MB)

    def inside(script: str) -> None:
        """With the guest's file system mounted where nobody else sees it."""
        mounted = f'mount "$0" /mnt && {{ {script}; }} && umount /mnt'
        words = ["unshare", "--mount", "sh", "-ec", mounted, str(guest.resolve())]
        subprocess.run(words, check=True, timeout=60, capture_output=True)

    subprocess.run(["mkfs.ext4", "-q", str(guest)], check=True, timeout=60)
    inside("head -c 128M /dev/zero | tr '\\0' x > /mnt/file")
    before = stored(running)["guest"]
    inside("rm /mnt/file")
    assert before > 128 and stored(running)["guest"] >= before
    inside("fstrim /mnt")
    assert stored(running)["guest"] < before - 120
