"""What happened in a simulated run: every choice of the scheduler and every point, in order.

Entries are kept as they come and rendered only when somebody asks.
"""

from __future__ import annotations

import hashlib

Entry = tuple[float, str, str, str]
"""Virtual seconds since the start, who, what, detail."""

SCHEDULE = "go"
"""The `what` of a choice between tasks; the detail is the number of tasks that could have gone on."""


class RunJournal:
    """An append-only list of entries; equal journals mean equal runs."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def render(self, last: int | None = None) -> str:
        """One line an entry; only the `last` ones when given."""
        chosen = self.entries if last is None else self.entries[-last:]
        return "\n".join(f"{time!r} {who} {what} {detail}" for time, who, what, detail in chosen)

    def digest(self, last_state: str) -> str:
        """Of all entries and of a text that says in which state the run ended."""
        return hashlib.blake2b(f"{self.render()}\n{last_state}".encode(), digest_size=16).hexdigest()

    def schedule_digest(self) -> str:
        """Of the order in which tasks went on where more than one could."""
        text = "\n".join(who for _, who, what, _ in self.entries if what == SCHEDULE)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
