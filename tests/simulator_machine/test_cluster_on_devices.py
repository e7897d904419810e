"""The machine of all calls (tests/simulator_core/cluster_machine.py) over loop devices and a journal in a file."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from cluster_machine import PAGE, Everything, Subject
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from machine_rigs import LoopRig, loop_rig

from simulator.blocks import loop
from simulator.inprocess import TOKEN, InProcess
from simulator.journal.file import FileJournal
from simulator.service import Service

pytestmark = [pytest.mark.local, pytest.mark.timeout(1800)]
EXAMPLES = 300 if os.environ.get("SPLAB_COUNTS") == "full" else 40
STEPS = 30


class OnFiles(InProcess):
    """As `InProcess`; each start takes what the kernel and the disk have."""

    def __init__(self, rig: LoopRig) -> None:
        self._rig = rig
        self._file: FileJournal | None = None
        (rig.state / "journal").unlink(missing_ok=True)
        super().__init__()

    def _start(self) -> Service:
        if self._file is not None:
            self._file.close()
        self._file = FileJournal(self._rig.state / "journal")
        return Service(self._rig.restart(), self._file, self.settings, lambda: self.time, TOKEN)


class OnDevices:
    """Clients read and write through their devices where they have any."""

    def __init__(self, rig: LoopRig) -> None:
        self._rig = rig
        self._open: dict[tuple[int, int], int] = {}
        self.simulator = OnFiles(rig)

    def read(self, number: int, length: int) -> bytes:
        content = self._rig.blocks.read(number, 0, length)
        for status in self._devices(number):
            descriptor = os.open(status.path, os.O_RDONLY | os.O_DIRECT)
            buffer = mmap.mmap(-1, length)
            try:
                assert os.lseek(descriptor, 0, os.SEEK_END) == length
                assert os.preadv(descriptor, [buffer], 0) == length and buffer[:length] == content
            finally:
                os.close(descriptor)
        return content

    def write(self, number: int, offset: int, data: bytes) -> None:
        writable = [status for status in self._devices(number) if not status.read_only]
        if not writable:
            self._rig.blocks.write(number, offset, data)
            return
        descriptor = os.open(writable[0].path, os.O_WRONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, len(data))
        buffer[:] = data
        try:
            assert os.pwrite(descriptor, buffer, offset) == len(data)
        finally:
            os.close(descriptor)

    def open(self, number: int, client: int) -> None:
        self._open[number, client] = os.open(self._rig.device(number, client), os.O_RDONLY)

    def release(self, number: int, client: int) -> None:
        descriptor = self._open.pop((number, client), None)
        if descriptor is not None:
            os.close(descriptor)

    def objects(self) -> set[int]:
        return set(self._rig.objects())

    def opened(self) -> set[int]:
        """What a forced detach fenced holds no object."""
        return set()

    def attached(self, client: int) -> Mapping[int, str]:
        # A reader's device that became writable leaves when he closes it, and one that was fenced too.
        devices = {status.path: status for status in self._rig.devices() if not (status.fenced or status.leaving)}
        folder = self._rig.state / f"clients/{client}/storpool-byid"
        linked = {str(link.readlink()) for link in folder.iterdir()} if folder.exists() else set()
        mine = {path: status for path, status in devices.items() if status.tag.endswith(f":{client}")}
        assert set(mine) == linked
        return {int(status.tag.split(":")[2]): "ro" if status.read_only else "rw" for status in mine.values()}

    def used(self) -> tuple[int, int]:
        """The file system's own tables count too, and what was deleted until it wakes."""
        all_bytes, free = self._rig.blocks.capacity()
        return 0, all_bytes - free

    def stored(self, data: bytes) -> tuple[int, int]:
        """Pages that are not all zeroes; each page that was written takes room."""
        pages = sum(any(data[at : at + PAGE]) for at in range(0, len(data), PAGE))
        return min(len(data), pages * PAGE), -(-len(data) // PAGE) * PAGE

    def end(self) -> None:
        """Close what is still open; then nobody has a device any more."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        assert [status for status in self._rig.devices() if not status.leaving] == []

    def _devices(self, number: int) -> list[loop.Status]:
        return [
            status for status in self._rig.devices() if status.tag.split(":")[2] == str(number) and not status.fenced
        ]


def test_any_sequence_of_calls_on_loop_devices(tmp_path: Path) -> None:
    with loop_rig(tmp_path / "state", "btrfs") as rig:

        class OnLoops(Everything):
            def subject(self) -> Subject:
                self.devices = OnDevices(rig)
                return self.devices

            def teardown(self) -> None:
                try:
                    super().teardown()
                finally:
                    with suppress(AttributeError):
                        self.devices.end()

        run_state_machine_as_test(
            OnLoops,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                # Devices are too slow to look for the shortest way to a failure.
                phases=[Phase.explicit, Phase.generate],
                database=None,
            ),
        )
