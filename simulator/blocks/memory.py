"""Blocks in memory: sparse pages shared copy-on-write, and each client's links as dictionaries.

A page that holds only zeroes is not stored. Devices are opened and released by whoever models the hosts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from simulator.ports import BlocksError, DeviceBusy, Links, OutOfSpace

PAGE = 4096
"""Bytes of a page."""


@dataclass(slots=True)
class _Table:
    """Which stored page stands at which index; shared between objects until one of them writes."""

    pages: dict[int, int] = field(default_factory=dict)
    owners: int = 1


@dataclass(slots=True)
class _Object:
    size: int
    table: _Table
    attached: dict[int, tuple[Links, bool]] = field(default_factory=dict)
    openers: dict[int | None, int] = field(default_factory=dict)
    limits: tuple[int, int] = (0, 0)


class MemoryBlocks:
    """Contents and devices of one pool of `capacity` bytes, without a machine behind them.

    With `forgets` these blocks may be younger than the journal: what they do not have begins empty.
    """

    def __init__(self, capacity: int, *, forgets: bool = False) -> None:
        self._capacity = capacity
        self._forgets = forgets
        self.taken = 0
        """Bytes of the pool that something else fills, for trying what happens when it is full."""
        self._objects: dict[int, _Object] = {}
        self._store: dict[int, bytes] = {}
        self._references: dict[int, int] = {}
        self._next_page = 1
        self.touched: dict[int, None] = {}
        """Objects that were made, changed, attached or opened, or the opposite, since somebody cleared this."""

    def touch(self, key: int) -> None:
        """What somebody else does with it may have changed."""
        self.touched[key] = None

    def create(self, key: int, size: int) -> None:
        self.touched[key] = None
        if key not in self._objects:
            self._objects[key] = _Object(size, _Table())

    def clone(self, source: int, key: int, size: int) -> None:
        if key in self._objects:
            return
        self.touched[key] = None
        table = self._find(source, "clone").table
        table.owners += 1
        clone = self._objects[key] = _Object(self._find(source, "clone").size, table)
        self._set_size(clone, size)

    def clone_group(self, clones: Sequence[tuple[int, int, int]]) -> None:
        made: list[int] = []
        try:
            for source, key, size in clones:
                self.clone(source, key, size)
                made.append(key)
        except BlocksError:
            for key in made:
                self.delete(key)
            raise

    def resize(self, key: int, size: int) -> None:
        self.touched[key] = None
        self._set_size(self._find(key, "resize"), size)

    def delete(self, key: int) -> None:
        found = self._objects.get(key)
        if found is None:
            return
        if found.openers:
            raise DeviceBusy(f"delete of object {key}: its device is open")
        self.touched[key] = None
        del self._objects[key]
        self._let_go(found.table)

    def stored(self, key: int) -> int:
        found = self._find(key, "measure")
        return min(found.size, len(found.table.pages) * PAGE)

    def capacity(self) -> tuple[int, int]:
        return self._capacity, max(0, self._capacity - self.taken - len(self._store) * PAGE)

    def attach(self, key: int, links: Links, *, read_only: bool) -> str:
        found = self._find(key, "attach")
        old = found.attached.get(links.client)
        if old is not None and read_only and not old[1] and self._is_open_at(found, links.client):
            raise DeviceBusy(f"object {key} is open for writing at client {links.client}")
        found.attached[links.client] = (links, read_only)
        self.touched[key] = None
        return self.device(key)

    def detach(self, key: int, client: int, *, force: bool) -> None:
        found = self._objects.get(key)
        if found is None:
            return
        if not force and self._is_open_at(found, client):
            raise DeviceBusy(f"detach of object {key} from client {client}: its device is open there")
        found.attached.pop(client, None)
        if not found.attached:
            found.limits = (0, 0)
        self.touched[key] = None

    def limit(self, key: int, iops: int, bytes_per_second: int) -> None:
        self._find(key, "limit").limits = (iops, bytes_per_second)

    def limits(self, key: int) -> tuple[int, int]:
        """IOPS and bytes a second that devices of the object would be held to."""
        return self._find(key, "measure").limits

    @property
    def enforces_limits(self) -> bool:
        return False

    def opened(self, key: int) -> bool:
        return bool(self._find(key, "look at").openers)

    def read(self, key: int, offset: int, length: int) -> bytes:
        found = self._find(key, "read")
        self._check_range(key, found, offset, length)
        first, start = divmod(offset, PAGE)
        if start + length <= PAGE:
            number = found.table.pages.get(first)
            return bytes(length) if number is None else self._store[number][start : start + length]
        # Most of a disk is not stored, so the stored pages are put into zeroes, whole ones, and the edges cut off.
        last = (offset + length - 1) // PAGE
        content = bytearray((last + 1 - first) * PAGE)
        for index, number in found.table.pages.items():
            if first <= index <= last:
                content[(index - first) * PAGE : (index - first + 1) * PAGE] = self._store[number]
        return bytes(memoryview(content)[start : start + length])

    def extents(self, key: int) -> Iterable[tuple[int, int]]:
        found = self._find(key, "read")
        return [
            (index * PAGE, min(PAGE, found.size - index * PAGE))
            for index in sorted(found.table.pages)
            if index * PAGE < found.size
        ]

    def write(self, key: int, offset: int, data: bytes) -> None:
        found = self._find(key, "write")
        self._check_range(key, found, offset, len(data))
        position = 0
        while position < len(data):
            index, start = divmod(offset + position, PAGE)
            piece = data[position : position + PAGE - start]
            self._put(found, index, start, piece)
            position += len(piece)

    def reconcile(self, sizes: Mapping[int, int], attached: Mapping[int, Sequence[tuple[Links, bool]]]) -> list[str]:
        lost = sorted(sizes.keys() - self._objects.keys())
        if lost and not self._forgets:
            raise BlocksError(f"objects {lost} are in the journal and their contents are gone from memory")
        mended = [f"{len(lost)} objects begin empty: memory does not outlive its process"] if lost else []
        kept = sorted(self._objects)
        empty = _Table(owners=len(lost) + 1)
        for key in lost:
            links = {each.client: (each, read_only) for each, read_only in attached[key]} if key in attached else {}
            self._objects[key] = _Object(sizes[key], empty, links, {})
        for key in kept:
            found = self._objects[key]
            self.touched[key] = None
            if key not in sizes:
                found.openers.clear()
                self.delete(key)
                mended.append(f"removed object {key}, which the journal does not know")
                continue
            if found.size != sizes[key]:
                mended.append(f"object {key}: {found.size} bytes made {sizes[key]}")
                self._set_size(found, sizes[key])
            wanted = {links.client: (links, read_only) for links, read_only in attached.get(key, ())}
            if found.attached != wanted:
                mended.append(f"object {key}: links of clients {sorted(found.attached)} made {sorted(wanted)}")
                found.attached = wanted
            # What a dead process had said goes with it; whoever starts says it again.
            found.limits = (0, 0)
        return mended

    def close(self) -> None:
        """Contents and links stay, as those of a machine would."""

    def copy(self) -> MemoryBlocks:
        """The same contents, links and open devices, and from now on a life of their own."""
        other = MemoryBlocks(self._capacity)
        tables: dict[int, _Table] = {}
        for key, found in self._objects.items():
            table = tables.get(id(found.table))
            if table is None:
                table = tables[id(found.table)] = _Table(dict(found.table.pages), found.table.owners)
            other._objects[key] = _Object(found.size, table, dict(found.attached), dict(found.openers), found.limits)
        other._store = dict(self._store)
        other._references = dict(self._references)
        other._next_page = self._next_page
        return other

    # What a model of the hosts needs.

    def device(self, key: int) -> str:
        """Path of the object's device."""
        return f"/dev/sp-{key}"

    def objects(self) -> list[int]:
        """Every object there is, in order of its making."""
        return list(self._objects)

    def size(self, key: int) -> int:
        """Bytes."""
        return self._find(key, "measure").size

    def openers(self, key: int) -> Mapping[int | None, int]:
        """How often each client has the device open; empty when there is no such object."""
        found = self._objects.get(key)
        return {} if found is None else found.openers

    def rights(self, key: int, client: int) -> str | None:
        """`rw` or `ro` of an object that is attached to the client; None when it is not."""
        found = self._objects.get(key)
        if found is None or client not in found.attached:
            return None
        return "ro" if found.attached[client][1] else "rw"

    def links(self, client: int) -> dict[str, int]:
        """/dev/storpool of a client: name to object."""
        return {
            name: key
            for key, found in self._objects.items()
            if client in found.attached
            for name in found.attached[client][0].names
        }

    def links_by_id(self, client: int) -> dict[str, int]:
        """/dev/storpool-byid of a client: bare global id to object."""
        return {
            name: key
            for key, found in self._objects.items()
            if client in found.attached
            for name in found.attached[client][0].by_id
        }

    def read_only(self, key: int, client: int) -> bool:
        """Whether the client may only read; raises `BlocksError` when it is not attached there."""
        attached = self._find(key, "look at").attached
        if client not in attached:
            raise BlocksError(f"object {key} is not attached to client {client}")
        return attached[client][1]

    def open(self, key: int, client: int | None = None) -> None:
        """Somebody on that client (on any, when None) opens the device; every open wants its own `release`."""
        openers = self._find(key, "open").openers
        self.touched[key] = None
        openers[client] = openers.get(client, 0) + 1

    def release(self, key: int, client: int | None = None) -> None:
        """Undo one `open`; nothing happens when there is none left or the object is gone."""
        found = self._objects.get(key)
        if found is None or client not in found.openers:
            return
        self.touched[key] = None
        found.openers[client] -= 1
        if not found.openers[client]:
            del found.openers[client]

    def _find(self, key: int, verb: str) -> _Object:
        found = self._objects.get(key)
        if found is None:
            raise BlocksError(f"cannot {verb} object {key}: there is none")
        return found

    def _is_open_at(self, found: _Object, client: int) -> bool:
        return client in found.openers or (None in found.openers and client in found.attached)

    def _check_range(self, key: int, found: _Object, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > found.size:
            raise BlocksError(f"{length} bytes at {offset} do not lie within object {key} of {found.size} bytes")

    def _own_table(self, found: _Object) -> dict[int, int]:
        table = found.table
        if table.owners > 1:
            table.owners -= 1
            for number in table.pages.values():
                self._references[number] += 1
            table = found.table = _Table(dict(table.pages))
        return table.pages

    def _let_go(self, table: _Table) -> None:
        table.owners -= 1
        if not table.owners:
            for number in table.pages.values():
                self._drop(number)

    def _drop(self, number: int) -> None:
        self._references[number] -= 1
        if not self._references[number]:
            del self._references[number], self._store[number]

    def _put(self, found: _Object, index: int, start: int, piece: bytes) -> None:
        old = found.table.pages.get(index)
        if len(piece) < PAGE:
            whole = bytes(PAGE) if old is None else self._store[old]
            piece = whole[:start] + piece + whole[start + len(piece) :]
        empty = piece.count(0) == PAGE
        if empty and old is None:
            return
        if (
            not empty
            and (len(self._store) + 1) * PAGE > self._capacity - self.taken
            and (old is None or self._is_shared(found, old))
        ):
            raise OutOfSpace(f"the pool of {self._capacity} bytes is full")
        pages = self._own_table(found)
        if old is not None:
            self._drop(old)
            del pages[index]
        if not empty:
            number = self._next_page
            self._next_page += 1
            self._store[number] = bytes(piece)
            self._references[number] = 1
            pages[index] = number

    def _is_shared(self, found: _Object, number: int) -> bool:
        return found.table.owners > 1 or self._references[number] > 1

    def _set_size(self, found: _Object, size: int) -> None:
        old, found.size = found.size, size
        if size >= old:
            return
        index, start = divmod(size, PAGE)
        if start and index in found.table.pages:
            self._put(found, index, start, bytes(PAGE - start))
        first = index + bool(start)
        gone = [at for at in found.table.pages if at >= first]
        if gone:
            pages = self._own_table(found)
            for at in gone:
                self._drop(pages.pop(at))
