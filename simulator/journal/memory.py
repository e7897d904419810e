"""A journal in memory, which forgets what was not synced when its process is killed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class MemoryJournal:
    """Durable as long as the object lives: hand the same one to the next `Service`."""

    def __init__(self, records: Iterable[bytes] = ()) -> None:
        """`records` are what an earlier life has synced."""
        self._records = list(records)
        self._synced = len(self._records)

    def replay(self) -> Iterator[bytes]:
        """Only what was synced: a killed process loses its buffer."""
        del self._records[self._synced :]
        return iter(tuple(self._records))

    def append(self, record: bytes) -> None:
        self._records.append(record)

    def sync(self) -> None:
        self._synced = len(self._records)

    def compact(self, snapshot: bytes) -> None:
        self._records = [snapshot]
        self._synced = 1

    def close(self) -> None:
        """Nothing to let go of."""
