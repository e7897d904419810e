"""Which victim is killed at which step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.worlds.local.steps.gate import Step
from harness.worlds.local.steps.victims import QEMU, VICTIMS
from scenarios.table import RowId


@dataclass(frozen=True, slots=True)
class Found:
    """A step of an operation, as a run without a kill showed it."""

    step: Step
    qemu: bool
    """Whether the VM's QEMU runs at it."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One case."""

    operation: str
    row: RowId
    number: int
    """Of the step in its operation, from 1."""
    step: Step
    victim: str

    @property
    def id(self) -> str:
        return f"{self.row}.{self.operation}.{self.number:02}.{self.victim}"


def candidates(found: Found) -> list[str]:
    """Who can be killed at the step: its own two parties first, no QEMU where none runs."""
    own = [found.step.sender, found.step.receiver]
    if found.step.half == "answer":
        own.reverse()
    others = [victim for victim in VICTIMS if victim not in own and (found.qemu or victim != QEMU)]
    return own + others


def plan(steps: Sequence[tuple[str, RowId, Sequence[Found]]], *, full: bool) -> list[Kill]:
    """One case for each step, or with `full` one for each victim at each step of each operation.

    A step that two operations of a row have in common is struck in the first of them. Of several victims the one that
    was killed least in this operation so far has its turn, then the one that was killed least in all; of those, a
    step's own parties go before others.
    """
    kills: list[Kill] = []
    struck: set[tuple[RowId, Step]] = set()
    for operation, row, founds in steps:
        before = Counter(kill.victim for kill in kills)
        killed: Counter[str] = Counter()
        for number, found in enumerate(founds, start=1):
            if not full and (row, found.step) in struck:
                continue
            struck.add((row, found.step))
            possible = candidates(found)
            turn = [min(possible, key=lambda name: (killed[name], before[name]))]
            for victim in possible if full else turn:
                killed[victim] += 1
                kills.append(Kill(operation, row, number, found.step, victim))
    return kills


def chosen(steps: Sequence[tuple[str, RowId, Sequence[Found]]], words: Sequence[str], *, full: bool) -> list[Kill]:
    """The cases that `words` name, of those that are to run; a single case also if it is not. Raises `KeyError`."""
    kills = plan(steps, full=full)
    if not words:
        return kills
    every = {kill.id: kill for kill in plan(steps, full=True)}
    found: dict[str, Kill] = {}
    for word in words:
        named = {kill.id: kill for kill in kills if word in (str(kill.row), kill.operation)} or {word: every[word]}
        found |= named
    return list(found.values())
