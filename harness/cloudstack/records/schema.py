"""The tables, made from the row classes, and the image that stores in memory are cloned from."""

from __future__ import annotations

import functools
import sqlite3
import types
import typing
import zlib
from typing import Any

from harness.cloudstack.records.rows import DETAIL_TABLES, ROWS, Detail, Row


def statements() -> list[str]:
    """SQL that makes an empty store."""
    return [*_tables(), f"PRAGMA user_version = {version()}"]


@functools.cache
def version() -> int:
    """Of the tables, 31 bits, kept in `PRAGMA user_version`: a file whose tables are others is refused."""
    return zlib.crc32("\n".join(_tables()).encode()) >> 1


def _tables() -> list[str]:
    made = [sql for row in ROWS for sql in _table(row)]
    for table in DETAIL_TABLES:
        made.append(f"CREATE TABLE {table} ({_columns(Detail)}, UNIQUE (resource_id, name))")
    made.append("CREATE UNIQUE INDEX operations_open ON operations (subject, kind) WHERE outcome IS NULL")
    return made


@functools.cache
def empty_image() -> bytes:
    """A serialized empty store; loading it costs a copy instead of forty statements."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.execute("PRAGMA page_size = 512")
        for sql in statements():
            connection.execute(sql)
        return bytes(connection.serialize())
    finally:
        connection.close()


def _table(row: type[Row]) -> list[str]:
    unique = f", UNIQUE ({', '.join(row.UNIQUE)})" if row.UNIQUE else ""
    sql = [f"CREATE TABLE {row.TABLE} ({_columns(row)}{unique})"]
    sql += [f"CREATE INDEX {row.TABLE}_{column} ON {row.TABLE} ({column})" for column in row.INDEX]
    if "uuid" in row.__struct_fields__ and "uuid" not in row.UNIQUE:
        sql.append(f"CREATE UNIQUE INDEX {row.TABLE}_uuid ON {row.TABLE} (uuid)")
    return sql


def _columns(row: type[Row]) -> str:
    hints = typing.get_type_hints(row)
    return ", ".join(_column(name, hints[name]) for name in row.__struct_fields__)


def _column(name: str, hint: Any) -> str:  # Any: an annotation may be a class or a union
    if name == "id":
        return "id INTEGER PRIMARY KEY"
    kinds = [hint]
    if isinstance(hint, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    kind = kinds[0]
    sql = "TEXT" if issubclass(kind, str) else "REAL" if kind is float else "INTEGER"
    return f"{name} {sql}" if len(kinds) < len(typing.get_args(hint)) else f"{name} {sql} NOT NULL"
