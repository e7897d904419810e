"""Operation records of one host's agent: what a command is about to do here is durable before it does it (design
section 4).

One small JSON file for each open operation. It is written before the first effect and removed after the last; what an
agent leaves open, because it died or could not clean up, `recovery.py` finishes or undoes.

    acting      its command runs; with the command gone, something of it may be left here
    settling    finished or undone, but a request of it may still arrive, or a guest may still follow one
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import msgspec

from harness.spi.errors import Error, InvalidParameter, NotFound, Unknown
from harness.spi.ports import Host
from harness.spi.runtime import Runtime

_log = logging.getLogger("harness.agent")

SETTLE_TIME = 600.0
"""Seconds after which a request that was never answered is taken to be dead, as in the driver."""
CLOCK_SLACK = 1.0
"""Seconds that clocks and rounding may differ without having been set."""
SUFFIX = ".json"
HALF_WRITTEN = ".new"
"""What `Host.write_durably` writes first ends so; a kill leaves it, and then nothing had been done yet."""


class Kind(enum.StrEnum):
    START = "start"
    STOP = "stop"
    ATTACH = "attach"
    DETTACH = "dettach"
    DOWNLOAD = "download"
    BACKUP = "backup"
    """Of a snapshot: a program reads from the device, and writes to a file of the image store."""
    ENCRYPT = "encrypt"
    """Of a volume: programs write to it, and read from the snapshot that it is made from."""
    PREPARE = "prepare"
    """Of the destination of a migration, up to its answer."""
    MIGRATE = "migrate"
    """Of its source: libvirt goes on with it when the agent dies."""
    DIRECT_DOWNLOAD = "direct-download"
    """Programs fetch an image to a file of this host, and write it to the device."""
    CHECK = "check"
    """Of the pool, with its check volume."""
    LATE_ATTACH = "late-attach"
    """No command: an attachment that StorPool may make later, because the answer was lost."""


COPIES = (Kind.DOWNLOAD, Kind.BACKUP, Kind.ENCRYPT, Kind.DIRECT_DOWNLOAD)
"""A program does the work, and goes on when the agent dies; it is found by the record's own id."""
LENDERS = (Kind.START, Kind.ATTACH, Kind.PREPARE)
"""libvirt is lent the passphrases of their encrypted disks meanwhile."""
FORWARD_ONLY = (Kind.STOP, Kind.DETTACH)
"""Never undone: what of it is left, the same command does when it is sent again."""


