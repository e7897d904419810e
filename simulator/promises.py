"""What may be said and begun only once the journal has it on disk.

With `later`, which calls what it is given when the calls that have arrived meanwhile are served, these share one sync
of the journal; without, each change has its own. An intent then shares the sync of its commit, for a start discards
what was interrupted, and `Blocks.reconcile` brings the blocks back to what is committed, whether the intent is known or
not. Only one that a start would complete is on disk first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from simulator.cluster.cluster import Work
from simulator.cluster.records import JournalRecord, Prepared
from simulator.cluster.state import State
from simulator.loading import encode_record
from simulator.ports import Journal, JournalError, Reply

Later = Callable[[Callable[[], None]], None]
_TOLD_CHANGES = 200


@dataclass(slots=True)
class Promise:
    replies: list[tuple[int, Reply]]
    """By number of the call."""
    work: list[Work]


class Promises:
    """Over one journal. `carry_on` keeps a promise; `broken` hears of a journal that cannot be written, after which
    nothing more may be served: the state in memory is ahead of it."""

    def __init__(
        self,
        journal: Journal,
        later: Later | None,
        carry_on: Callable[[Promise], None],
        broken: Callable[[Exception], None],
    ) -> None:
        self._journal = journal
        self._later = later
        self._carry_on = carry_on
        self._broken = broken
        self._open: list[Promise] = []
        self._written = 0
        self._since_compaction = 0
        self._last_changes: deque[tuple[int, JournalRecord]] = deque(maxlen=_TOLD_CHANGES)

    @property
    def last_changes(self) -> Iterable[tuple[int, JournalRecord]]:
        """The last records of this process, each with its number."""
        return tuple(self._last_changes)

    def make(self, records: list[JournalRecord], promise: Promise) -> None:
        """After these records are on disk, and those before them: an answer may tell of what they changed."""
        if not records and not self._open:
            self._carry_on(promise)
            return
        if not self._append(records):
            return
        if self._later is None:
            self._open.append(promise)
            self.keep()
            return
        if not promise.replies and all(isinstance(one, Prepared) and not one.forward for one in records):
            self._carry_on(promise)  # the sync of the commit is soon enough for the intent
            return
        self._open.append(promise)
        if len(self._open) == 1:
            self._later(self.keep)

    def keep(self) -> None:
        """All that are open, now."""
        if not self._open:
            return
        kept, self._open = self._open, []
        try:
            self._journal.sync()
        except (JournalError, OSError) as error:
            self._break(error)
            return
        for promise in kept:
            self._carry_on(promise)

    def compact(self, state: State, every: int) -> None:
        """Replace the journal by the state, if so many records were written since that was done."""
        if self._since_compaction >= every:
            self._since_compaction = 0
            self._journal.compact(encode_record(state.snapshot_record()))

    def begin_anew(self, state: State) -> None:
        """The journal holds this state only, and nothing of the changes before it is told."""
        self._journal.compact(encode_record(state.snapshot_record()))
        self._last_changes.clear()

    def _append(self, records: list[JournalRecord]) -> bool:
        try:
            for record in records:
                self._journal.append(encode_record(record))
        except (JournalError, OSError) as error:
            self._break(error)
            return False
        self._last_changes.extend(enumerate(records, self._written + 1))
        self._written += len(records)
        self._since_compaction += len(records)
        return True

    def _break(self, error: Exception) -> None:
        self._open.clear()
        self._broken(error)
