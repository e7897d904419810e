"""Counts the messages of an operation as its steps, and holds one of them until it may go on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

REQUEST, ANSWER = "request", "answer"
HOLD_SECONDS = 90.0
"""A message is never held longer, whatever became of whoever holds it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One half of an exchange. Hosts are not told apart: which of them is asked may differ between runs."""

    sender: str
    receiver: str
    name: str
    half: str
    """`request`: not delivered yet; `answer`: not given back yet."""
    number: int
    """The how manyeth of its kind in the operation, from 1."""

    def __str__(self) -> str:
        text = f"{self.sender} -> {self.receiver} {self.name}, {self.half}"
        return text if self.number == 1 else f"{text} {self.number}"


@dataclass(frozen=True, slots=True)
class Passing:
    """A step as it happened: between which processes."""

    step: Step
    parties: tuple[str, str]
    """`management`, `StorPool`, or a host's name: sender and receiver of the request."""


class Gate:
    """What every message passes. Counts nothing outside of `counting`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Step] | None = None
        self._look: Callable[[Passing], None] | None = None
        self._wanted: Step | None = None
        self._known: set[str] = set()
        self._gone: frozenset[str] = frozenset()
        self._caught: Passing | None = None
        self._held = threading.Event()
        self._released = threading.Event()
        self._gone_on = threading.Event()

    @contextmanager
    def counting(
        self,
        wanted: Step | None = None,
        look: Callable[[Passing], None] | None = None,
        there: Collection[str] | None = None,
    ) -> Iterator[None]:
        """Inside, steps are counted from the beginning.

        `wanted` is held until `release`; `look` is told each step while its message waits. `there` are the ids of all
        objects that exist now: a message that names only objects of which there are none any more is of something
        earlier, such as tags that are sent once more when a copy of them can no longer be under way.
        """
        with self._lock:
            self._gone = frozenset() if there is None else frozenset(self._known - set(there))
            self._counts, self._look, self._wanted, self._caught = Counter(), look, wanted, None
            self._held.clear()
            self._released.clear()
            self._gone_on.clear()
        try:
            yield
        finally:
            with self._lock:
                self._counts = self._look = self._wanted = None
            self._released.set()

    def wait_held(self, seconds: float) -> Passing | None:
        """The wanted step, once its message is held; None when it did not come in time."""
        return self._caught if self._held.wait(seconds) else None

    def release(self, seconds: float = 20.0) -> bool:
        """Let the held message go on; whether it was delivered, or broke, within `seconds`."""
        with self._lock:
            self._counts = None
        self._released.set()
        return self._gone_on.wait(seconds)

    def passing(self, step: Step, parties: tuple[str, str], objects: frozenset[str] = frozenset()) -> bool:
        """A message of one of the parties is about to go on (the step's number does not count). Whether it was held.

        `objects` are the ids that it names.
        """
        with self._lock:
            self._known |= objects
            if self._counts is None or (objects and objects <= self._gone):
                return False
            self._counts[step] += 1
            found = Passing(Step(step.sender, step.receiver, step.name, step.half, self._counts[step]), parties)
            look, caught = self._look, found.step == self._wanted
            if caught:
                self._caught, self._counts = found, None
        if look is not None:
            look(found)
        if caught:
            self._held.set()
            self._released.wait(HOLD_SECONDS)
        return caught

    def gone_on(self) -> None:
        """The message that was held was delivered, or broke."""
        self._gone_on.set()
