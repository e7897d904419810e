"""Operations whose answer was given, until CloudStack has surely recorded it.

A management server that dies between the driver's answer and its own commit asks again when it starts. So an answered
operation stays open until the records tell what became of the answer, and a repeated call gets the same answer instead
of a second object.
"""

from __future__ import annotations

import enum
from typing import Protocol

from harness.driver.operations import ANSWERED, Operation, Operations, log
from harness.spi.errors import Error, MisuseError
from harness.spi.runtime import Runtime

TASK = "storpool-settle"


class Fate(enum.Enum):
    """What became of an answer."""

    RECORDED = "recorded"
    AWAITED = "awaited"
    """CloudStack is at work on the object's record: it may yet record the answer, or ask for it again."""
    ABANDONED = "abandoned"
    """CloudStack has the object's record without it, and nobody is at work there."""
    UNTOLD = "untold"
    """The records do not know whom the object is for; only time tells."""


class Settles(Protocol):
    """A kind of operation that stays open after its answer."""

    @property
    def kind(self) -> str: ...

    def settle(self, operation: Operation) -> bool:
        """End the answered operation if its time has come; whether it ended. The caller holds the subject."""
        ...


class Settler:
    """A background task that lives while answered operations are open."""

    def __init__(self, runtime: Runtime, operations: Operations) -> None:
        self._runtime = runtime
        self._operations = operations
        self._works: dict[str, Settles] = {}
        self._guard = runtime.lock(TASK)
        self._running = False
        self._woken = False

    def add(self, *works: Settles) -> None:
        self._works.update({work.kind: work for work in works})

    def wake(self) -> None:
        """An operation was answered."""
        with self._guard:
            self._woken = True
            if self._running:
                return
            self._running = True
        self._runtime.spawn(TASK, self._run)

    def _run(self) -> None:
        while True:
            with self._guard:
                self._woken = False
            self._runtime.sleep(self._operations.answer_time)
            left = self._settle_once()
            with self._guard:
                if not left and not self._woken:
                    self._running = False
                    return

    def _settle_once(self) -> bool:
        """As `settle_all`; after an error that nobody expects there is something left."""
        try:
            return self.settle_all()
        except MisuseError:
            raise
        except Exception:
            log.exception("answered operations could not be settled; tried again")
            return True

    def settle_all(self) -> bool:
        """Look at every answered operation once; whether one stays."""
        left = False
        for operation in self._operations.open():
            work = self._works.get(operation.kind)
            if work is None or operation.step != ANSWERED:
                continue
            with self._operations.recovering(operation) as current:
                try:
                    left |= current is None or current.step != ANSWERED or not work.settle(current)
                except Error as error:
                    log.warning("%s: not settled yet: %s", operation, error)
                    left = True
        return left
