"""The store of CloudStack's records: one SQLite database, transactions that wait for nobody, compare-and-set states."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from harness.cloudstack.records import schema
from harness.cloudstack.records.database import Database, FileDatabase, MemoryDatabase
from harness.cloudstack.records.rows import Row
from harness.spi.errors import Conflict, MisuseError, NotFound
from harness.spi.runtime import Lock, Runtime

R = TypeVar("R", bound=Row)
Value = str | int | float | bool | None


class Transaction:
    """Statements of one transaction. Nothing that waits may be called while it is open."""

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self._connection = connection
        self.now = now

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> int:
        """Run a statement; the number of rows it changed."""
        return self._connection.execute(sql, parameters).rowcount

    def scalar(self, sql: str, parameters: Sequence[Value] = ()) -> Value:
        """First column of the first row, or None."""
        row = self._connection.execute(sql, parameters).fetchone()
        value: Value = row[0] if row else None
        return value

    def integer(self, sql: str, parameters: Sequence[Value] = ()) -> int:
        """As `scalar`, for sums and counts: 0 when there is none."""
        return int(self.scalar(sql, parameters) or 0)

    def pairs(self, sql: str, parameters: Sequence[Value] = ()) -> list[tuple[str, str]]:
        """Rows of two text columns."""
        return self._connection.execute(sql, parameters).fetchall()

    def find(self, kind: type[R], /, **columns: Value) -> R | None:
        """The first row whose columns have these values, or None."""
        sql = f"{_select(kind)}{_equal(columns)} ORDER BY id LIMIT 1"
        row = self._connection.execute(sql, tuple(columns.values())).fetchone()
        return None if row is None else msgspec.convert(row, kind, strict=False)

    def get(self, kind: type[R], id: int) -> R:
        """The row with this id; raises `NotFound`."""
        row = self.find(kind, id=id)
        if row is None:
            raise NotFound(f"{kind.TABLE} has no row {id}")
        return row

    def all(self, kind: type[R], /, **columns: Value) -> list[R]:
        """All rows whose columns have these values, by id."""
        return self.select(kind, f"{_equal(columns)} ORDER BY id", tuple(columns.values()))

    def select(self, kind: type[R], where: str, parameters: Sequence[Value] = ()) -> list[R]:
        """Rows by a condition in SQL, with whatever follows it."""
        fetched = self._connection.execute(f"{_select(kind)}{where}", parameters).fetchall()
        return [msgspec.convert(row, kind, strict=False) for row in fetched]

    def insert(self, row: R) -> R:
        """Store a new row; the same with its id. `Conflict` when a unique column is taken."""
        columns = _columns(type(row))
        try:
            done = self._connection.execute(_insert(type(row)), [getattr(row, name) for name in columns])
        except sqlite3.IntegrityError as error:
            raise Conflict(f"{row.TABLE}: {error}") from None
        return msgspec.structs.replace(row, id=done.lastrowid)

    def update(self, row: R, **columns: Value) -> R:
        """Change columns other than the state of a row with a state machine."""
        if row.MACHINE and "state" in columns:
            raise MisuseError(f"the state of {row.TABLE} is changed by transition() only")
        return self._change(row, columns, "", ())

    def transition(self, row: R, event: str, **columns: Value) -> R:
        """Compare-and-set: from the state that `row` shows to the one after `event`, and other columns with it.

        Raises `IllegalTransition` when the machine does not know the event in that state, `Conflict` when the row has
        left the state since `row` was read.
        """
        if row.MACHINE is None:
            raise MisuseError(f"{row.TABLE} has no state machine")
        before = row.state  # type: ignore[attr-defined]  # every row with a machine has a state
        columns["state"] = row.MACHINE.after(before, event)
        return self._change(row, columns, " AND state = ?", (before,))

    def delete(self, row: Row) -> None:
        self.execute(f"DELETE FROM {row.TABLE} WHERE id = ?", (row.id,))

    def details(self, table: str, resource_id: int) -> dict[str, str]:
        """All details of one resource, by name."""
        return dict(self.pairs(f"SELECT name, value FROM {table} WHERE resource_id = ? ORDER BY name", (resource_id,)))

    def set_detail(self, table: str, resource_id: int, name: str, value: str | None) -> None:
        """Set, or with None remove, one detail."""
        if value is None:
            self.execute(f"DELETE FROM {table} WHERE resource_id = ? AND name = ?", (resource_id, name))
            return
        self.execute(
            f"INSERT INTO {table} (resource_id, name, value, display) VALUES (?, ?, ?, 1)"
            " ON CONFLICT (resource_id, name) DO UPDATE SET value = excluded.value",
            (resource_id, name, value),
        )

    def _change(self, row: R, columns: dict[str, Value], condition: str, expected: tuple[Value, ...]) -> R:
        changes = ", ".join(f"{name} = ?" for name in columns)
        sql = f"UPDATE {row.TABLE} SET {changes} WHERE id = ?{condition}"
        if self.execute(sql, (*columns.values(), row.id, *expected)) != 1:
            raise Conflict(f"{row.TABLE} {row.id} was changed by somebody else meanwhile; look at it and try again")
        return msgspec.structs.replace(row, **columns)


class Records:
    """The open store. Safe from several tasks: one transaction at a time."""

    def __init__(self, database: Database, runtime: Runtime) -> None:
        self._database = database
        self._runtime = runtime
        self._lock = runtime.lock("records")

    @staticmethod
    def open(path: Path | None, runtime: Runtime, image: bytes | None = None) -> Records:
        """Open or make the store in a file, or with None a new one in memory, cloned from `image` (default: empty)."""
        if path is not None:
            return Records(FileDatabase(path), runtime)
        return Records(MemoryDatabase(image or schema.empty_image()), runtime)

    def reopen(self, runtime: Runtime) -> Records:
        """The same store for the next process, after this one was killed; for stores in memory."""
        return Records(self._database, runtime)

    def image(self) -> bytes:
        """A copy of the whole store, for `open`."""
        with self._lock:
            return bytes(self._database.connection.serialize())

    def close(self) -> None:
        """Nobody may use the store any more; one in memory is gone."""
        self._database.close()

    @contextmanager
    def transaction(self, what: str) -> Iterator[Transaction]:
        """All or nothing; `what` names the change at the runtime's commit point, without ids that differ by run."""
        with self._lock:
            with self._runtime.transaction():
                database = self._database
                connection = database.connection
                connection.execute(database.begin)
                try:
                    yield Transaction(connection, self._runtime.now())
                    self._runtime.now()  # raises Dead: a process that was killed meanwhile must not commit
                except BaseException:
                    for sql in database.undo:
                        connection.execute(sql)
                    raise
                for sql in database.commit:
                    connection.execute(sql)
        self._runtime.point("commit", what)

    def read(self) -> AbstractContextManager[Transaction]:
        """A consistent view; must not change anything. Nobody writes while it is open, so it needs no BEGIN."""
        return _View(self._database, self._runtime, self._lock)


