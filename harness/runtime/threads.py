"""The production runtime: real threads, the real clock, the operating system's randomness.

`kill` exists for tests and for an orderly end: it fences the process, as far as a process can be killed from inside.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType

from harness.spi.errors import Dead, MisuseError

Report = Callable[[str, BaseException], None]
"""Told the name of a task and the error that escaped it."""

_log = logging.getLogger("harness.runtime")


def _log_error(task: str, error: BaseException) -> None:
    _log.error("task %s ended with an error", task, exc_info=error)


class ThreadRuntime:
    """`harness.spi.runtime.Runtime` over threads. `report` gets errors that escape tasks; by default they are logged.

    One mutex guards all waiting of the process, so that `kill` reaches every wait in progress.
    """

    def __init__(self, process: str, report: Report = _log_error) -> None:
        self._process = process
        self._report = report
        self._dead = False
        self._mutex = threading.Lock()
        self._awaited: dict[threading.Condition, int] = {}
        self._local = threading.local()
        self._random = random.SystemRandom()

    @property
    def process(self) -> str:
        return self._process

    def kill(self) -> None:
        """Fence the process: every later call, and every wait in progress, raises `Dead`. May be called again."""
        with self._mutex:
            self._dead = True
            for condition in self._awaited:
                condition.notify_all()

    def now(self) -> float:
        self.check_alive()
        return time.time()

    def monotonic(self) -> float:
        self.check_alive()
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        self.check("sleep")
        with self._mutex:
            self.wait_locked(threading.Condition(self._mutex), lambda: False, max(seconds, 0.0))

    def spawn(self, name: str, function: Callable[[], None]) -> ThreadTask:
        self.check("spawn")
        task = ThreadTask(self, name)
        # A daemon: a thread that hangs in a system call must not keep a dying process alive.
        thread = threading.Thread(target=self._run, args=(task, function), name=f"{self._process}/{name}", daemon=True)
        thread.start()
        return task

    def lock(self, name: str) -> ThreadLock:
        self.check("lock")
        return ThreadLock(self, name)

    def event(self, name: str) -> ThreadEvent:
        self.check("event")
        return ThreadEvent(self, name)

    def random(self) -> float:
        self.check_alive()
        return self._random.random()

    def random_bytes(self, count: int) -> bytes:
        self.check_alive()
        return os.urandom(count)

    def uuid(self) -> str:
        self.check_alive()
        return str(uuid.uuid4())

    def point(self, kind: str, detail: str) -> None:  # noqa: ARG002 - the contract's signature
        self.check("point")

    def transaction(self) -> AbstractContextManager[None]:
        return _Transaction(self, self._local)

    def check_alive(self) -> None:
        """Raise `Dead` in a killed process."""
        if self._dead:
            raise Dead(f"process {self._process} was killed")

    def check(self, call: str) -> None:
        """Raise `Dead` in a killed process and `MisuseError` inside a record transaction."""
        self.check_alive()
        if getattr(self._local, "transaction", False):
            raise MisuseError(f"{call}() inside a record transaction of {self._process}; end the transaction first")

    def wait_locked(self, condition: threading.Condition, ready: Callable[[], bool], timeout: float | None) -> bool:
        """With the mutex held: wait until `ready`; False after `timeout` seconds, `Dead` when the process is killed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self._awaited[condition] = self._awaited.get(condition, 0) + 1
        try:
            while not ready():
                self.check_alive()
                remaining = threading.TIMEOUT_MAX if deadline is None else deadline - time.monotonic()
                if remaining <= 0:
                    return False
                condition.wait(min(remaining, threading.TIMEOUT_MAX))
            self.check_alive()
            return True
        finally:
            self._awaited[condition] -= 1
            if not self._awaited[condition]:
                del self._awaited[condition]

    @property
    def mutex(self) -> threading.Lock:
        return self._mutex

    def _run(self, task: ThreadTask, function: Callable[[], None]) -> None:
        task.identity = threading.get_ident()
        try:
            if not self._dead:
                function()
        except BaseException as error:
            # What a killed process says while it falls apart nobody hears.
            if not self._dead:
                self._report(f"{self._process}/{task.name}", error)
        finally:
            task.finish()


class ThreadTask:
    def __init__(self, runtime: ThreadRuntime, name: str) -> None:
        self._runtime = runtime
        self._name = name
        self._changed = threading.Condition(runtime.mutex)
        self._ended = False
        self.identity: int | None = None

    @property
    def name(self) -> str:
        return self._name

    def join(self, timeout: float | None = None) -> bool:
        self._runtime.check("join")
        if self.identity == threading.get_ident() and not self._ended:
            raise MisuseError(f"task {self._name} joins itself")
        with self._runtime.mutex:
            return self._runtime.wait_locked(self._changed, lambda: self._ended, timeout)

    def finish(self) -> None:
        with self._runtime.mutex:
            self._ended = True
            self._changed.notify_all()


class ThreadLock:
    def __init__(self, runtime: ThreadRuntime, name: str) -> None:
        self._runtime = runtime
        self._name = name
        self._changed = threading.Condition(runtime.mutex)
        self._owner: int | None = None

    def acquire(self, timeout: float | None = None) -> bool:
        self._runtime.check("acquire")
        me = threading.get_ident()
        with self._runtime.mutex:
            if self._owner == me:
                raise MisuseError(f"lock {self._name} is not reentrant and this task holds it already")
            if not self._runtime.wait_locked(self._changed, lambda: self._owner is None, timeout):
                return False
            self._owner = me
            return True

    def release(self) -> None:
        self._runtime.check("release")
        with self._runtime.mutex:
            if self._owner != threading.get_ident():
                raise MisuseError(f"lock {self._name} is released by a task that does not hold it")
            self._owner = None
            self._changed.notify()

    def __enter__(self) -> ThreadLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class ThreadEvent:
    def __init__(self, runtime: ThreadRuntime, name: str) -> None:
        self._runtime = runtime
        self._name = name
        self._changed = threading.Condition(runtime.mutex)
        self._set = False

    def set(self) -> None:
        self._runtime.check("set")
        with self._runtime.mutex:
            self._set = True
            self._changed.notify_all()

    def is_set(self) -> bool:
        self._runtime.check_alive()
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        self._runtime.check("wait")
        with self._runtime.mutex:
            return self._runtime.wait_locked(self._changed, lambda: self._set, timeout)


def stop_event(runtime: ThreadRuntime) -> ThreadEvent:
    """An event that SIGTERM and SIGINT set; for the main thread of a process."""
    stopping = runtime.event("stop")

    def stop(_signal: int, _frame: FrameType | None) -> None:
        # A handler runs between two steps of the main thread, perhaps inside the event's own lock.
        runtime.spawn("stop", stopping.set)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return stopping


class _Transaction:
    def __init__(self, runtime: ThreadRuntime, local: threading.local) -> None:
        self._runtime = runtime
        self._local = local

    def __enter__(self) -> None:
        self._runtime.check("transaction")
        self._local.transaction = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._local.transaction = False
