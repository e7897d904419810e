"""A client of one cluster has a device that leads to a volume of another (spec 7.6)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.blocks import loop
from simulator.blocks.destroy import destroy
from simulator.blocks.links import client_directories
from simulator.blocks.machine import LoopBlocks
from simulator.ports import BlocksError, Links, foreign_client

pytestmark = pytest.mark.local
MB = 1 << 20
GUEST = Links(foreign_client(1, 2), (), ("aa.c.1",), "aa.b")
"""Client 2 of the cluster aa.b, as cluster aa.c sees it."""


class Pair:
    """`home` has the volume, `guest` the client."""

    def __init__(self, path: Path) -> None:
        self.states = {"aa.b": path / "guest", "aa.c": path / "home"}
        self.start()
        for one in (self.guest, self.home):
            one.reconcile({}, {})

    def start(self) -> None:
        self.guest, self.home = (LoopBlocks(state, kind="btrfs", size=512 * MB) for state in self.states.values())
        for one in (self.guest, self.home):
            one.neighbours = self.states

    def kill(self) -> None:
        for one in (self.guest, self.home):
            one.close()

    @property
    def device(self) -> Path:
        return client_directories(self.states["aa.b"], 2)[1] / "aa.c.1"

    def read(self) -> bytes:
        descriptor = os.open(self.device, os.O_RDONLY)
        try:
            return os.read(descriptor, 5)
        finally:
            os.close(descriptor)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    lacking = loop.missing()
    if lacking is not None:
        pytest.skip(f"loop devices need {lacking}")
    made = Pair(tmp_path)
    yield made
    made.kill()
    for state in made.states.values():
        destroy(state)


@pytest.mark.parametrize("first", ["home", "guest"])
def test_it_survives_a_restart_of_both_whichever_comes_first(pair: Pair, first: str) -> None:
    pair.home.create(1, MB)
    pair.home.write(1, 0, b"hello")
    pair.home.attach(1, GUEST, read_only=False)
    assert pair.read() == b"hello"
    pair.kill()
    pair.start()
    attached = {1: [(GUEST, False)]}
    mended: list[str] = []
    for name in (first, "guest" if first == "home" else "home"):
        mended += pair.home.reconcile({1: MB}, attached) if name == "home" else pair.guest.reconcile({}, {})
    assert mended == []
    assert pair.read() == b"hello"
    # Restored as if it had never been attached, nothing of it is left.
    pair.kill()
    pair.start()
    for name in (first, "guest" if first == "home" else "home"):
        pair.home.reconcile({1: MB}, {}) if name == "home" else pair.guest.reconcile({}, {})
    assert not os.path.lexists(pair.device)
    assert pair.home.devices() == 0


def test_a_cluster_of_another_process_has_no_devices_here(pair: Pair) -> None:
    pair.home.neighbours = {}
    pair.home.create(1, MB)
    with pytest.raises(BlocksError, match=r"aa\.b is not of this process"):
        pair.home.attach(1, GUEST, read_only=False)
