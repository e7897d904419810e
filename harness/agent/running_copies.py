"""Copies that run here, so that they can be ended, and paths that are copied no more."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from harness.agent.deadline import Deadline
from harness.agent.progress import Progress
from harness.spi.errors import Conflict, Error, Unknown
from harness.spi.ports import Host
from harness.spi.runtime import Lock, Runtime

_log = logging.getLogger("harness.agent")

LIMIT = 4096
"""Cancelled paths remembered at most; the one that was cancelled first is forgotten first."""
LOOK_SECONDS = 1.0
"""Between looks at a copy that was cancelled and has not ended: it may have started another program."""
LOGGED_PERCENT = 10
"""Between lines of the log about a copy, at least."""
PROGRAM_SECONDS = 10.0
"""How long a program that was killed may take to end."""


class Cancelled(Conflict):
    """The copy was cancelled. What it made is for the canceller to remove."""


class RunningCopy:
    """One copy whose command runs."""

    def __init__(self, runtime: Runtime, guard: Lock, paths: tuple[str, ...]) -> None:
        self.paths = paths
        self.ended = runtime.event("copy ended")
        self.cancelled = False
        self.begun = False
        self._guard = guard
        self.operation: str | None = None
        """Id that its programs run under, once it may run any."""
        self.percent: int | None = None
        """How far it is, once that was told."""
        self._logged = 0
        self.heard = Progress(self._told).heard
        """To be given what the program prints that copies."""

    @property
    def name(self) -> str:
        """What it is known by to the management server: the path that it copies to."""
        return self.paths[-1]

    def _told(self, percent: int) -> None:
        self.percent = percent
        if percent >= self._logged + LOGGED_PERCENT:
            self._logged = percent
            _log.info("copy to %s: %d %%", self.name, percent)

    def begin(self) -> None:
        """To be called before the first effect, when all that it waits for is its own. Raises `Cancelled`."""
        with self._guard:
            self.check()
            self.begun = True

    def check(self) -> None:
        """Raises `Cancelled`."""
        if self.cancelled:
            raise Cancelled(f"the copy between {' and '.join(self.paths)} was cancelled by the management server")


class RunningCopies:
    """An agent that starts knows of no cancelled path: with the old process went the connections that could still have
    brought a command."""

    def __init__(self, runtime: Runtime, host: Host) -> None:
        self._runtime = runtime
        self._host = host
        self._guard = runtime.lock("copies")
        self._running: list[RunningCopy] = []
        self._over: OrderedDict[str, None] = OrderedDict()
        """Paths that were cancelled."""

    @contextmanager
    def run(self, *paths: str) -> Iterator[RunningCopy]:
        """For the time of a command that copies from and to these paths. Any error of one that was cancelled becomes
        `Cancelled`, but not one that leaves open whether it has ended. Raises `Cancelled` also when it came late.
        """
        copy = RunningCopy(self._runtime, self._guard, paths)
        with self._guard:
            if any(path in self._over for path in paths):
                copy.cancelled = True
            self._running.append(copy)
        try:
            copy.check()
            yield copy
        except (Cancelled, Unknown):
            raise
        except Error as error:
            try:
                copy.check()
            except Cancelled as cancelled:
                for note in getattr(error, "__notes__", ()):
                    cancelled.add_note(note)
                raise cancelled from error
            raise
        finally:
            with self._guard:
                self._running.remove(copy)
            copy.ended.set()

    def progress(self) -> dict[str, int]:
        """Percent of each copy that has told it, by its name."""
        with self._guard:
            return {copy.name: copy.percent for copy in self._running if copy.percent is not None}

    def cancel(self, path: str, deadline: Deadline) -> None:
        """Begin no copy from or to the path any more, and end those that were; returns when they have cleaned up.

        Raises `Unknown` when one has not ended in time.
        """
        with self._guard:
            self._over[path] = None
            self._over.move_to_end(path)
            if len(self._over) > LIMIT:
                self._over.popitem(last=False)
            found = [copy for copy in self._running if path in copy.paths]
            for copy in found:
                copy.cancelled = True
            begun = [copy for copy in found if copy.begun]
        for copy in begun:
            self._end(copy, path, deadline)

    def _end(self, copy: RunningCopy, path: str, deadline: Deadline) -> None:
        while not copy.ended.is_set():
            if deadline.passed:
                raise Unknown(f"the copy of {path} was told to end, and has not ended yet")
            if copy.operation is not None:
                self._host.end_programs(copy.operation, timeout=min(PROGRAM_SECONDS, deadline.remaining))
            copy.ended.wait(min(LOOK_SECONDS, deadline.remaining))
