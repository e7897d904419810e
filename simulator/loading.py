"""From a journal to the committed state, and the state that a cluster without one begins with."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from simulator.cluster import seed
from simulator.cluster.cluster import replay
from simulator.cluster.records import Applied, JournalRecord
from simulator.cluster.state import State
from simulator.ports import Journal, JournalError
from simulator.services import kept
from simulator.settings import Settings

encode_record = msgspec.msgpack.Encoder().encode
_record_decoder = msgspec.msgpack.Decoder(JournalRecord)


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection: what is loaded stays, and looking through it again and again takes longer than loading."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_uncollected()
def load(journal: Journal, settings: Settings, configurations: Mapping[str, str]) -> State:
    """What interrupted changes left open is settled in the journal too, durably. Raises `JournalError`.

    `configurations` of services, by bucket, are for a key-value store that has none.
    """
    state, settling = replay(_records(journal))
    if not state.generation:
        first = Applied(seed.events(settings))
        state.commit(first.events)
        settling.append(first)
    settling += _imported(state, configurations)
    for record in settling:
        journal.append(encode_record(record))
    if settling:
        journal.sync()
    return state


def empty(settings: Settings, configurations: Mapping[str, str]) -> State:
    """The small cluster that an empty journal leads to."""
    state = State()
    state.commit(seed.events(settings))
    _imported(state, configurations)
    return state


def not_imported(state: State, configurations: Mapping[str, str]) -> list[str]:
    """Buckets whose configuration is another than the one that was given: the store's stands."""
    return [bucket for bucket, text in configurations.items() if kept.config(state, bucket) not in (None, text)]


def _imported(state: State, configurations: Mapping[str, str]) -> list[JournalRecord]:
    events = kept.imported(state, configurations)
    if not events:
        return []
    state.commit(events)
    return [Applied(events)]


def _records(journal: Journal) -> Iterator[JournalRecord]:
    for at, record in enumerate(journal.replay()):
        try:
            yield _record_decoder.decode(record)
        except msgspec.DecodeError as error:
            text = f"record {at} of the journal is not one of this simulator's version: {error}"
            raise JournalError(text) from error
