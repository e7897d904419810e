"""`Blocks` on this machine: files of a pool behind loop devices, one device for each client of an object.

A device of its own for every client is what makes "open at client N" exact: after a live migration the source is
detached while the destination holds the volume open, and a forced detach fences one host and not the other. Devices of
one object share its file; with direct I/O they show each other's writes at once, as two hosts' devices do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from simulator.blocks import gate, loop, pool, throttle
from simulator.blocks.gate import Held
from simulator.blocks.links import all_links, link_paths, point, remove
from simulator.blocks.openers import Opener, openers
from simulator.blocks.stores import data_extents, explained, set_size
from simulator.blocks.throttle import NONE, Limits
from simulator.ports import FOREIGN, BlocksError, DeviceBusy, Links

_SETTLE_TRIES = 8
_SETTLE_SECONDS = 0.025
_ONLOOKERS = {"(udev-worker)", "systemd-udevd", "udevd", "blkid"}
"""Programs that open every new or changed device for a moment."""


@dataclass(frozen=True, slots=True)
class _Attachment:
    """A device and the links that lead to it."""

    number: int
    tag: str
    read_only: bool
    links: frozenset[Path]


class LoopBlocks:
    """Blocks over the pool of one state directory. Safe for threads that work on different objects.

    Nothing may be called before `reconcile`, which learns what a dead predecessor left.
    """

    def __init__(self, state: Path, *, kind: str | None = None, size: int | None = None) -> None:
        """Makes or mounts the pool; `kind` and `size` as in `open_pool`. A missing thing is named by `BlocksError`."""
        lacking = loop.missing()
        if lacking is not None:
            raise BlocksError(f"block devices need {lacking}; without them run with --blocks memory")
        self._state = state.resolve()
        with explained(f"opening the pool in {self._state}"):
            self._state.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._pool = pool.open_pool(self._state, kind=kind, size=size)
            self._holds_numbers = loop.holds_numbers(pool.description_path(self._state))
        self._store = self._pool.store
        self._gate = gate.choose(self._state)
        self._enforces_limits = throttle.missing() is None
        self._attached: dict[tuple[int, int], _Attachment] = {}
        self._limits: dict[int, Limits] = {}
        self._guard = threading.Lock()
        self.neighbours: Mapping[str, Path] = {}
        """State directories of the other clusters of this process, by cluster id, for devices of their clients."""

    @property
    def kind(self) -> str:
        """btrfs, xfs or plain."""
        return self._pool.description.kind

    @property
    def root(self) -> Path:
        """Where the objects' files can be seen, for this process only."""
        return self._pool.root

    def devices(self) -> int:
        """How many loop devices are attached."""
        return len(self._attached)

    def create(self, key: int, size: int) -> None:
        self._store.create(key, size)

    def clone(self, source: int, key: int, size: int) -> None:
        self._store.clone(source, key, size)

    def clone_group(self, clones: Sequence[tuple[int, int, int]]) -> None:
        with explained(f"cloning {len(clones)} objects at one point in time"):
            held = [
                Held(attachment.number, self._limits.get(key, NONE))
                for (key, _), attachment in self._snapshot()
                if not attachment.read_only and key in {source for source, _, _ in clones}
            ]

            def copy() -> None:
                for clone in clones:
                    self._store.clone(*clone)

            def undo() -> None:
                for _, key, _ in clones:
                    self._store.delete(key)

            if held:
                self._gate.copy(held, copy, undo)
                return
            try:
                copy()
            except BlocksError:
                undo()
                raise

    def resize(self, key: int, size: int) -> None:
        with explained(f"resizing object {key} to {size} bytes"):
            self._require(key)
            set_size(self._store.path(key), size)
            for status in self._devices_of(key):
                loop.refresh_size(status.number, status.tag)

    def delete(self, key: int) -> None:
        with explained(f"taking away the devices of object {key}"):
            for status in self._devices_of(key):
                self._forget_device(status, key)
        self._store.delete(key)

    def _forget_device(self, status: loop.Status, key: int) -> None:
        if status.fenced:
            return
        self._say(status.number, NONE)
        if status.leaving or not self._cleared(status.number, status.tag):
            self._say(status.number, self._limits.get(key, NONE))
            raise DeviceBusy(f"object {key} is open: {_who(status.path)}")
        for place, attachment in self._snapshot():
            if attachment.tag == status.tag:
                remove(set(attachment.links))
                self._forget(place)
                self._forget_limits(key)

    def stored(self, key: int) -> int:
        with explained(f"measuring object {key}"):
            self._require(key)
            return self._store.path(key).stat().st_blocks * 512

    def capacity(self) -> tuple[int, int]:
        with explained("measuring the pool"):
            return self._pool.capacity()

    def attach(self, key: int, links: Links, *, read_only: bool) -> str:
        with explained(f"attaching object {key} to client {links.client}"):
            self._require(key)
            wanted = self._paths(links)
            place = (key, links.client)
            old = self._attached.get(place)
            if old is not None and old.tag not in [status.tag for status in self._devices_of(key)]:
                old = None  # somebody took the device away behind our back
            if old is not None and old.read_only == read_only:
                return self._publish(place, old.number, wanted, read_only=read_only)
            if old is not None and not old.read_only and self._open(old.number):
                raise DeviceBusy(f"object {key} is open at client {links.client}: {_who(loop.device_path(old.number))}")
            with loop.configured(self._store.path(key), self._tag(*place), read_only=read_only) as status:
                path = self._publish(place, status.number, wanted, read_only=read_only)
            if old is not None:
                self._say(old.number, NONE)
                loop.clear(old.number, old.tag, force=True)
            return path

    def _paths(self, links: Links) -> set[Path]:
        if not links.cluster:
            return link_paths(self._state, links)
        state = self.neighbours.get(links.cluster)
        if state is None:
            raise BlocksError(f"cluster {links.cluster} is not of this process: its clients cannot have devices here")
        return link_paths(state, replace(links, client=links.client % FOREIGN))

    def _publish(self, place: tuple[int, int], number: int, wanted: set[Path], *, read_only: bool) -> str:
        """Exactly the wanted links lead to the device, and the attachment is known."""
        old = self._attached.get(place)
        for path in sorted(wanted):
            point(path, loop.device_path(number))
        remove(self._unused(set(old.links) if old is not None else set(), wanted, number))
        # Also without limits: the number may have had another device's, if somebody died as it went.
        self._say(number, self._limits.get(place[0], NONE))
        with self._guard:
            self._attached[place] = _Attachment(number, self._tag(*place), read_only, frozenset(wanted))
        return loop.device_path(number)

    def _unused(self, links: set[Path], wanted: set[Path], number: int) -> set[Path]:
        """Links that only led to this device; a name may have gone to another object of the client meanwhile."""
        mine = Path(loop.device_path(number))
        return {path for path in links - wanted if path.is_symlink() and path.readlink() == mine}

    def detach(self, key: int, client: int, *, force: bool) -> None:
        place = (key, client)
        old = self._attached.get(place)
        if old is None:
            return
        with explained(f"detaching object {key} from client {client}"):
            if self._holds_numbers and not force:
                self._detach_closed(place, old)
                return
            device = loop.device_path(old.number)
            if not force and self._open(old.number):
                raise DeviceBusy(f"object {key} is open at client {client}: {_who(device)}")
            # Links first: a number that is free is anybody's, and no link of ours may lead there.
            gone = self._unused(set(old.links), set(), old.number)
            remove(gone)
            # Before the number is free, for then its rules would be another device's.
            self._say(old.number, NONE)
            if force:
                self._take_away(old.number, old.tag)
            elif not self._cleared(old.number, old.tag):
                for path in sorted(gone):
                    point(path, device)
                self._say(old.number, self._limits.get(key, NONE))
                raise DeviceBusy(f"object {key} is open at client {client}: {_who(device)}")
            self._forget(place)
            self._forget_limits(key)

    def _detach_closed(self, place: tuple[int, int], old: _Attachment) -> None:
        """Asks the kernel and not every process whether the device is open, and leaves everything in place if it is."""
        for _ in range(_SETTLE_TRIES):
            with loop.leaving(old.number, old.tag) as goes:
                if goes:
                    if self._limits.get(place[0], NONE) != NONE:
                        self._say(old.number, NONE)
                    remove(self._unused(set(old.links), set(), old.number))
                    self._forget(place)
                    self._forget_limits(place[0])
                    return
            if self._open(old.number):
                break
            time.sleep(_SETTLE_SECONDS)
        who = _who(loop.device_path(old.number))
        raise DeviceBusy(f"object {place[0]} is open at client {place[1]}: {who}")

    def _say(self, number: int, limits: Limits) -> None:
        if self.enforces_limits:
            throttle.limit(number, limits)

    def _forget_limits(self, key: int) -> None:
        """They are the object's only as long as it has a device."""
        if not any(held == key for (held, _), _ in self._snapshot()):
            with self._guard:
                self._limits.pop(key, None)

    def limit(self, key: int, iops: int, bytes_per_second: int) -> None:
        limits = Limits(iops, bytes_per_second)
        with self._guard:
            self._limits[key] = limits
        if self.enforces_limits:
            with explained(f"limiting object {key}"):
                for (held, _), attachment in self._snapshot():
                    if held == key:
                        throttle.limit(attachment.number, limits)

    @property
    def enforces_limits(self) -> bool:
        return self._enforces_limits

    def opened(self, key: int) -> bool:
        with explained(f"looking for openers of object {key}"):
            return any(self._open(status.number) for status in self._devices_of(key) if not status.fenced)

    def read(self, key: int, offset: int, length: int) -> bytes:
        with explained(f"reading {length} bytes at {offset} of object {key}"):
            self._require(key)
            path = self._store.path(key)
            self._check_range(path, key, offset, length)
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(length)

    def extents(self, key: int) -> Iterable[tuple[int, int]]:
        with explained(f"looking for the data of object {key}"):
            self._require(key)
            return data_extents(self._store.path(key))

    def write(self, key: int, offset: int, data: bytes) -> None:
        with explained(f"writing {len(data)} bytes at {offset} of object {key}"):
            self._require(key)
            path = self._store.path(key)
            self._check_range(path, key, offset, len(data))
            with path.open("r+b", buffering=0) as file:
                at = 0
                while at < len(data):
                    at += os.pwrite(file.fileno(), data[at:], offset + at)
                os.fdatasync(file.fileno())
            for status in self._devices_of(key):
                loop.drop_cache(status.number, status.tag)

    def reconcile(self, sizes: Mapping[int, int], attached: Mapping[int, Sequence[tuple[Links, bool]]]) -> list[str]:
        with explained(f"reconciling {self._state} with the journal"):
            mended = gate.lift_left(self._state)
            lost = [key for key in sorted(sizes) if not self._store.path(key).exists()]
            if lost:
                raise BlocksError(f"the journal has objects {lost} and the pool {self._pool.root} has no data of them")
            mended += [f"removed {name}, left by an interrupted create" for name in self._store.sweep()]
            wanted = {
                (key, links.client): (links, read_only)
                for key, each in attached.items()
                for links, read_only in each
                if not links.cluster or links.cluster in self.neighbours
            }
            mended += self._reconcile_foreign_links(wanted)
            mended += self._reconcile_devices(wanted)
            mended += self._reconcile_objects(sizes)
            mended += self._reconcile_links(wanted)
            return mended

    def _reconcile_foreign_links(self, wanted: Mapping[tuple[int, int], tuple[Links, bool]]) -> list[str]:
        """Of clients of the other clusters, which leave links alone that lead to devices of this one."""
        mended = []
        right = {path for links, _ in wanted.values() if links.cluster for path in self._paths(links)}
        mine = {Path(loop.device_path(status.number)) for status in self._pool.devices()}
        for state in self.neighbours.values():
            for path in all_links(state):
                if path not in right and path.is_symlink() and path.readlink() in mine:
                    path.unlink()
                    mended.append(f"removed {path}, which the journal does not have")
        return mended

    def _devices_of_neighbours(self) -> set[Path]:
        described = [pool.describe(state) for state in self.neighbours.values()]
        return {
            Path(loop.device_path(status.number))
            for found in described
            if found is not None
            for status in pool.devices(found.id)
        }

    def _reconcile_devices(self, wanted: Mapping[tuple[int, int], tuple[Links, bool]]) -> list[str]:
        """Keep each device that is still right; take away every other of this pool."""
        mended = []
        rights = {self._tag(*place): (place, read_only) for place, (_, read_only) in wanted.items()}
        kept: dict[tuple[int, int], _Attachment] = {}
        for status in self._pool.devices():
            place, read_only = rights.get(status.tag, ((0, 0), False))
            right = status.tag in rights and place not in kept and status.read_only == read_only
            if right and not status.fenced and self._backs(status, place[0]):
                loop.stay(status.number, status.tag)
                kept[place] = _Attachment(status.number, status.tag, read_only, frozenset())
            elif not status.fenced:
                mended.append(f"took away {status.path} ({status.tag}), which the journal does not have")
                self._take_away(status.number, status.tag)
        with self._guard:
            self._attached = kept
        return mended

    def _backs(self, status: loop.Status, key: int) -> bool:
        file = self._store.path(key).stat()
        return file.st_ino == status.inode and file.st_dev == status.device

    def _take_away(self, number: int, tag: str) -> None:
        """At once where nobody uses it; else its I/O fails from now on and it goes with its last opener."""
        self._say(number, NONE)
        if not loop.clear(number, tag, force=False):
            loop.fence(number, tag)
            loop.clear(number, tag, force=True)

    def _reconcile_objects(self, sizes: Mapping[int, int]) -> list[str]:
        mended = []
        for key in self._store.objects():
            if key not in sizes:
                self._store.delete(key)
                mended.append(f"removed object {key}, which the journal does not have")
        for key, size in sorted(sizes.items()):
            if self._store.path(key).stat().st_size != size:
                self.resize(key, size)
                mended.append(f"object {key} has {size} bytes again")
        return mended

    def _reconcile_links(self, wanted: Mapping[tuple[int, int], tuple[Links, bool]]) -> list[str]:
        mended = []
        right: set[Path] = set()
        for (key, client), (links, read_only) in sorted(wanted.items(), key=lambda item: item[0]):
            paths = self._paths(links)
            right |= paths
            kept = self._attached.get((key, client))
            intact = kept is not None and all(_leads_to(path, kept.number) for path in paths)
            self.attach(key, links, read_only=read_only)
            if not intact:
                mended.append(f"attached object {key} to client {client} again")
        others = self._devices_of_neighbours()
        for path in all_links(self._state):
            if path not in right and not (path.is_symlink() and path.readlink() in others):
                path.unlink()
                mended.append(f"removed {path}, which the journal does not have")
        return mended

    def close(self) -> None:
        """The pool is unmounted as soon as no device needs it."""
        self._pool.close()

    def _require(self, key: int) -> None:
        if not self._store.path(key).exists():
            raise BlocksError(f"object {key} is not in the pool {self._pool.root}")

    def _check_range(self, path: Path, key: int, offset: int, length: int) -> None:
        size = path.stat().st_size
        if offset < 0 or length < 0 or offset + length > size:
            raise BlocksError(f"{length} bytes at {offset} do not lie within object {key} of {size} bytes")

    def _tag(self, key: int, client: int) -> str:
        return f"splab:{self._pool.description.id}:{key}:{client}"

    def _devices_of(self, key: int) -> list[loop.Status]:
        return self._pool.devices(key)

    def _snapshot(self) -> list[tuple[tuple[int, int], _Attachment]]:
        with self._guard:
            return list(self._attached.items())

    def _forget(self, place: tuple[int, int]) -> None:
        with self._guard:
            self._attached.pop(place, None)

    def _open(self, number: int) -> bool:
        """Whether somebody uses the device; those who only look at every new device are waited for, and so is whoever
        is met only once: another simulator of this machine looks whether the device is its own."""
        device = loop.device_path(number)
        before: set[Opener] = set()
        for _ in range(_SETTLE_TRIES):
            who = set(openers(device))
            if not who:
                return loop.exclusive(number)
            if any(opener.name not in _ONLOOKERS for opener in who & before):
                return True
            before = who
            time.sleep(_SETTLE_SECONDS)
        return True

    def _cleared(self, number: int, tag: str) -> bool:
        """Take the device away unless it is in use."""
        for _ in range(_SETTLE_TRIES):
            if loop.clear(number, tag, force=False):
                return True
            if self._open(number):
                return False
            time.sleep(_SETTLE_SECONDS)
        return False


def _leads_to(path: Path, number: int) -> bool:
    return path.is_symlink() and path.readlink() == Path(loop.device_path(number))


def _who(device: str) -> str:
    who = ", ".join(str(opener) for opener in openers(device))
    return who or "a mount or a driver of the kernel"
