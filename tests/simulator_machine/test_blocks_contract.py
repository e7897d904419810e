"""What every kind of blocks does alike: memory, and loop devices over btrfs, xfs and plain files."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import pytest

from simulator.blocks.memory import MemoryBlocks
from simulator.cluster.effects import Fetch
from simulator.fetching import fetch
from simulator.multicluster.exchange import Exchange, Member
from simulator.ports import BlocksError, DeviceBusy, Links, OutOfSpace

if TYPE_CHECKING:
    from machine_rigs import Rig

pytest_plugins = ("machine_rigs",)
MB = 1 << 20
HERE = Links(1, ("v1",), ("l.c.1",))
THERE = Links(2, ("v1",), ("l.c.1",))


def test_a_new_object_is_zeroes_and_keeps_what_is_written(blocks_rig: Rig) -> None:
    blocks_rig.blocks.create(1, MB)
    assert blocks_rig.blocks.read(1, 0, MB) == bytes(MB)
    blocks_rig.blocks.write(1, 1000, b"data" * 1000)
    assert blocks_rig.blocks.read(1, 999, 4002) == b"\0" + b"data" * 1000 + b"\0"
    assert 4000 <= blocks_rig.blocks.stored(1) <= 64 << 10


@pytest.mark.parametrize(("offset", "length"), [(-1, 4), (MB - 3, 4), (MB, 1), (0, MB + 1)])
def test_reading_and_writing_outside_the_object_is_refused(blocks_rig: Rig, offset: int, length: int) -> None:
    blocks_rig.blocks.create(1, MB)
    with pytest.raises(BlocksError):
        blocks_rig.blocks.read(1, offset, length)
    with pytest.raises(BlocksError):
        blocks_rig.blocks.write(1, offset, b"x" * length)
    assert blocks_rig.blocks.read(1, 0, MB) == bytes(MB)


def test_a_clone_has_what_the_source_had_and_both_live_on_apart(blocks_rig: Rig) -> None:
    blocks_rig.blocks.create(1, MB)
    blocks_rig.blocks.write(1, 0, b"before")
    blocks_rig.blocks.clone(1, 2, MB)
    blocks_rig.blocks.clone(2, 3, MB)
    blocks_rig.blocks.write(1, 0, b"source")
    blocks_rig.blocks.write(2, 0, b"cloned")
    assert [blocks_rig.blocks.read(key, 0, 6) for key in (1, 2, 3)] == [b"source", b"cloned", b"before"]
    blocks_rig.blocks.delete(1)
    blocks_rig.blocks.delete(2)
    assert blocks_rig.blocks.read(3, 0, 6) == b"before"


def test_what_was_cut_off_never_comes_back(blocks_rig: Rig) -> None:
    blocks_rig.blocks.create(1, MB)
    blocks_rig.blocks.write(1, 0, b"x" * MB)
    blocks_rig.blocks.clone(1, 2, 5120)
    blocks_rig.blocks.clone(2, 3, MB)
    blocks_rig.blocks.resize(1, 512)
    blocks_rig.blocks.resize(1, MB)
    assert blocks_rig.blocks.read(2, 0, 5120) == b"x" * 5120
    assert blocks_rig.blocks.read(3, 0, MB) == b"x" * 5120 + bytes(MB - 5120)
    assert blocks_rig.blocks.read(1, 0, MB) == b"x" * 512 + bytes(MB - 512)


def test_everything_may_be_repeated_and_changes_nothing_the_second_time(blocks_rig: Rig) -> None:
    blocks = blocks_rig.blocks
    blocks.create(1, MB)
    blocks.write(1, 0, b"first")
    blocks.create(1, MB)
    blocks.clone(1, 2, MB)
    blocks.write(1, 0, b"later")
    blocks.clone(1, 2, MB)
    assert (blocks.read(1, 0, 5), blocks.read(2, 0, 5)) == (b"later", b"first")
    assert blocks.attach(1, HERE, read_only=False) == blocks.attach(1, HERE, read_only=False)
    for _ in range(2):
        blocks.detach(1, 1, force=False)
    for _ in range(2):
        blocks.delete(1)
    with pytest.raises(BlocksError):
        blocks.read(1, 0, 1)


@pytest.mark.parametrize("call", ["clone", "resize", "stored", "attach", "read", "write"])
def test_an_object_that_is_not_there_is_an_error_and_nothing_is_made(blocks_rig: Rig, call: str) -> None:
    blocks = blocks_rig.blocks
    calls: dict[str, Callable[[], object]] = {
        "clone": lambda: blocks.clone(7, 8, MB),
        "resize": lambda: blocks.resize(7, MB),
        "stored": lambda: blocks.stored(7),
        "attach": lambda: blocks.attach(7, HERE, read_only=False),
        "read": lambda: blocks.read(7, 0, 1),
        "write": lambda: blocks.write(7, 0, b"x"),
    }
    with pytest.raises(BlocksError, match="7"):
        calls[call]()
    assert blocks.reconcile({}, {}) == []


def test_an_open_device_is_busy_at_its_client_only(blocks_rig: Rig) -> None:
    """After a live migration the source is detached while the destination has the volume open."""
    blocks = blocks_rig.blocks
    blocks.create(1, MB)
    blocks.attach(1, HERE, read_only=False)
    blocks.attach(1, THERE, read_only=False)
    assert not blocks.opened(1)
    with blocks_rig.hold(1, 2):
        assert blocks.opened(1)
        blocks.detach(1, 1, force=False)
        with pytest.raises(DeviceBusy):
            blocks.detach(1, 2, force=False)
        with pytest.raises(DeviceBusy):
            blocks.delete(1)
        assert blocks.read(1, 0, 1) == b"\0"
    assert not blocks.opened(1)
    blocks.detach(1, 2, force=False)
    blocks.delete(1)


def test_force_detaches_an_open_device(blocks_rig: Rig) -> None:
    blocks = blocks_rig.blocks
    blocks.create(1, MB)
    blocks.attach(1, HERE, read_only=False)
    with blocks_rig.hold(1, 1):
        blocks.detach(1, 1, force=True)
        blocks.detach(1, 1, force=True)
    blocks.attach(1, HERE, read_only=False)
    assert not blocks.opened(1)
    blocks.detach(1, 1, force=False)
    blocks.delete(1)


def test_reconcile_removes_what_the_journal_does_not_have_and_mends_sizes(blocks_rig: Rig) -> None:
    blocks_rig.blocks.create(1, MB)
    blocks_rig.blocks.write(1, 0, b"kept")
    blocks_rig.blocks.create(2, MB)
    blocks_rig.blocks.attach(2, HERE, read_only=False)
    blocks = blocks_rig.restart()
    mended = blocks.reconcile({1: 2 * MB}, {})
    assert any("object 1" in line for line in mended) and any("object 2" in line for line in mended)
    assert blocks.read(1, 0, 4) == b"kept" and blocks.read(1, 2 * MB - 1, 1) == b"\0"
    with pytest.raises(BlocksError):
        blocks.read(2, 0, 1)
    assert blocks_rig.restart().reconcile({1: 2 * MB}, {}) == []


def test_reconcile_refuses_to_go_on_without_the_data_of_an_object_and_removes_nothing(blocks_rig: Rig) -> None:
    blocks_rig.blocks.create(1, MB)
    blocks_rig.blocks.create(2, MB)
    blocks = blocks_rig.restart()
    with pytest.raises(BlocksError, match="9"):
        blocks.reconcile({1: MB, 9: MB}, {})
    assert blocks.reconcile({1: MB, 2: MB}, {}) == []


# Plain files have no pool of their own that could be full.
@pytest.mark.parametrize(
    "blocks_rig", ["memory", *(pytest.param(kind, marks=pytest.mark.local) for kind in ("btrfs", "xfs"))], indirect=True
)
def test_a_full_pool_is_out_of_space_and_room_comes_back(blocks_rig: Rig) -> None:
    blocks = blocks_rig.blocks
    blocks.create(1, 1 << 30)
    _, before = blocks.capacity()
    chunk = b"full" * MB
    with pytest.raises(OutOfSpace):
        for at in range(0, 1 << 30, len(chunk)):
            blocks.write(1, at, chunk)
    total, free = blocks.capacity()
    assert free < before // 8 and free < total
    assert blocks.read(1, 0, len(chunk)) == chunk
    blocks.delete(1)
    deadline = time.monotonic() + 10  # the kernel by itself takes a minute
    while blocks.capacity()[1] < before * 3 // 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert blocks.capacity()[1] >= before * 3 // 4


@pytest.mark.parametrize("blocks_rig", [pytest.param("btrfs", marks=pytest.mark.local)], indirect=True)
def test_a_pool_that_was_filled_to_the_last_byte_can_create_as_soon_as_there_is_room(blocks_rig: Rig) -> None:
    blocks = blocks_rig.blocks
    blocks.create(1, 1 << 30)
    at = 0
    for length in (MB, 64 << 10, 4 << 10):
        with pytest.raises(OutOfSpace):
            while True:
                blocks.write(1, at, b"full" * (length // 4))
                at += length
    blocks.delete(1)
    blocks.create(2, MB)


def test_extents_cover_all_that_is_not_zero(blocks_rig: Rig) -> None:
    blocks = blocks_rig.blocks
    blocks.create(1, 64 * MB)
    blocks.write(1, 5 * MB + 1000, b"one")
    blocks.write(1, 63 * MB, b"two" * 1000)
    blocks.clone(1, 2, 64 * MB)
    blocks.write(2, 0, b"three")
    for key, places in ((1, [5 * MB + 1000, 63 * MB]), (2, [0, 5 * MB + 1000, 63 * MB])):
        extents = list(blocks.extents(key))
        assert extents == sorted(extents)
        assert all(any(at <= place < at + length for at, length in extents) for place in places)
        assert sum(length for _, length in extents) < 2 * MB, "holes are no extents"


def test_what_is_fetched_has_the_contents_of_its_source_and_shares_those_of_its_base(blocks_rig: Rig) -> None:
    source, blocks = MemoryBlocks(1 << 30), blocks_rig.blocks
    source.create(1, 64 * MB)
    source.write(1, 3 * MB - 2, b"old")
    source.clone(1, 2, 96 * MB)
    source.write(2, 3 * MB - 2, b"\0\0\0")
    source.write(2, 95 * MB, b"new")
    exchange = Exchange()
    exchange.join("aa.b", cast(Member, Named({"aa.b.1": 1, "aa.b.2": 2})), source, "")
    ways = exchange.bridges("aa.c")
    fetch(blocks, ways, Fetch(11, 64 * MB, "aa.b", "aa.b.1"))
    free = blocks.capacity()[1]
    fetch(blocks, ways, Fetch(12, 96 * MB, "aa.b", "aa.b.2", base=11))
    for remote, local, size in ((1, 11, 64 * MB), (2, 12, 96 * MB)):
        assert blocks.read(local, 0, size) == source.read(remote, 0, size)
    if blocks_rig.kind in ("memory", "btrfs"):
        assert free - blocks.capacity()[1] < 4 * MB


class Named:
    """As much of a service as copying needs."""

    def __init__(self, keys: dict[str, int]) -> None:
        self._keys = keys

    def object_keys(self) -> dict[str, int]:
        return self._keys
