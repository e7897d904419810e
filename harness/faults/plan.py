"""A fault plan as data: which kind of fault strikes at the how-manieth point that it fits."""

from __future__ import annotations

from typing import NamedTuple

from harness.faults.kinds import KINDS, FaultKind


class Fault(NamedTuple):
    """Written `kind@at`, for example `answer-lost@7`."""

    kind: FaultKind
    at: int
    """Number of the point, from 1, among those that the kind fits, counted while faults strike."""

    def __str__(self) -> str:
        return f"{self.kind.name}@{self.at}"


def parse_fault(text: str) -> Fault:
    """Raises `ValueError` that names what is wrong."""
    name, separator, number = text.partition("@")
    if name not in KINDS:
        raise ValueError(f"{text!r}: there is no kind of fault {name!r}; there are {', '.join(KINDS)}")
    if not separator or not number.isascii() or not number.isdigit() or int(number) < 1:
        raise ValueError(f"{text!r}: expected KIND@NUMBER, the number from 1")
    return Fault(KINDS[name], int(number))