class _View:
    """A class and not a generator, because reads are many and short."""

    __slots__ = ("_database", "_fence", "_lock", "_runtime")

    def __init__(self, database: Database, runtime: Runtime, lock: Lock) -> None:
        self._database = database
        self._runtime = runtime
        self._lock = lock
        self._fence = runtime.transaction()

    def __enter__(self) -> Transaction:
        self._lock.acquire()
        try:
            view = Transaction(self._database.connection, self._runtime.now())
            self._fence.__enter__()
        except BaseException:
            self._lock.release()
            raise
        return view

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fence.__exit__(kind, error, trace)
        self._lock.release()


@functools.cache
def _where(names: tuple[str, ...], absent: tuple[str, ...]) -> str:
    """The condition that these columns have given values, or none when they are `absent`."""
    return " AND ".join(f"{name} IS ?" if name in absent else f"{name} = ?" for name in names) or "1"


def _equal(columns: dict[str, Value]) -> str:
    absent = () if None not in columns.values() else tuple(name for name, value in columns.items() if value is None)
    return _where(tuple(columns), absent)


@functools.cache
def _columns(kind: type[Row]) -> tuple[str, ...]:
    return tuple(name for name in kind.__struct_fields__ if name != "id")


@functools.cache
def _select(kind: type[Row]) -> str:
    return f"SELECT {', '.join(kind.__struct_fields__)} FROM {kind.TABLE} WHERE "


@functools.cache
def _insert(kind: type[Row]) -> str:
    columns = _columns(kind)
    return f"INSERT INTO {kind.TABLE} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
