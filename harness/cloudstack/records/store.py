"""The store of CloudStack's records: one SQLite database, transactions that wait for nobody, compare-and-set states."""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from harness.cloudstack.records import schema
from harness.cloudstack.records.database import Database, FileDatabase, Found, MemoryDatabase
from harness.cloudstack.records.rows import Row
from harness.spi.errors import Conflict, MisuseError, NotFound
from harness.spi.runtime import Lock, Runtime

R = TypeVar("R", bound=Row)
Value = str | int | float | bool | None
ANY = ""
"""Stands for a table that is not known."""
_Select = Callable[[type[Row], tuple[str, ...], tuple[str, ...]], str]
_CHANGES = re.compile(r"(?:UPDATE|INSERT INTO|DELETE FROM) (\w+) ")
KEPT = 1024
"""Reads of a table that are kept at most."""


class Transaction:
    """Statements of one transaction. Nothing that waits may be called while it is open."""

    def __init__(self, connection: sqlite3.Connection, runtime: Runtime, found: Found | None) -> None:
        """`found` keeps what was read until its table is changed: most reads are made again and again."""
        self._connection = connection
        self._runtime = runtime
        self._found = found
        self._changed: set[str] = set()
        self._now: float | None = None

    @property
    def now(self) -> float:
        """Unix seconds, the same for the whole transaction."""
        if self._now is None:
            self._now = self._runtime.now()
        return self._now

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> int:
        """Run a statement; the number of rows it changed."""
        return self._run(_changed_by(sql), sql, parameters).rowcount

    def scalar(self, sql: str, parameters: Sequence[Value] = (), table: str = ANY) -> Value:
        """First column of the first row, or None. `table` is the only one that is read, if there is one only."""
        rows = self._fetch(table, sql, parameters)
        value: Value = rows[0][0] if rows else None
        return value

    def integer(self, sql: str, parameters: Sequence[Value] = ()) -> int:
        """As `scalar`, for sums and counts: 0 when there is none."""
        return int(self.scalar(sql, parameters) or 0)

    def pairs(self, sql: str, parameters: Sequence[Value] = (), table: str = ANY) -> list[tuple[str, str]]:
        """Rows of two text columns; `table` as in `scalar`."""
        return list(self._fetch(table, sql, parameters))

    def texts(self, sql: str, parameters: Sequence[Value] = ()) -> list[str]:
        """Rows of one text column, without those that are NULL."""
        return [text for (text,) in self._connection.execute(sql, parameters) if text is not None]

    def find(self, kind: type[R], /, **columns: Value) -> R | None:
        """The first row whose columns have these values, or None."""
        rows = self._rows(kind, _find, columns)
        return rows[0] if rows else None

    def get(self, kind: type[R], id: int) -> R:
        """The row with this id; raises `NotFound`."""
        rows = self._rows(kind, _find, {"id": id})
        if not rows:
            raise NotFound(f"{kind.TABLE} has no row {id}")
        return rows[0]

    def all(self, kind: type[R], /, **columns: Value) -> list[R]:
        """All rows whose columns have these values, by id."""
        return list(self._rows(kind, _all, columns))

    def select(self, kind: type[R], where: str, parameters: Sequence[Value] = ()) -> list[R]:
        """Rows by a condition in SQL, with whatever follows it."""
        table = ANY if "SELECT" in where else kind.TABLE
        rows = self._fetch(table, f"{_select(kind)}{where}", parameters)
        return [msgspec.convert(row, kind, strict=False) for row in rows]

    def insert(self, row: R) -> R:
        """Store a new row; the same with its id. `Conflict` when a unique column is taken."""
        columns = _columns(type(row))
        try:
            done = self._run(row.TABLE, _insert(type(row)), [getattr(row, name) for name in columns])
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
        self._run(row.TABLE, f"DELETE FROM {row.TABLE} WHERE id = ?", (row.id,))

    def details(self, table: str, resource_id: int) -> dict[str, str]:
        """All details of one resource, by name."""
        sql = f"SELECT name, value FROM {table} WHERE resource_id = ? ORDER BY name"
        return dict(self.pairs(sql, (resource_id,), table))

    def set_detail(self, table: str, resource_id: int, name: str, value: str | None) -> None:
        """Set, or with None remove, one detail."""
        if value is None:
            self._run(table, f"DELETE FROM {table} WHERE resource_id = ? AND name = ?", (resource_id, name))
            return
        self._run(
            table,
            f"INSERT INTO {table} (resource_id, name, value, display) VALUES (?, ?, ?, 1)"
            " ON CONFLICT (resource_id, name) DO UPDATE SET value = excluded.value",
            (resource_id, name, value),
        )

    def _rows(self, kind: type[R], sql: _Select, columns: dict[str, Value]) -> Sequence[R]:
        """Rows by the statement that `sql` makes for these columns; they are frozen, so they can be kept as well."""
        of_table = self._kept(kind.TABLE)
        asked = (sql, kind, tuple(columns.items()))
        rows: Sequence[R] | None = None if of_table is None else of_table.get(asked)
        if rows is None:
            text = sql(kind, tuple(columns), _absent(columns))
            found = self._connection.execute(text, tuple(columns.values())).fetchall()
            rows = [msgspec.convert(row, kind, strict=False) for row in found]
            if of_table is not None:
                of_table[asked] = rows
        return rows

    def _fetch(self, table: str, sql: str, parameters: Sequence[Value]) -> Sequence[Any]:  # Any: the columns of each
        of_table = self._kept(table)
        if of_table is None:
            return self._connection.execute(sql, parameters).fetchall()
        asked = (sql, tuple(parameters))
        rows: Sequence[Any] | None = of_table.get(asked)
        if rows is None:
            rows = of_table[asked] = self._connection.execute(sql, parameters).fetchall()
        return rows

    def _kept(self, table: str) -> dict[Any, Any] | None:  # Any: as in `Found`
        """What was read of the table and holds; None when nothing may be kept."""
        found, changed = self._found, self._changed
        if found is None or (changed and (table == ANY or ANY in changed or table in changed)):
            return None
        of_table = found.get(table)
        if of_table is None:
            of_table = found[table] = {}
        elif len(of_table) >= KEPT:
            of_table.clear()
        return of_table

    def _run(self, table: str, sql: str, parameters: Sequence[Value]) -> sqlite3.Cursor:
        """A statement that changes this table only, or with ANY nobody knows which."""
        if self._found is not None:
            self._changed.add(table)
            if table == ANY:
                self._found.clear()
            else:
                self._found.pop(table, None)
                self._found.pop(ANY, None)
        return self._connection.execute(sql, parameters)

    def _change(self, row: R, columns: dict[str, Value], condition: str, expected: tuple[Value, ...]) -> R:
        changes = ", ".join(f"{name} = ?" for name in columns)
        sql = f"UPDATE {row.TABLE} SET {changes} WHERE id = ?{condition}"
        if self._run(row.TABLE, sql, (*columns.values(), row.id, *expected)).rowcount != 1:
            raise Conflict(f"{row.TABLE} {row.id} was changed by somebody else meanwhile; look at it and try again")
        return msgspec.structs.replace(row, **columns)


