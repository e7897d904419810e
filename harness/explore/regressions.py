"""Plans that failed once, kept as data: they run first, always."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from harness.explore.plan import Plan, check

FILE = Path(__file__).with_name("regressions.jsonl")


class Regression(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    seed: str
    """That found it at that commit; the plan was drawn from it, or made after its story when drawing changed."""
    commit: str
    """At which it failed."""
    violated: str
    """Kind of the violation."""
    fixed_in: str
    """What the mend changed, in a line; empty while it still fails."""
    plan: Plan


def load(path: Path = FILE) -> list[Regression]:
    """Raises `ValueError` that names the line that cannot be read."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            regression = msgspec.json.decode(line, type=Regression)
            check(regression.plan)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        found.append(regression)
    return found


def render(regressions: Iterable[Regression]) -> str:
    return "".join(msgspec.json.encode(regression).decode() + "\n" for regression in regressions)
