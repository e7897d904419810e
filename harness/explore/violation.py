"""What is wrong with a run."""

from __future__ import annotations

import msgspec


class Violation(msgspec.Struct, frozen=True):
    kind: str
    """The same for runs that fail in the same way; shrinking keeps it."""
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class ViolationFound(Exception):
    """Ends a run."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(str(violation))
        self.violation = violation
