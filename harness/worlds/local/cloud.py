"""`harness.observers.Cloud` over `cs`, the CloudStack client of PyPI."""

from __future__ import annotations

import time

import cs
import requests

from harness.observers import CloudApiError, Json

CALL_SECONDS = 120
JOB_SECONDS = 600.0
FIRST_POLL_SECONDS = 0.02
POLL_SECONDS = 0.3
"""Jobs are asked for at growing intervals up to this: most end within a tenth of a second."""
RUNNING, DONE = 0, 1


class CsCloud:
    """CloudStack's API as a signed client sees it."""

    def __init__(self, address: str, api_key: str, secret_key: str) -> None:
        session = requests.Session()
        session.trust_env = False
        self._client = cs.CloudStack(
            endpoint=f"http://{address}/client/api",
            key=api_key,
            secret=secret_key,
            timeout=CALL_SECONDS,
            session=session,
        )

    def call(self, command: str, /, **parameters: str | int | bool) -> Json:
        answer = self._request(command, parameters)
        if answer.keys() <= {"jobid", "id"} and "jobid" in answer:
            return self._job(command, str(answer["jobid"]), JOB_SECONDS)
        return answer

    def start(self, command: str, /, **parameters: str | int | bool) -> str:
        return str(self._request(command, parameters)["jobid"])

    def wait(self, job_id: str, timeout: float = JOB_SECONDS) -> Json:
        return self._job("queryAsyncJobResult", job_id, timeout)

    def _job(self, command: str, job_id: str, timeout: float) -> Json:
        deadline = time.monotonic() + timeout
        pause = FIRST_POLL_SECONDS
        while True:
            job = self._request("queryAsyncJobResult", {"jobid": job_id})
            result: Json = job.get("jobresult") or {}
            if job["jobstatus"] == DONE:
                return result
            if job["jobstatus"] != RUNNING:
                raise CloudApiError(command, int(job["jobresultcode"]), str(result.get("errortext", result)))
            if time.monotonic() > deadline:
                raise TimeoutError(f"{command}: job {job_id} did not end within {timeout:g} s")
            time.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS)

    def _request(self, command: str, parameters: dict[str, str | int | bool]) -> Json:
        try:
            answer: Json = getattr(self._client, command)(**parameters)
        except cs.CloudStackApiException as error:
            found: Json = error.error if isinstance(error.error, dict) else {"errortext": str(error.error)}
            raise CloudApiError(command, int(found.get("errorcode", 530)), str(found.get("errortext", found))) from None
        return answer
