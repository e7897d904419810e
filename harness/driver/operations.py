"""Operation records: what a mutating operation is about to do is durable before it does it (design section 4).

An operation is open from before its first effect until it is known to be done, or known to be undone. While it is open
a second call for the same kind and subject goes on with it, and `recover` finishes or undoes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

from harness.spi.driver import DriverRecords, OperationRecord
from harness.spi.errors import Conflict, Error, Unknown
from harness.spi.locks import KeyedLocks
from harness.spi.runtime import Lock, Runtime

log = logging.getLogger("harness.driver")

LOCK_WAIT = 120.0
"""Seconds that a call waits for another one on the same volume, snapshot or template."""
SETTLE_TIME = 600.0
"""Seconds after which a request that was never answered is taken to be dead: twice what StorPool's own client waits."""
ANSWER_TIME = 60.0
"""Seconds after which CloudStack has surely recorded an answer, or is dead."""
ANSWERED = "answered"
"""The step of an operation that is over, and whose answer may not have been recorded yet."""
SOURCE_POOL = "source-pool"
"""In an operation's data: row id of the other pool that it needs."""


class Operation:
    """One open operation. Every change of it is a transaction of its own."""

    def __init__(self, records: DriverRecords, record: OperationRecord, *, resumed: bool) -> None:
        self._records = records
        self._record = record
        self.step = record.step
        self.data = dict(record.data)
        self.resumed = resumed
        """Whether an earlier call began it."""

    @property
    def id(self) -> str:
        return self._record.id

    @property
    def kind(self) -> str:
        return self._record.kind

    @property
    def subject(self) -> str:
        return self._record.subject

    @property
    def pool_ids(self) -> frozenset[int]:
        """Row ids of the pools without which it can neither go on nor be undone."""
        return frozenset(int(self.data[key]) for key in ("pool", SOURCE_POOL) if key in self.data)

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} (operation {self.id}, step {self.step})"

    def advance(self, step: str, data: Mapping[str, str] | None = None) -> None:
        """Record the intent to do `step` next, and what is known by now."""
        changes = dict(data or {})
        self._records.step_operation(self.id, self.step, step, changes)
        self.step = step
        self.data.update(changes)

    def note(self, data: Mapping[str, str]) -> None:
        """Record what is known by now; the step stays."""
        self.advance(self.step, data)

    def done(self) -> None:
        self._records.end_operation(self.id, "done")

    def undone(self) -> None:
        """Nothing is left of it."""
        self._records.end_operation(self.id, "undone")


