"""A run's journal for people: without what says nothing of what was asked of whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.runtime.journal import SCHEDULE, Entry

_NOISE = ("queryAsyncJobResult", "PingCommand", "host answered")
_HIDDEN = (SCHEDULE, "answer")


def without_noise(journal: Sequence[Entry]) -> Iterator[Entry]:
    """Requests, effects and faults; not the schedule, answers, pings and polls."""
    for entry in journal:
        _, _, what, detail = entry
        if what not in _HIDDEN and not any(word in detail for word in _NOISE):
            yield entry


def shown(entry: Entry) -> str:
    """One line; the time is virtual seconds since the start of the run."""
    time, who, what, detail = entry
    return f"{time:10.2f} {who} {what} {detail}"
