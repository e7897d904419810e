"""What a service keeps in the key-value store: its configuration, and why something is not done.

Each has a bucket of its own. Under `config` a user puts the configuration; under `problems` the service tells, one a
line, what keeps it from its work, among it why a configuration is not taken. The key is gone when there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from simulator.api.schema.answers import Ok
from simulator.cluster.plan import Plan
from simulator.cluster.records import Bucket, Event, Put
from simulator.cluster.state import State

CONFIG = "config"
PROBLEMS = "problems"
MOST_PROBLEMS = 100
LONGEST_PROBLEM = 500
"""Characters."""


class ConfigError(ValueError):
    """A configuration is not taken; the text says where it is wrong."""


def config(state: State, bucket: str) -> str | None:
    found = state.find_bucket(bucket)
    return None if found is None else found.pairs.get(CONFIG)


def problems(state: State, bucket: str) -> str:
    found = state.find_bucket(bucket)
    return "" if found is None else found.pairs.get(PROBLEMS, "")


def report(state: State, bucket: str, lines: Sequence[str]) -> Plan | None:
    """The change that shows these problems and no others; None when they are shown already."""
    words = [" ".join(line.split()) for line in lines]
    shown = [line if len(line) <= LONGEST_PROBLEM else line[: LONGEST_PROBLEM - 3] + "..." for line in words]
    if len(shown) > MOST_PROBLEMS:
        shown[MOST_PROBLEMS:] = [f"and {len(lines) - MOST_PROBLEMS} more"]
    text = "\n".join(shown)
    found = state.find_bucket(bucket)
    if found is None or found.pairs.get(PROBLEMS, "") == text:
        return None
    pairs = {**found.pairs, PROBLEMS: text}
    if not text:
        del pairs[PROBLEMS]
    return Plan(Ok(), [Put(_with(found, pairs))], touches=(f"bucket {bucket}",))


def imported(state: State, configurations: Mapping[str, str]) -> list[Event]:
    """By bucket, configurations for the services that have none yet; a bucket that is missing is made."""
    events: list[Event] = []
    next_id = state.next_id["bucket"]
    for name, text in configurations.items():
        if config(state, name) is not None:
            continue
        found = state.find_bucket(name)
        if found is None:
            found = Bucket(id=next_id, name=name)
            next_id += 1
        events.append(Put(_with(found, {**found.pairs, CONFIG: text})))
    return events


def _with(bucket: Bucket, pairs: dict[str, str]) -> Bucket:
    return msgspec.structs.replace(bucket, pairs=pairs, version=bucket.version + 1)


class Looks:
    """When a service looks again: once a period, and at once when its configuration is another or it was started."""

    def __init__(self) -> None:
        self._config: str | None = None
        self._next = 0.0

    def due_at(self, state: State, bucket: str) -> float | None:
        """Unix seconds; None without a configuration. What it said to one that is gone is still to be taken back."""
        found = config(state, bucket)
        if found is None:
            return 0.0 if problems(state, bucket) else None
        return self._next if found == self._config else 0.0

    def begin(self, found: str | None, now: float, period: float) -> None:
        self._config, self._next = found, now + period
