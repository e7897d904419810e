"""Blocks of several StorPool clusters as one host, or whoever watches all of them, sees them.

Keys of objects are those of their cluster's blocks plus a multiple of `STRIDE`. A host has a number of its own in its
cluster, and another one, above `FOREIGN`, in each that it has volumes of another cluster from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.worlds.memory.site import Site
from simulator.blocks.memory import MemoryBlocks
from simulator.ports import FOREIGN, foreign_client

STRIDE = 1 << 40


class HostDevices:
    """The devices of one host. `client` is the host's own number everywhere."""

    def __init__(self, parts: Sequence[MemoryBlocks], cluster: int) -> None:
        """`cluster` is the index of the host's own; clusters are registered with each other in this order, from 1."""
        self._parts = tuple(parts)
        self._cluster = cluster

    def _at(self, key: int) -> tuple[MemoryBlocks, int]:
        return self._parts[key // STRIDE], key % STRIDE

    def _client(self, key: int, client: int) -> int:
        return self._number(key // STRIDE, client)

    def _number(self, part: int, client: int) -> int:
        return client if part == self._cluster else foreign_client(self._cluster + 1, client)

    def links(self, client: int) -> dict[str, int]:
        return {
            name: part * STRIDE + key
            for part, blocks in enumerate(self._parts)
            for name, key in blocks.links(self._number(part, client)).items()
        }

    def links_by_id(self, client: int) -> dict[str, int]:
        return {
            name: part * STRIDE + key
            for part, blocks in enumerate(self._parts)
            for name, key in blocks.links_by_id(self._number(part, client)).items()
        }

    def size(self, key: int) -> int:
        blocks, own = self._at(key)
        return blocks.size(own)

    def stored(self, key: int) -> int:
        blocks, own = self._at(key)
        return blocks.stored(own)

    def read(self, key: int, offset: int, length: int) -> bytes:
        blocks, own = self._at(key)
        return blocks.read(own, offset, length)

    def write(self, key: int, offset: int, data: bytes) -> None:
        blocks, own = self._at(key)
        blocks.write(own, offset, data)

    def extents(self, key: int) -> Iterable[tuple[int, int]]:
        blocks, own = self._at(key)
        return blocks.extents(own)

    def read_only(self, key: int, client: int) -> bool:
        blocks, own = self._at(key)
        return blocks.read_only(own, self._client(key, client))

    def touch(self, key: int) -> None:
        blocks, own = self._at(key)
        blocks.touch(own)

    def open(self, key: int, client: int | None = None) -> None:
        blocks, own = self._at(key)
        blocks.open(own, None if client is None else self._client(key, client))

    def release(self, key: int, client: int | None = None) -> None:
        blocks, own = self._at(key)
        blocks.release(own, None if client is None else self._client(key, client))


class AllBlocks:
    """What is watched of the objects of all clusters. Clients go by the place of their host in the site, from 1 on."""

    def __init__(self, site: Site, parts: Sequence[MemoryBlocks]) -> None:
        self._site = site
        self._parts = tuple(parts)

    @property
    def touched(self) -> dict[int, None]:
        """Taken: what the clusters' blocks noted is forgotten there."""
        found: dict[int, None] = {}
        for part, blocks in enumerate(self._parts):
            found |= dict.fromkeys(part * STRIDE + key for key in blocks.touched)
            blocks.touched.clear()
        return found

    def openers(self, key: int) -> Mapping[int | None, int]:
        part = key // STRIDE
        found = self._parts[part].openers(key % STRIDE)
        return {None if client is None else self._place(part, client): times for client, times in found.items()}

    def size(self, key: int) -> int:
        return self._parts[key // STRIDE].size(key % STRIDE)

    def rights(self, key: int, place: int, /) -> str | None:
        host, part = self._site.hosts[place - 1], key // STRIDE
        own = host.cluster == part
        return self._parts[part].rights(
            key % STRIDE, host.client_id if own else foreign_client(host.cluster + 1, host.client_id)
        )

    def _place(self, part: int, client: int) -> int:
        cluster = part if client < FOREIGN else client // FOREIGN - 1
        wanted = (cluster, client % FOREIGN)
        return next(place for place, host in enumerate(self._site.hosts, 1) if (host.cluster, host.client_id) == wanted)
