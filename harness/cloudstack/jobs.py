"""Async jobs: durable in `async_job`, worked off by a bounded number of tasks (spec/cloudstack-api.md section 4)."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from harness.cloudstack.api.errors import ApiError, as_api_error
from harness.cloudstack.progress import working_on
from harness.cloudstack.records import Records
from harness.cloudstack.records.rows import AsyncJob
from harness.spi.errors import MisuseError
from harness.spi.runtime import Event, Runtime

_log = logging.getLogger("harness.cloudstack.jobs")

Json = dict[str, Any]
IN_PROGRESS, SUCCEEDED, FAILED = 0, 1, 2
INTERRUPTED = "job cancelled because of management server restart or shutdown"


class JobManager:
    """At most `workers` jobs run at a time and `backlog` wait; more are refused with error 503."""

    def __init__(self, runtime: Runtime, records: Records, workers: int = 16, backlog: int = 1000) -> None:
        self._runtime = runtime
        self._records = records
        self._workers = workers
        self._backlog = backlog
        self._lock = runtime.lock("jobs")
        self._waiting: deque[tuple[str, Callable[[], None]]] = deque()
        self._running = 0
        self._stopped = False
        self._idle: Event = runtime.event("jobs idle")

    def fail_interrupted(self) -> None:
        """At the start: jobs of the server before are failed, whatever becomes of their objects."""
        with self._records.transaction("jobs interrupted") as tx:
            result = _json({"errorcode": 530, "errortext": INTERRUPTED})
            tx.execute(
                "UPDATE async_job SET job_status = ?, job_result_code = 530, job_result = ?, completed = ?"
                " WHERE job_status = ?",
                (FAILED, result, tx.now, IN_PROGRESS),
            )

    def submit(
        self, command: str, user_id: int, work: Callable[[], Json], instance: tuple[str, str] | None = None
    ) -> str:
        """Start a job; its uuid. `instance` is the type and uuid of the object that it makes or changes."""
        self._admit()
        job_id = self._runtime.uuid()
        with self._records.transaction(f"job {command}") as tx:
            job = tx.insert(
                AsyncJob(
                    uuid=job_id,
                    user_id=user_id,
                    account_id=user_id,
                    job_cmd=command,
                    job_status=IN_PROGRESS,
                    job_result_code=0,
                    job_result="",
                    created=tx.now,
                    instance_type=instance[0] if instance else None,
                    instance_uuid=instance[1] if instance else None,
                )
            )
        self.background(f"job {command}", lambda: self._work(job, work))
        return job_id

    def background(self, name: str, work: Callable[[], None]) -> None:
        """Run something without a job row on the same workers."""
        self._admit()
        with self._lock:
            self._waiting.append((name, work))
            if self._running >= self._workers:
                return
            self._running += 1
        self._runtime.spawn(name, self._drain)

    def stop(self, timeout: float) -> bool:
        """Take no more work and wait for what runs; False when it has not ended after `timeout` seconds."""
        with self._lock:
            self._stopped = True
            self._waiting.clear()
            if not self._running:
                return True
        return self._idle.wait(timeout)

    def _admit(self) -> None:
        with self._lock:
            if self._stopped:
                raise ApiError(503, "the management server is shutting down")
            if len(self._waiting) >= self._backlog:
                raise ApiError(503, f"{self._backlog} jobs are waiting already; try again later")

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    last = self._running == 0 and self._stopped
                    break
                name, work = self._waiting.popleft()
            try:
                work()
            except MisuseError:
                raise
            except Exception:
                _log.exception("%s ended with an error that nobody expected", name)
        if last:
            self._idle.set()

    def _work(self, job: AsyncJob, work: Callable[[], Json]) -> None:
        try:
            with working_on(job.uuid):
                status, code, result = SUCCEEDED, 0, _json(work())
        except Exception as error:
            failure = as_api_error(error)
            status, code = FAILED, failure.code
            result = _json({"errorcode": failure.code, "errortext": failure.text})
        with self._records.transaction(f"job {job.job_cmd} ended") as tx:
            tx.update(job, job_status=status, job_result_code=code, job_result=result, completed=tx.now)


def _json(value: Json) -> str:
    return msgspec.json.encode(value).decode()
