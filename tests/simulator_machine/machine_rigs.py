"""Fixtures: one rig for each kind of blocks, so that the same tests hold all of them to the `Blocks` contract."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from simulator.blocks import loop, pool
from simulator.blocks.destroy import destroy
from simulator.blocks.machine import LoopBlocks
from simulator.blocks.memory import MemoryBlocks
from simulator.ports import Blocks

POOL = 512 << 20
KINDS = ("btrfs", "xfs", "plain")


class Rig(Protocol):
    """Blocks of one kind, and what somebody else on the machine does with them."""

    kind: str
    blocks: Blocks

    def restart(self) -> Blocks:
        """The process dies and is started again; nothing was reconciled yet."""
        ...

    def hold(self, key: int, client: int) -> AbstractContextManager[None]:
        """The client has its device of the object open."""
        ...


class MemoryRig:
    kind = "memory"

    def __init__(self) -> None:
        self.memory = MemoryBlocks(POOL)
        self.blocks: Blocks = self.memory

    def restart(self) -> Blocks:
        return self.blocks

    @contextmanager
    def hold(self, key: int, client: int) -> Iterator[None]:
        self.memory.open(key, client)
        yield
        self.memory.release(key, client)


class LoopRig:
    """On loop devices over a pool of `POOL` bytes."""

    def __init__(self, state: Path, kind: str) -> None:
        self.kind = kind
        self.state = state
        self.pool_ids: set[str] = set()
        self._running = self.start()
        self.blocks: Blocks = self._running
        self.blocks.reconcile({}, {})

    def start(self) -> LoopBlocks:
        made = LoopBlocks(self.state, kind=self.kind, size=POOL)
        description = pool.describe(self.state)
        assert description is not None
        self.pool_ids.add(description.id)
        return made

    def restart(self) -> Blocks:
        self._running.close()  # what the kernel does with a dead process's descriptors
        self._running = self.start()
        self.blocks = self._running
        return self.blocks

    @property
    def root(self) -> Path:
        return self._running.root

    def file(self, key: int) -> Path:
        return self.root / str(key) / "data" if self.kind == "btrfs" else self.root / str(key)

    def objects(self) -> list[int]:
        """Every object that has a file, complete or not."""
        return sorted(int(entry.name) for entry in self._running.root.iterdir())

    def device(self, key: int, client: int) -> str:
        """Path of the device that the client has of the object, from the kernel."""
        mine = [status for status in self.devices() if status.tag.endswith(f":{key}:{client}")]
        return next(status.path for status in mine if not status.fenced)

    def devices(self) -> list[loop.Status]:
        """Devices of this rig's volumes, from the kernel."""
        return [status for pool_id in sorted(self.pool_ids) for status in pool.devices(pool_id)]

    @contextmanager
    def hold(self, key: int, client: int) -> Iterator[None]:
        descriptor = os.open(self.device(key, client), os.O_RDONLY)
        try:
            yield
        finally:
            os.close(descriptor)

    def left(self) -> list[str]:
        """What of this rig the machine has besides files: devices, and mounts."""
        devices = [f"{status.path} {status.tag}" for status in self.devices() + pool.image_devices(self.state)]
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.state) in line]
        return devices + mounts


@contextmanager
def loop_rig(state: Path, kind: str) -> Iterator[LoopRig]:
    """A rig that leaves nothing on the machine, whatever happens inside."""
    lacking = loop.missing()
    if lacking is not None:
        pytest.skip(f"loop devices need {lacking}")
    rig = None
    try:
        rig = LoopRig(state, kind)
        yield rig
    finally:
        if rig is not None:
            rig.blocks.close()
        destroy(state)
    assert rig.left() == []


@pytest.fixture(params=["memory", *(pytest.param(kind, marks=pytest.mark.local) for kind in KINDS)])
def blocks_rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """Every kind of blocks."""
    if request.param == "memory":
        yield MemoryRig()
    else:
        with loop_rig(tmp_path / "state", request.param) as made:
            yield made


@pytest.fixture(params=KINDS)
def loop_machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LoopRig]:
    """Every kind that has devices."""
    with loop_rig(tmp_path / "state", request.param) as made:
        yield made
