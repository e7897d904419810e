"""Journal records as a person reads them: what was put and dropped, by table, id and name, and never what it holds."""

from __future__ import annotations

from itertools import islice

import msgspec

from simulator.cluster.records import (
    AnyRecord,
    Applied,
    Bucket,
    Group,
    JournalRecord,
    Object,
    Prepared,
    Put,
    Snapshot,
    Template,
)

MOST_EVENTS = 20
"""Of one record that are told."""


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    number: int
    """Counts the records since the start."""
    record: str
    """applied, or prepared and then committed or aborted."""
    change: int | None = None
    """Of prepared, committed and aborted: which belong together."""
    put: list[str] = []
    drop: list[str] = []
    more: int = 0
    """Events that are not told."""


def told(number: int, record: JournalRecord) -> Told:
    kind = str(record.__struct_config__.tag)
    if isinstance(record, Applied | Prepared):
        shown = list(islice(record.events, MOST_EVENTS))
        return Told(
            number=number,
            record=kind,
            change=record.change if isinstance(record, Prepared) else None,
            put=[_title(event.record) for event in shown if isinstance(event, Put)],
            drop=[f"{event.table} {event.id}" for event in shown if not isinstance(event, Put)],
            more=len(record.events) - len(shown),
        )
    return Told(number=number, record=kind, change=None if isinstance(record, Snapshot) else record.change)


def _title(record: AnyRecord) -> str:
    title = f"{record.__struct_config__.tag} {record.id}"
    if isinstance(record, Object):
        return f"{title} {record.shown_name}"
    return f"{title} {record.name}" if isinstance(record, Template | Group | Bucket) else title
