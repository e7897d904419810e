"""Copying the contents of a volume or snapshot of another cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge

from simulator.cluster.effects import Fetch
from simulator.ports import Blocks, Bridges

PIECE = 1 << 20
"""Most bytes that are copied at once."""


def fetch(blocks: Blocks, bridges: Bridges, effect: Fetch) -> None:
    """A new object with the remote contents; what is the same in `base` is shared with it. Raises `BlocksError`."""
    source = bridges.contents(effect.cluster, effect.global_id)
    if effect.base:
        blocks.clone(effect.base, effect.key, effect.size)
    else:
        blocks.create(effect.key, effect.size)
    for offset, length in pieces(merge(source.extents(), blocks.extents(effect.key)), effect.size):
        data = source.read(offset, length)
        if data != blocks.read(effect.key, offset, length):
            blocks.write(effect.key, offset, data)


def pieces(extents: Iterable[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what the extents, in order of their offsets, cover within `size`, each byte once."""
    done = 0
    for offset, length in extents:
        at, end = max(offset, done), min(offset + length, size)
        while at < end:
            piece = min(PIECE, end - at)
            yield at, piece
            at += piece
        done = max(done, end)
