"""How far the copies are that jobs wait for: what hosts tell with each ping, in memory only.

CloudStack has a place for it, `jobprocstatus` of a job, and its StorPool plugin never set it (weakness 65).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from harness.spi.commands import AnyAnswer, AnyCommand
from harness.spi.copies import copied_to
from harness.spi.ports import Endpoint
from harness.spi.runtime import Runtime

_job: ContextVar[str | None] = ContextVar("job", default=None)
"""Uuid of the job that the task works on."""


@contextmanager
def working_on(job: str) -> Iterator[None]:
    """What the task sends inside is for this job."""
    token = _job.set(job)
    try:
        yield
    finally:
        _job.reset(token)


class JobProgress:
    """Of every job that waits for an agent's copy: how far that is, in whole percents."""

    def __init__(self, runtime: Runtime) -> None:
        self._guard = runtime.lock("job progress")
        self._waiting: dict[str, tuple[str, str]] = {}
        """Host and path of the copy, by job."""
        self._percent: dict[str, int] = {}
        """By job; nothing of one whose copy was not told of yet."""

    @contextmanager
    def waiting(self, host: str, command: AnyCommand) -> Iterator[None]:
        """For as long as the command's answer is waited for."""
        job, path = _job.get(), copied_to(command)
        if job is None or path is None:
            yield
            return
        with self._guard:
            self._waiting[job] = (host, path)
        try:
            yield
        finally:
            with self._guard:
                self._waiting.pop(job, None)
                self._percent.pop(job, None)

    def told(self, host: str, copies: Mapping[str, int]) -> None:
        """The host's copies, as it answered a ping with. A late answer takes nothing back."""
        with self._guard:
            for job, (where, path) in self._waiting.items():
                if where == host and path in copies:
                    self._percent[job] = max(copies[path], self._percent.get(job, 0))

    def of(self, job: str) -> int:
        """0 also of a job that waits for no copy. Waits for nobody: it is asked inside transactions."""
        return self._percent.get(job, 0)


class WatchedEndpoint:
    """An agent, whose copies are told of to the jobs that wait for them."""

    def __init__(self, inner: Endpoint, progress: JobProgress) -> None:
        self._inner = inner
        self._progress = progress

    @property
    def name(self) -> str:
        return self._inner.name

    def send(self, command: AnyCommand, *, timeout: float) -> AnyAnswer:
        with self._progress.waiting(self.name, command):
            return self._inner.send(command, timeout=timeout)