class Operations:
    """Begins, resumes and finds operations; one at a time for each subject within this process."""

    def __init__(
        self,
        runtime: Runtime,
        records: DriverRecords,
        settle_time: float = SETTLE_TIME,
        answer_time: float = ANSWER_TIME,
    ) -> None:
        self._runtime = runtime
        self._records = records
        self._locks = KeyedLocks(runtime, "storpool")
        self.settle_time = settle_time
        self.answer_time = answer_time
        self.incarnation = runtime.uuid()
        """Of this process."""
        self.started = runtime.now()
        """When this process began to use these records, which nobody replaces while it lives."""

    def now(self) -> float:
        return self._runtime.now()

    def sleep(self, seconds: float) -> None:
        self._runtime.sleep(seconds)

    def lock(self, name: str) -> Lock:
        """A new lock of this process."""
        return self._runtime.lock(name)

    def exclusive(self, subject: str, wait: float = LOCK_WAIT) -> AbstractContextManager[None]:
        """Keep other operations of this process off the subject."""
        return self._locks.hold(subject, wait)

    def begin(self, kind: str, subject: str, step: str, data: Mapping[str, str]) -> Operation:
        """A new operation, or the open one of this kind and subject. The caller holds the subject."""
        record = OperationRecord(
            id=self._runtime.uuid(),
            kind=kind,
            subject=subject,
            step=step,
            data=dict(data),
            created_at=self._runtime.now(),
        )
        kept = self._records.begin_operation(record)
        return Operation(self._records, kept, resumed=kept.id != record.id)

    def begin_anew(
        self, kind: str, subject: str, step: str, data: Mapping[str, str], undo: Callable[[Operation], object]
    ) -> Operation:
        """As `begin`, but an open one is undone first, which ends it."""
        operation = self.begin(kind, subject, step, data)
        if operation.resumed:
            undo(operation)
            operation = self.begin(kind, subject, step, data)
        return operation

    def find(self, kind: str, subject: str) -> Operation | None:
        """The open operation of this kind and subject."""
        record = self._records.open_operation(kind, subject)
        return None if record is None else Operation(self._records, record, resumed=True)

    def open(self) -> list[Operation]:
        return [Operation(self._records, record, resumed=True) for record in self._records.open_operations()]

    def answer(self, operation: Operation) -> None:
        """The answer is about to be given by this process."""
        operation.advance(ANSWERED, {"answered": str(self._runtime.now()), "process": self.incarnation})

    def answered_here(self, operation: Operation) -> bool:
        """Whether the answer was given by this process, and not by one that died since."""
        return operation.data.get("process") == self.incarnation

    def surely_recorded(self, operation: Operation) -> bool:
        return self.passed(operation, "answered", 0.0, self.answer_time)

    def passed(self, operation: Operation, key: str, given: float, more: float = 0.0) -> bool:
        """Whether it is `more` seconds after the time that `key` of the operation's data holds; without one it is.

        That time was set `given` seconds ahead at most. One that is further ahead was set by a clock that was put back
        since: it counts from now then, so that nothing stays open for as long as the clock was wrong.
        """
        now, until = self._runtime.now(), float(operation.data.get(key) or 0)
        if until - now > given:
            until = now + given
            operation.note({key: str(until)})
        return now >= until + more

    def settling(self) -> dict[str, str]:
        """Data of an operation of which a request was not answered just now: until when it may still arrive."""
        return {"settles": str(self.now() + self.settle_time)}

    def settled(self, operation: Operation) -> bool:
        """Whether every request of it was answered, or can arrive no more."""
        return self.passed(operation, "settles", self.settle_time)

    def ahead(self, operation: Operation, key: str, given: float) -> bool:
        """Whether the time that `key` of the operation's data holds is still to come, and was not put off by a clock.

        Then `passed` would say no and note nothing.
        """
        return 0 < float(operation.data.get(key) or 0) - self._runtime.now() <= given

    def in_nobodys_hands(self, operation: Operation) -> bool:
        """Whether no task of this process can still be about to record the answer."""
        return not self.answered_here(operation) or self.surely_recorded(operation)

    @contextmanager
    def idle(self, *subjects: str) -> Iterator[bool]:
        """Hold the subjects, unless somebody works on one of them or an operation of one is open: then False."""
        with ExitStack() as stack:
            try:
                for subject in subjects:
                    stack.enter_context(self._locks.hold(subject, 0))
            except Conflict:
                free = False
            else:
                free = not self._records.is_worked_on(subjects)
            yield free

    @contextmanager
    def recovering(self, operation: Operation) -> Iterator[Operation | None]:
        """The operation as it is now, held for recovery; None when it is being worked on, or has ended."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._locks.hold(operation.subject, 0))
            except Conflict:
                current = None
            else:
                current = self.find(operation.kind, operation.subject)
            yield current if current is not None and current.id == operation.id else None


@contextmanager
def undone_by_errors(operation: Operation, undo: Callable[[Operation], object]) -> Iterator[None]:
    """What fails is undone, but not what was answered before, and not after `Unknown`: then it is gone on with when it
    is asked for again."""
    try:
        yield
    except Unknown:
        raise
    except Error as error:
        if operation.step != ANSWERED:
            try:
                undo(operation)
            except Error as cleanup:
                report_also(error, cleanup, operation)
        raise


def report_also(error: Error, cleanup: Error, operation: Operation) -> None:
    """Add to the main error that clean-up failed too; the main error stays the one that is raised."""
    log.warning("%s: clean-up failed: %s", operation, cleanup)
    error.args = (f"{error}; cleaning up after it failed too ({cleanup}), and is tried again later",)