class Step(enum.StrEnum):
    ACTING = "acting"
    SETTLING = "settling"


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times are Unix seconds."""

    version: Literal[1] = 1
    """Of this format."""
    id: str
    kind: Kind
    step: Step = Step.ACTING
    vm: str | None = None
    """Name of the domain."""
    paths: tuple[str, ...] = ()
    """Devices that it attaches or detaches."""
    began_at: float
    settles_at: float = 0.0

    def __str__(self) -> str:
        what = " ".join(filter(None, (self.kind, self.vm, *self.paths)))
        return f"operation {self.id} ({what}, {self.step})"


class Operation:
    """One operation whose command runs."""

    def __init__(self, record: Record) -> None:
        self.id = record.id
        self.left = False
        self.settles = False

    def settle(self) -> None:
        """It is finished, and what is here of it is looked at once more: something may come, or not come, meanwhile."""
        self.settles = True

    def leave_open(self) -> None:
        """Something of it stays although the command succeeds; it is cleaned up later."""
        self.left = True


class Operations:
    """The open operations of this host. Files are the truth; safe for many tasks."""

    def __init__(self, runtime: Runtime, host: Host, directory: str) -> None:
        self._runtime = runtime
        self._host = host
        self._directory = directory
        self._guard = runtime.lock("operations")
        self._open: dict[str, Record] = {}
        self._running: set[str] = set()
        """Those whose command has not ended."""
        self._changed = runtime.event("operations")
        self.incomplete = True
        """What an earlier agent left could not all be read yet."""
        self._looked = False
        self._told: set[str] = set()
        """Files that are no records."""

    def load(self) -> None:
        """Find what an earlier agent left open; again while `incomplete`, also when commands run by then.

        A file that is no record is told and left alone, at every start.
        """
        first, self._looked = not self._looked, True
        try:
            names = self._host.list_directory(self._directory)
        except Error as error:
            _log.error("operations that an earlier agent may have left open cannot be looked for: %s", error)
            return
        complete = True
        for name in names:
            path = f"{self._directory}/{name}"
            if name.endswith(HALF_WRITTEN) and first:
                self._remove(path)
            elif name.endswith(SUFFIX) and path not in self._told:
                complete &= self._load(name.removesuffix(SUFFIX), path)
        self.incomplete = not complete

    @contextmanager
    def begin(self, kind: Kind, vm: str | None, paths: Iterable[str]) -> Iterator[Operation]:
        """Keep a record while the block runs; the caller holds the locks of the VM and the volumes.

        Raises `Unavailable` before the block when it cannot be written, unless it goes forward only: a VM must be able
        to be stopped when the disk is full, and sent again that command needs no record. After an error of the block
        it ends only when the block has undone everything.
        """
        record = Record(
            id=self._runtime.uuid(), kind=kind, vm=vm, paths=tuple(paths), began_at=round(self._runtime.now(), 3)
        )
        try:
            self._write(record)
        except Error as error:
            self._remove(self._file(record))
            if kind not in FORWARD_ONLY:
                raise
            _log.error("%s goes on without a record: %s", record, error)
        with self._guard:
            self._open[record.id] = record
            self._running.add(record.id)
        operation = Operation(record)
        try:
            yield operation
        except Exception as error:
            if _undone(kind, error):
                self.end(record)
            else:
                self._leave(record)
            raise
        if operation.left:
            self._leave(record)
        elif operation.settles:
            self._settle_after(record)
        else:
            self.end(record)

    def end(self, record: Record) -> None:
        """It is finished, or nothing is left of it. A file that cannot be removed is tried again later."""
        if not self._remove(self._file(record)):
            self._leave(record)
            return
        with self._guard:
            self._open.pop(record.id, None)
            self._running.discard(record.id)

    def settle(self, record: Record) -> None:
        """Look at it once more when it has settled. Raises `Unavailable` when that cannot be recorded."""
        settling = msgspec.structs.replace(
            record, step=Step.SETTLING, settles_at=round(self._runtime.now() + SETTLE_TIME, 3)
        )
        self._write(settling)
        with self._guard:
            older = [
                other
                for other in self._open.values()
                if other.step is Step.SETTLING and other.id != record.id and _subject(other) == _subject(record)
            ]
            self._open[record.id] = settling
        for other in older:
            self.end(other)
        self._changed.set()

    def attach_may_come_late(self, path: str) -> None:
        """An attachment of this device may be made after the request that asked for it is over."""
        record = Record(
            id=self._runtime.uuid(), kind=Kind.LATE_ATTACH, paths=(path,), began_at=round(self._runtime.now(), 3)
        )
        try:
            self.settle(record)
        except Error as error:
            _log.error("an attachment of %s that StorPool may make later cannot be looked for: %s", path, error)

    def holds(self, record: Record) -> bool:
        """Whether it is still open, as it was when it was listed."""
        with self._guard:
            return self._open.get(record.id) == record

    def left(self) -> list[Record]:
        """Open operations that no command works on, the oldest first."""
        with self._guard:
            found = [record for record in self._open.values() if record.id not in self._running]
        return sorted(found, key=lambda record: (record.began_at, record.id))

    def settled(self, record: Record) -> bool:
        return self.settles_in(record) <= 0

    def settles_in(self, record: Record) -> float:
        """Seconds until its settle time is over, never more than that however the clock was set."""
        return min(SETTLE_TIME, record.settles_at - self._runtime.now())

    def set_back(self, record: Record) -> bool:
        """Whether the clock was set back since it began to settle, so that it would settle later than it may."""
        return record.step is Step.SETTLING and record.settles_at - self._runtime.now() > SETTLE_TIME + CLOCK_SLACK

    def await_change(self, timeout: float | None) -> None:
        """Wait until an operation was left open, at most `timeout` seconds."""
        if not self._changed.wait(timeout):
            return
        self._changed = self._runtime.event("operations")

    def _settle_after(self, record: Record) -> None:
        try:
            self.settle(record)
        except Error as error:
            _log.warning("%s is looked at now, and not when it has settled: %s", record, error)
            self._leave(record)
            return
        with self._guard:
            self._running.discard(record.id)

    def _leave(self, record: Record) -> None:
        """It takes the place of older ones that were left of the same: what is looked at decides, and is the same."""
        with self._guard:
            older = [
                other
                for other in self._open.values()
                if other.step is Step.ACTING
                and other.id not in self._running
                and other.kind not in COPIES
                and _subject(other) == _subject(record)
                and (other.began_at, other.id) < (record.began_at, record.id)
            ]
            self._open[record.id] = record
            self._running.discard(record.id)
        for other in older:
            self.end(other)
        self._changed.set()

    def _load(self, name: str, path: str) -> bool:
        """Whether it need not be read again."""
        try:
            record = msgspec.json.decode(self._host.read_text(path), type=Record)
        except NotFound:
            return True
        except (InvalidParameter, msgspec.DecodeError) as error:
            self._told.add(path)
            _log.error("operation record %s cannot be read: %s; see what it was about, then remove it", path, error)
            return True
        except Error as error:
            _log.error("operation record %s cannot be read now, and is tried again: %s", path, error)
            return False
        if record.id != name:
            self._told.add(path)
            _log.error("operation record %s is that of %s; see what it is about, then remove it", path, record)
            return True
        with self._guard:
            if record.id in self._open:
                return True
            self._open[record.id] = record
        _log.warning("%s was left open", record)
        return True

    def _file(self, record: Record) -> str:
        return f"{self._directory}/{record.id}{SUFFIX}"

    def _write(self, record: Record) -> None:
        self._host.write_durably(self._file(record), msgspec.json.encode(record).decode())

    def _remove(self, path: str) -> bool:
        try:
            self._host.remove(path)
        except Error as error:
            _log.warning("%s stays: %s", path, error)
            return False
        return True


def _subject(record: Record) -> tuple[Kind, str | None, tuple[str, ...]]:
    return record.kind, record.vm, record.paths


def _undone(kind: Kind, error: Exception) -> bool:
    """Whether the handler has undone what it did. What could not be undone is a note of the error, or makes it
    `Unknown`."""
    if kind in FORWARD_ONLY or not isinstance(error, Error) or isinstance(error, Unknown):
        return False
    return not getattr(error, "__notes__", ())
