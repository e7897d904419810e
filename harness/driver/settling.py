"""Operations whose answer was given, until CloudStack has surely recorded it.

A management server that dies between the driver's answer and its own commit asks again when it starts. So an answered
operation stays open until the records tell what became of the answer, and a repeated call gets the same answer instead
of a second object.
"""

from __future__ import annotations

import enum
from typing import Protocol

from harness.driver.creation import Creation
from harness.driver.operations import ANSWERED, Operation, Operations, log
from harness.spi.errors import Error, MisuseError
from harness.spi.objects import device_path
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


class Makes(Settles, Protocol):
    """A kind of operation whose answer is something that it made."""

    def fate(self, operation: Operation) -> Fate:
        """Of an answered one."""
        ...

    def creation(self, operation: Operation) -> Creation:
        """Of what is made, or of the first of several that are made by one request."""
        ...

    def undo(self, operation: Operation) -> bool:
        """Remove what was made and end it; False while a lost request may still arrive."""
        ...

    def finish(self, operation: Operation) -> None:
        """CloudStack has what was made and no lost request can arrive any more: remove what came late."""
        ...


class _Record(Protocol):
    """CloudStack's row of the object that something is made for."""

    @property
    def path(self) -> str | None: ...
    @property
    def removed(self) -> bool: ...
    @property
    def steady(self) -> bool: ...


def fate(record: _Record | None, global_id: str) -> Fate:
    """What became of the answer, which was the path of this object."""
    if record is None:
        return Fate.UNTOLD
    if record.path == device_path(global_id):
        return Fate.RECORDED
    return Fate.ABANDONED if record.removed or record.steady else Fate.AWAITED


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

    def settle(self, work: Makes, operation: Operation) -> bool:
        """`Settles.settle`, of what is made."""
        became, creation = work.fate(operation), work.creation(operation)
        if became is Fate.ABANDONED:
            free = self._operations.in_nobodys_hands(operation) and creation.doubt() is None
            return free and work.undo(operation)
        recorded = became is Fate.RECORDED
        told = recorded or (became is Fate.UNTOLD and self._operations.surely_recorded(operation))
        if not (told and creation.settled):
            return False
        work.finish(operation)
        operation.done()
        return True

    def recover(self, work: Makes, operation: Operation) -> str:
        """Undo what has no answer, and what nobody has; the rest is settled, or waits until it is asked for again."""
        became = work.fate(operation) if operation.step == ANSWERED else Fate.ABANDONED
        doubt = work.creation(operation).doubt() if became is Fate.ABANDONED else None
        if doubt is not None:
            return f"{operation}: {doubt}"
        if operation.step != ANSWERED:
            undone = work.undo(operation)
            return f"{operation}: {'undone' if undone else 'open until a lost request can no longer arrive'}"
        if became in (Fate.AWAITED, Fate.UNTOLD) and not self._operations.answered_here(operation):
            self._operations.answer(operation)
            self.wake()
            return f"{operation}: made; open until CloudStack asks for it again or has it"
        if self.settle(work, operation):
            return f"{operation}: {'undone, for nobody has it' if became is Fate.ABANDONED else 'done'}"
        return f"{operation}: made; open until it is surely recorded"

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
