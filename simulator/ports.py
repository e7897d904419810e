"""What stands between the simulator's pure cluster and the machine: blocks, journal and the service around both.

The cluster (`simulator.cluster`) decides; inputs give events, effects and replies. `Service` appends events
to the journal before they count, runs effects against the blocks, and feeds the outcome back as an input. Objects are
keyed by their serial number in the cluster, a positive integer that is never used twice for what anybody
was told of. Sizes are bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class BlocksError(Exception):
    """An effect on the blocks failed; the text says what was tried on which object."""


class DeviceBusy(BlocksError):
    """The device is open on the machine, so it cannot be taken away without force."""


class OutOfSpace(BlocksError):
    """The pool's file system is full."""


@dataclass(frozen=True, slots=True)
class Links:
    """Names under which one client sees one object."""

    client: int
    names: tuple[str, ...]
    """Entries of /dev/storpool."""
    by_id: tuple[str, ...]
    """Entries of /dev/storpool-byid: bare global ids."""
    cluster: str = ""
    """Id of the client's cluster when that is another one; `client` is then a number of `foreign_client`."""


FOREIGN = 4096
"""Clients of other clusters have numbers above those that a cluster has for its own, which are smaller than this."""


def foreign_client(cluster: int, client: int) -> int:
    """The number that a client of the other cluster with this record has here."""
    return cluster * FOREIGN + client


def shown_client(client: int, cluster: str) -> str:
    """As texts for people name it: by its own number. `cluster` is the id of another cluster, else empty."""
    return f"{client % FOREIGN} of cluster {cluster}" if cluster else str(client)


class Blocks(Protocol):
    """Contents of volumes and snapshots, and the devices that lead to them.

    Every method may be repeated after a crash with the same outcome: creating what is there, deleting what is gone and
    opening what is open succeed. Failures raise `BlocksError`.
    """

    def create(self, key: int, size: int) -> None:
        """An object of `size` zero bytes."""
        ...

    def clone(self, source: int, key: int, size: int) -> None:
        """A new object with the contents that `source` has now, cut or extended with zeroes to `size`."""
        ...

    def clone_group(self, clones: Sequence[tuple[int, int, int]]) -> None:
        """As `clone` for each (source, key, size), with the contents of all sources at one point in time: none has a
        write without every write to any of them that was finished before it began. All or none."""
        ...

    def resize(self, key: int, size: int) -> None:
        """Change the size; an open device shows it at once."""
        ...

    def delete(self, key: int) -> None:
        """Remove the object. `DeviceBusy` while its device is open."""
        ...

    def stored(self, key: int) -> int:
        """Bytes that the object holds, its parents' share included."""
        ...

    def capacity(self) -> tuple[int, int]:
        """(all, free) bytes of the pool."""
        ...

    def attach(self, key: int, links: Links, *, read_only: bool) -> str:
        """Make the object's device, if it has none yet, and exactly these links of the client to it; the device's path.
        `DeviceBusy` when a device that the client may write and has open should become read-only."""
        ...

    def detach(self, key: int, client: int, *, force: bool) -> None:
        """Remove the client's links, and the device with its last client. `DeviceBusy` when it is open and not
        `force`; with force the links go and the device follows as soon as it is closed."""
        ...

    def limit(self, key: int, iops: int, bytes_per_second: int) -> None:
        """Hold every device that the object has or gets, until it has none any more, to so much of reads and so much of
        writes; 0 is unlimited. Where the machine cannot, `enforces_limits` is False and this only remembers."""
        ...

    @property
    def enforces_limits(self) -> bool: ...

    def opened(self, key: int) -> bool:
        """Whether somebody holds the object's device open now."""
        ...

    def extents(self, key: int) -> Iterable[tuple[int, int]]:
        """(offset, length) of every stretch that may hold other than zeroes, in order."""
        ...

    def read(self, key: int, offset: int, length: int) -> bytes: ...

    def write(self, key: int, offset: int, data: bytes) -> None: ...

    def reconcile(self, sizes: Mapping[int, int], attached: Mapping[int, Sequence[tuple[Links, bool]]]) -> list[str]:
        """At start: make objects, devices and links exactly what the journal says. `attached` gives, for each object,
        the links and whether they are read-only. Objects that are not in `sizes` are removed. One line for each
        thing mended; raises `BlocksError` when an object that should exist has lost its data."""
        ...

    def close(self) -> None:
        """Let go of everything that a stopped simulator must not hold; data, and devices in use, stay."""
        ...


