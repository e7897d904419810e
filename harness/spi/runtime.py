"""Clock, tasks, locks and randomness, as handed to every process of the system (design section 3).

A *process* (management server, agent) is a group of tasks that can be killed together. Each process gets a Runtime of
its own; after a kill every call on it raises `Dead` and has no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol


class Task(Protocol):
    """A spawned piece of work of one process."""

    @property
    def name(self) -> str: ...

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the task has ended; False when `timeout` seconds passed first.

        An error that the task raised is not raised here: it was reported by the runtime.
        """
        ...


class Lock(Protocol):
    """A mutual exclusion lock of one process; not reentrant."""

    def acquire(self, timeout: float | None = None) -> bool:
        """Take the lock; False when `timeout` seconds passed first."""
        ...

    def release(self) -> None: ...

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Event(Protocol):
    """A flag that tasks of one process wait for."""

    def set(self) -> None: ...

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the flag; False when `timeout` seconds passed first."""
        ...


class Runtime(Protocol):
    """What production code has instead of `time`, `threading`, `random` and `uuid`.

    Every call raises `Dead` once the process was killed, and `MisuseError` inside a record transaction
    (except `random*`, `uuid` and `now`, which wait for nobody).
    """

    @property
    def process(self) -> str:
        """Name of the process this runtime belongs to, as shown in logs and journals."""
        ...

    def now(self) -> float:
        """Wall clock in Unix seconds; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for time-outs."""
        ...

    def sleep(self, seconds: float) -> None: ...

    def spawn(self, name: str, function: Callable[[], None]) -> Task:
        """Run `function` beside the caller. An error that escapes it is reported, never swallowed."""
        ...

    def lock(self, name: str) -> Lock:
        """A new lock; the name is for deadlock reports."""
        ...

    def event(self, name: str) -> Event:
        """A new event; the name is for deadlock reports."""
        ...

    def random(self) -> float:
        """A number in [0, 1)."""
        ...

    def random_bytes(self, count: int) -> bytes:
        """Bytes fit for keys and tokens in production."""
        ...

    def uuid(self) -> str:
        """A random UUID in its usual lower-case form."""
        ...

    def point(self, kind: str, detail: str) -> None:
        """A place where another task may go first and a fault may strike: each exchange, commit and effect.

        `kind` is one of "send", "answer", "commit", "effect-begin", "effect-end"; `detail` names the thing, without
        anything that differs between runs of one seed.
        """
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Entered by the record store: inside it every waiting call of this runtime raises `MisuseError`."""
        ...
