"""Async jobs: bounded, durable, and never lost to an error."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from harness.cloudstack.api.errors import ApiError
from harness.cloudstack.jobs import FAILED, IN_PROGRESS, SUCCEEDED, JobManager
from harness.cloudstack.records import Records
from harness.cloudstack.records.rows import AsyncJob
from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import Conflict, Error, InsufficientCapacity, Unavailable
from harness.spi.runtime import Event


@pytest.fixture
def runtime() -> Iterator[ThreadRuntime]:
    runtime = ThreadRuntime("management")
    yield runtime
    runtime.kill()


@pytest.fixture
def records(runtime: ThreadRuntime) -> Records:
    return Records.open(None, runtime)


def job(records: Records, uuid: str) -> AsyncJob:
    with records.read() as tx:
        found = tx.find(AsyncJob, uuid=uuid)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ApiError(431, "no such thing"), 431, "no such thing"),
        (Conflict("held by kvm2"), 536, "held by kvm2"),
        (InsufficientCapacity("full"), 533, "full"),
        (Unavailable("away"), 534, "away"),
        (Error("broken"), 530, "broken"),
        (ZeroDivisionError("secret detail"), 530, "internal error (ZeroDivisionError)"),
    ],
)
def test_an_error_ends_a_job_as_failed_with_its_code_and_text(
    runtime: ThreadRuntime, records: Records, error: Exception, code: int, text: str
) -> None:
    jobs = JobManager(runtime, records)

    def work() -> dict[str, object]:
        raise error

    uuid = jobs.submit("attachVolume", 1, work)
    assert jobs.stop(10)
    row = job(records, uuid)
    assert (row.job_status, row.job_result_code) == (FAILED, code)
    result = msgspec.json.decode(row.job_result)
    assert result["errorcode"] == code and result["errortext"].startswith(text)
    assert "secret detail" not in row.job_result


def test_no_more_jobs_run_than_there_are_workers_and_no_more_wait_than_the_backlog(
    runtime: ThreadRuntime, records: Records
) -> None:
    jobs = JobManager(runtime, records, workers=2, backlog=3)
    go, guard = runtime.event("go"), runtime.lock("guard")
    running, most = [0], [0]

    def work() -> dict[str, object]:
        with guard:
            running[0] += 1
            most[0] = max(most[0], running[0])
        assert go.wait(10)
        with guard:
            running[0] -= 1
        return {"success": True}

    uuids = [jobs.submit("x", 1, work)]
    wait_for(runtime, lambda: running[0] == 1)
    uuids.append(jobs.submit("x", 1, work))
    wait_for(runtime, lambda: running[0] == 2)
    uuids += [jobs.submit("x", 1, work) for _ in range(3)]
    with pytest.raises(ApiError) as caught:
        jobs.submit("x", 1, work)
    assert caught.value.code == 503
    go.set()
    wait_for(runtime, lambda: all(job(records, uuid).job_status == SUCCEEDED for uuid in uuids))
    assert most[0] == 2
    assert jobs.stop(10)
    with pytest.raises(ApiError, match="shutting down"):
        jobs.submit("x", 1, work)


def test_jobs_that_ran_when_the_server_died_are_failed_by_the_next(runtime: ThreadRuntime, records: Records) -> None:
    never: Event = runtime.event("never")
    uuid = JobManager(runtime, records).submit("x", 1, lambda: {"success": never.wait(60)})
    assert job(records, uuid).job_status == IN_PROGRESS
    following = ThreadRuntime("management")
    runtime.kill()
    reopened = records.reopen(following)
    JobManager(following, reopened).fail_interrupted()
    row = job(reopened, uuid)
    assert row.job_status == FAILED and "management server restart" in row.job_result
    following.kill()


def wait_for(runtime: ThreadRuntime, condition: object) -> None:
    deadline = runtime.monotonic() + 10
    assert callable(condition)
    while not condition():
        assert runtime.monotonic() < deadline
        runtime.sleep(0.001)