class Journal(Protocol):
    """Durable, ordered, checksummed records."""

    def replay(self) -> Iterator[bytes]:
        """The last snapshot first, if there is one, then every record after it. Raises `JournalError` on damage that a
        torn last write does not explain."""
        ...

    def append(self, record: bytes) -> None:
        """Buffer a record; it counts after the next `sync`."""
        ...

    def sync(self) -> None:
        """Return when everything appended is on disk."""
        ...

    def compact(self, snapshot: bytes) -> None:
        """Replace everything before now by one snapshot, atomically."""
        ...

    def close(self) -> None: ...


class JournalError(Exception):
    """The journal is damaged; the text says at which byte of which file."""


class Verb(enum.StrEnum):
    GET = "GET"
    POST = "POST"


@dataclass(frozen=True, slots=True)
class Request:
    """One API call as it arrived, before anything was decoded."""

    verb: str
    path: str
    """Percent-decoded, with `/ctrl/1.0/` in front."""
    body: bytes
    """The JSON: request body of a POST, `json=` argument of a GET; empty when there was none."""
    token: str | None
    """From the Authorization header; None when it is missing or malformed."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes


class Contents(Protocol):
    """Of a volume or snapshot in another cluster, to be read on any thread. Raises `BlocksError`."""

    def extents(self) -> Iterable[tuple[int, int]]: ...

    def read(self, offset: int, length: int) -> bytes: ...


Withdraw = Callable[[], bool]
"""Forgets a call that does nothing but wait for a client; whether it was one. Any other goes on, and is answered."""


def nothing_waits() -> bool:
    return False


class Bridges(Protocol):
    """The way from one cluster to others, by their ids `<location>.<sub-cluster>`."""

    def clusters(self) -> Collection[str]:
        """Those that answer."""
        ...

    def submit(self, cluster: str, request: Request, reply: Callable[[Reply], None]) -> Withdraw:
        """Make a call there, with that cluster's token. `reply` is called once, now or later, never from within a call
        of the asking service that is still under way."""
        ...

    def contents(self, cluster: str, global_id: str) -> Contents: ...

    def shares_devices(self, cluster: str) -> bool:
        """Whether clients there can have devices of volumes here, and the other way round."""
        ...


class NoBridges:
    """A cluster that stands alone."""

    def clusters(self) -> Collection[str]:
        return ()

    def submit(self, cluster: str, _request: Request, _reply: Callable[[Reply], None]) -> Withdraw:
        raise AssertionError(f"there is no way to cluster {cluster}")

    def shares_devices(self, _cluster: str) -> bool:
        return False

    def contents(self, cluster: str, global_id: str) -> Contents:
        raise BlocksError(f"object {global_id} of cluster {cluster} cannot be reached")


class Service(Protocol):
    """The simulator as one object: what the HTTP server and in-process clients talk to.

    Not thread-safe: one caller at a time.
    """

    def submit(self, request: Request, reply: Callable[[Reply], None]) -> int:
        """Carry out a call. `reply` is called once: before this returns, or later when the call waits for something.
        The number names the call for `cancel`."""
        ...

    def cancel(self, number: int) -> None:
        """The caller has gone away; nobody waits for the reply. What was begun is finished."""
        ...

    def tick(self) -> float | None:
        """Let time pass: due deletions, time-outs, background work. Seconds until it must be called again, if any."""
        ...

    def object_keys(self) -> Mapping[str, int]:
        """Under which key the blocks hold each object that exists, by bare global id."""
        ...

    def due_in(self) -> float | None:
        """Seconds until `tick` has something to do, if anything is due; any call may bring that nearer."""
        ...

    def close(self) -> None: ...