class Records:
    """The open store. Safe from several tasks: one transaction at a time."""

    def __init__(self, database: Database, runtime: Runtime) -> None:
        self._database = database
        self._runtime = runtime
        self._lock = runtime.lock("records")
        self._view = _View(database, runtime, self._lock)

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

    def transaction(self, what: str) -> AbstractContextManager[Transaction]:
        """All or nothing; `what` names the change at the runtime's commit point, without ids that differ by run."""
        return _Change(self._database, self._runtime, self._lock, what)

    def read(self) -> AbstractContextManager[Transaction]:
        """A consistent view; must not change anything. Nobody writes while it is open, so it needs no BEGIN."""
        return self._view


class _View:
    """A class and not a generator, as `_Change` is, because there are many and they are short. One serves all reads."""

    __slots__ = ("_database", "_fence", "_lock", "_runtime")

    def __init__(self, database: Database, runtime: Runtime, lock: Lock) -> None:
        self._database = database
        self._runtime = runtime
        self._lock = lock
        self._fence = runtime.transaction()

    def __enter__(self) -> Transaction:
        self._lock.acquire()
        try:
            self._fence.__enter__()
        except BaseException:
            self._lock.release()
            raise
        return Transaction(self._database.connection, self._runtime, self._database.found)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fence.__exit__(kind, error, trace)
        self._lock.release()


class _Change(_View):
    __slots__ = ("_what",)

    def __init__(self, database: Database, runtime: Runtime, lock: Lock, what: str) -> None:
        super().__init__(database, runtime, lock)
        self._what = what

    def __enter__(self) -> Transaction:
        change = super().__enter__()
        try:
            self._database.connection.execute(self._database.begin)
        except BaseException:
            super().__exit__(None, None, None)
            raise
        return change

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        database, ending = self._database, self._database.undo
        try:
            if kind is None:
                self._runtime.now()  # raises Dead: a process that was killed meanwhile must not commit
                ending = database.commit
        finally:
            try:
                for sql in ending:
                    database.connection.execute(sql)
            finally:
                super().__exit__(kind, error, trace)
        if kind is None:
            self._runtime.point("commit", self._what)


@functools.cache
def _changed_by(sql: str) -> str:
    """The table that a statement changes, or ANY."""
    found = _CHANGES.match(sql)
    return ANY if found is None else found[1]


@functools.cache
def _where(names: tuple[str, ...], absent: tuple[str, ...]) -> str:
    """The condition that these columns have given values, or none when they are `absent`."""
    return " AND ".join(f"{name} IS ?" if name in absent else f"{name} = ?" for name in names) or "1"


def _absent(columns: dict[str, Value]) -> tuple[str, ...]:
    if None not in columns.values():
        return ()
    return tuple(name for name, value in columns.items() if value is None)


@functools.cache
def _find(kind: type[Row], names: tuple[str, ...], absent: tuple[str, ...]) -> str:
    return f"{_select(kind)}{_where(names, absent)} ORDER BY id LIMIT 1"


@functools.cache
def _all(kind: type[Row], names: tuple[str, ...], absent: tuple[str, ...]) -> str:
    return f"{_select(kind)}{_where(names, absent)} ORDER BY id"


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
