"""The SQLite database behind a store: a file, or memory."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Protocol

from harness.cloudstack.records import schema
from harness.spi.errors import Error

STATEMENTS = 512
"""Prepared statements that a connection keeps: more than there are different ones."""
Found = dict[str, dict[Any, Any]]
"""By table: rows by what was asked (Any: statement and parameters, or what makes the statement, with columns)."""
IDLE = 64
"""Connections that are kept for later stores in memory: more than there are images that explored clouds begin with."""


class Database(Protocol):
    """A connection, and the statements that begin and end a change on it."""

    connection: sqlite3.Connection
    """Closed after `close`."""
    found: Found | None
    """For what was read and has not changed since; None when others may change the database too."""
    begin: str
    commit: tuple[str, ...]
    undo: tuple[str, ...]

    def close(self) -> None: ...


class FileDatabase:
    """A file, made when it does not exist. `Error` for one of another version."""

    found: Found | None = None
    begin = "BEGIN IMMEDIATE"
    commit: tuple[str, ...] = ("COMMIT",)
    undo: tuple[str, ...] = ("ROLLBACK",)

    def __init__(self, path: Path) -> None:
        self.connection = _connect(str(path))
        try:
            self._prepare(path)
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        self.connection.close()

    def _prepare(self, path: Path) -> None:
        execute = self.connection.execute
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA busy_timeout = 10000")
        execute("BEGIN IMMEDIATE")
        (version,) = execute("PRAGMA user_version").fetchone()
        if version == 0:
            for sql in schema.statements():
                execute(sql)
        execute("COMMIT")
        if version not in (0, schema.version()):
            raise Error(
                f"records {path} have version {version}; this splab reads {schema.version()}: use another directory"
            )


class MemoryDatabase:
    """A copy of `image` that is gone when it is closed.

    All that happens to it is one transaction of SQLite, whose savepoints are the store's transactions. Closing rolls it
    back, and the connection, which has the image and every statement prepared, waits for the next store of this image.
    """

    begin = "SAVEPOINT change"
    commit: tuple[str, ...] = ("RELEASE change",)
    undo: tuple[str, ...] = ("ROLLBACK TO change", "RELEASE change")

    def __init__(self, image: bytes) -> None:
        self._image = image
        self.found: Found | None = {}
        self.connection = _take_idle(image) or _load(image)
        self.connection.execute("BEGIN")

    def close(self) -> None:
        connection, self.connection = self.connection, _CLOSED
        if connection is _CLOSED:
            return
        connection.execute("ROLLBACK")
        _idle.append((self._image, connection))
        if len(_idle) > IDLE:
            _idle.pop(0)[1].close()


_idle: list[tuple[bytes, sqlite3.Connection]] = []
"""Image and connection, the one that was used last at the end."""
_CLOSED = sqlite3.connect(":memory:")
_CLOSED.close()


def _take_idle(image: bytes) -> sqlite3.Connection | None:
    for index in reversed(range(len(_idle))):
        if _idle[index][0] == image:
            return _idle.pop(index)[1]
    return None


def _load(image: bytes) -> sqlite3.Connection:
    """A connection of its own to a copy. Not the deserialized one: that gives no image of what is not committed."""
    source, connection = _connect(":memory:"), _connect(":memory:")
    try:
        source.deserialize(image)
        source.backup(connection)
    except BaseException:
        connection.close()
        raise
    finally:
        source.close()
    return connection


def _connect(name: str) -> sqlite3.Connection:
    return sqlite3.connect(name, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS)
