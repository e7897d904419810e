"""The file of a transcript; its format is told in the package's docstring."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

LONGEST_LINE = 64 << 20
MOST_EXCHANGES = 1_000_000


class TranscriptError(Exception):
    """A file is no transcript; the text says where."""


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    transcript: Literal[1] = 1
    started: float
    """Unix time."""
    cluster: Literal["simulator", "real"] = "simulator"
    note: str = ""


class Exchange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    at: float
    """Seconds after `Header.started` when it was asked."""
    took: float
    """Seconds until it was answered."""
    verb: Literal["GET", "POST"]
    path: str
    """Behind `/ctrl/1.0/`, percent-decoded."""
    json: Any | UnsetType = UNSET
    status: int
    answer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Transcript:
    header: Header
    exchanges: tuple[Exchange, ...]


class Writer:
    """Writes to a new file that nobody else may read; each exchange is in it when `add` returns."""

    def __init__(self, path: Path, header: Header) -> None:
        """Raises `FileExistsError`: a recording is never written over."""
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)
        self._file.write(msgspec.json.encode(header) + b"\n")

    def add(self, exchange: Exchange) -> None:
        self._file.write(msgspec.json.encode(exchange) + b"\n")

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> Transcript:
    """Raises `TranscriptError`, and `OSError` when the file cannot be read."""
    exchanges: list[Exchange] = []
    header: Header | None = None
    with path.open("rb") as file:
        for number in range(1, MOST_EXCHANGES + 2):
            line = file.readline(LONGEST_LINE + 1)
            if not line:
                break
            if len(line) > LONGEST_LINE:
                raise TranscriptError(f"{path}, line {number}: longer than {LONGEST_LINE} bytes")
            try:
                if header is None:
                    header = msgspec.json.decode(line, type=Header)
                else:
                    exchanges.append(msgspec.json.decode(line, type=Exchange))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise TranscriptError(f"{path}, line {number}: {error}") from error
        else:
            raise TranscriptError(f"{path}: more than {MOST_EXCHANGES} exchanges")
    if header is None:
        raise TranscriptError(f"{path} is empty")
    return Transcript(header, tuple(exchanges))
