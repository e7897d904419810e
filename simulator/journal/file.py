"""The journal as one append-only file.

    file     header, records
    header   16 bytes: "splabjnl", format version, whether the first record is a snapshot, CRC-32
    record   24 bytes: length, flags, sequence number, CRC-32 of the payload, CRC-32 of these 20 bytes; then the payload

All numbers are little-endian. Because a record's own header is checksummed, a length that reaches beyond the end of
the file was really written so: only then, or where the file ends inside a header or in nothing but zeroes, is the tail
a torn write, which was never acknowledged and is cut. Everything else that does not fit is damage and stops the
simulator.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from simulator.ports import JournalError

_MAGIC = b"splabjnl"
_VERSION = 1
_FILE_HEADER = struct.Struct("<8sHHI")
_RECORD_HEADER = struct.Struct("<IIQII")
_CHECK = struct.Struct("<I")
_SNAPSHOT = 1
_LARGEST = 1 << 30
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class _Record:
    offset: int
    sequence: int
    payload: bytes

    @property
    def end(self) -> int:
        return self.offset + _RECORD_HEADER.size + len(self.payload)


class FileJournal:
    """Not thread-safe; one process at a time (the state directory's lock sees to it).

    After an error of the disk nothing more is accepted: what the file holds then is known only to the next start.
    """

    def __init__(self, path: Path) -> None:
        """Opens or makes the file, checks it from end to end and cuts a torn tail. Raises `JournalError` on damage."""
        self._path = path
        self._buffer: list[bytes] = []
        self._broken: str | None = None
        path.with_suffix(".new").unlink(missing_ok=True)
        try:
            if not path.exists():
                self._write_whole(b"", starts_with_snapshot=False)
            self._next, self._end, torn = self._check()
            self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            if torn:
                os.ftruncate(self._file, self._end)
                os.fsync(self._file)
        except OSError as error:
            raise JournalError(f"opening journal {path}: {error.strerror}") from error
        self.torn = f"journal {path}: cut {torn} bytes of a torn write at byte {self._end}" if torn else None
        """What was cut when the file was opened, for the log."""

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._end

    def replay(self) -> Iterator[bytes]:
        self.sync()
        with self._path.open("rb") as file:
            for record in _Reader(self._path, file).records():
                yield record.payload

    def append(self, record: bytes) -> None:
        self._refuse_if_broken()
        self._buffer.append(_encode(record, self._next, 0))
        self._next += 1

    def sync(self) -> None:
        self._refuse_if_broken()
        if not self._buffer:
            return
        data = b"".join(self._buffer)
        try:
            _write(self._file, data, self._end)
            os.fdatasync(self._file)
        except OSError as error:
            raise self._break(f"writing {len(data)} bytes at byte {self._end}", error) from error
        self._buffer.clear()
        self._end += len(data)

    def compact(self, snapshot: bytes) -> None:
        self._refuse_if_broken()
        record = _encode(snapshot, self._next, _SNAPSHOT)
        try:
            self._write_whole(record, starts_with_snapshot=True)
            file = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._break("replacing it by a snapshot", error) from error
        os.close(self._file)
        self._file = file
        self._buffer.clear()
        self._end = _FILE_HEADER.size + len(record)
        self._next += 1

    def close(self) -> None:
        """What was not synced is forgotten."""
        if self._broken is None:
            self._broken = "it is closed"
            os.close(self._file)

    def _write_whole(self, record: bytes, *, starts_with_snapshot: bool) -> None:
        """Beside, then renamed: at every moment the path holds a whole journal, the old or the new one."""
        new = self._path.with_suffix(".new")
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            data = _file_header(_SNAPSHOT if starts_with_snapshot else 0) + record
            _write(file, data, 0)
            os.fsync(file)
        finally:
            os.close(file)
        new.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _check(self) -> tuple[int, int, int]:
        """(next sequence number, end of what is whole, torn bytes after it)."""
        number, end = 1, _FILE_HEADER.size
        with self._path.open("rb") as file:
            reader = _Reader(self._path, file)
            for record in reader.records():
                number, end = record.sequence + 1, record.end
            return number, end, reader.size - end

    def _refuse_if_broken(self) -> None:
        if self._broken is not None:
            raise JournalError(f"journal {self._path} takes nothing more: {self._broken}")

    def _break(self, what: str, error: OSError) -> JournalError:
        self._broken = f"{what}: {error.strerror}"
        os.close(self._file)
        return JournalError(f"journal {self._path}: {self._broken}. Stop, make room or mend the disk, and start again")


def _write(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def _file_header(flags: int) -> bytes:
    head = _FILE_HEADER.pack(_MAGIC, _VERSION, flags, 0)[: -_CHECK.size]
    return head + _CHECK.pack(zlib.crc32(head))


def _encode(payload: bytes, sequence: int, flags: int) -> bytes:
    if len(payload) > _LARGEST:
        raise JournalError(f"a record of {len(payload)} bytes is too long for the journal; the limit is {_LARGEST}")
    head = _RECORD_HEADER.pack(len(payload), flags, sequence, zlib.crc32(payload), 0)[: -_CHECK.size]
    return head + _CHECK.pack(zlib.crc32(head)) + payload


class _Reader:
    """Reads a file once, from the start to its last whole record."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    def records(self) -> Iterator[_Record]:
        snapshot = self._header() == _SNAPSHOT
        offset, expected = _FILE_HEADER.size, None
        while (record := self._record(offset, snapshot=snapshot)) is not None:
            if expected is not None and record.sequence != expected:
                raise self._damage(offset, f"record {record.sequence} stands where {expected} should")
            yield record
            offset, expected, snapshot = record.end, record.sequence + 1, False
        if snapshot:
            raise self._damage(offset, "the snapshot that it begins with is incomplete")

    def _header(self) -> int:
        raw = self._file.read(_FILE_HEADER.size)
        if len(raw) < _FILE_HEADER.size or not raw.startswith(_MAGIC):
            raise self._damage(0, "this is not a journal of splab-simulator")
        _, version, flags, check = _FILE_HEADER.unpack(raw)
        if check != zlib.crc32(raw[: -_CHECK.size]):
            raise self._damage(0, "the header's checksum is wrong")
        if version != _VERSION:
            raise self._damage(0, f"version {version} is not known; this splab-simulator reads {_VERSION}")
        return int(flags)

    def _record(self, offset: int, *, snapshot: bool) -> _Record | None:
        """The record there; None at the end and where a torn write begins."""
        raw = self._file.read(_RECORD_HEADER.size)
        if len(raw) < _RECORD_HEADER.size:
            return None
        length, flags, sequence, check, head_check = _RECORD_HEADER.unpack(raw)
        if head_check != zlib.crc32(raw[: -_CHECK.size]):
            if not any(raw) and self._only_zeroes():
                return None
            raise self._damage(offset, "the checksum of a record's header is wrong")
        if flags != (_SNAPSHOT if snapshot else 0):
            raise self._damage(offset, "a snapshot stands where it may not, or is missing where it must stand")
        if offset + _RECORD_HEADER.size + length > self.size:
            return None
        payload = self._file.read(length)
        if check != zlib.crc32(payload):
            raise self._damage(offset, f"the checksum of record {sequence} is wrong")
        return _Record(offset, sequence, payload)

    def _only_zeroes(self) -> bool:
        return not any(any(chunk) for chunk in iter(lambda: self._file.read(_CHUNK), b""))

    def _damage(self, offset: int, what: str) -> JournalError:
        return JournalError(
            f"journal {self._path} is damaged at byte {offset}: {what}. Nothing was changed; restore the state "
            "directory from a copy, or give it up with --destroy"
        )
