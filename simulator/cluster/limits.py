"""The limits of volumes as the devices of clients are held to them (spec storpool-api 4, 5.1, 7.3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from simulator.cluster.effects import Limit
from simulator.cluster.records import Event, Object, Put
from simulator.cluster.state import State
from simulator.settings import Settings

GIB = 1 << 30


def of(settings: Settings, found: Object) -> tuple[int, int]:
    """(IOPS, bytes a second) of reads, and of writes, of each device; 0 is unlimited."""
    scale = max(found.size / GIB, 1 / GIB) if found.limit_type == "perGiB" else 1.0
    iops, bandwidth = max(found.iops, 0), max(found.bw, 0)
    return _at_least_one(iops * scale), _at_least_one(bandwidth * scale * settings.bandwidth_unit_bytes)


def _at_least_one(limit: float) -> int:
    """A limit of a small volume must not become none."""
    return max(1, int(limit)) if limit else 0


def changes(state: State, settings: Settings, events: Iterable[Event]) -> Iterator[Limit]:
    """What devices have to be told, before the events, of limits that are others after them."""
    for event in events:
        if not isinstance(event, Put) or not isinstance(event.record, Object) or not event.record.attachments:
            continue
        new, old = event.record, state.objects.get(event.record.id)
        before = of(settings, old) if old is not None and old.attachments else (0, 0)
        after = of(settings, new)
        if after != before:
            yield Limit(new.id, *after, before)
