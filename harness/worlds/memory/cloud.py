"""A client of CloudStack's API for the memory world: signs, unwraps, and waits for jobs in virtual time."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from urllib.parse import quote

import msgspec

from harness.observers import CloudApiError, Json
from harness.spi.runtime import Runtime

Query = list[tuple[str, str]]
Send = Callable[[Query], tuple[int, bytes]]
"""Carries a signed request to the management server; raises `ConnectionError` when that does not run."""

POLL_SECONDS = 1.0
POLL_GROWTH = 1.5
LONGEST_POLL_SECONDS = 10.0
JOB_TIMEOUT = 6 * 3600.0
"""Longer than the longest wait of a job for one answer: `primary.storage.download.wait` is three hours."""
_RUNNING, _DONE = 0, 1
_PLAIN = re.compile(r"[A-Za-z0-9_.~\-]*")
"""What quoting leaves as it is."""


class MemoryCloud:
    """`harness.observers.Cloud` with the keys of one user. `runtime` is the caller's."""

    def __init__(self, runtime: Runtime, send: Send, api_key: str, secret_key: str) -> None:
        self._runtime = runtime
        self._send = send
        self._api_key = api_key
        self._secret_key = secret_key

    def call(self, command: str, /, **parameters: str | int | bool) -> Json:
        answer = self._request(command, parameters)
        if "jobid" in answer and answer.keys() <= {"jobid", "id"}:
            return self._wait(str(answer["jobid"]), JOB_TIMEOUT, command)
        return answer

    def start(self, command: str, /, **parameters: str | int | bool) -> str:
        return str(self._request(command, parameters)["jobid"])

    def wait(self, job_id: str, timeout: float = 600) -> Json:
        return self._wait(job_id, timeout, "")

    def _wait(self, job_id: str, timeout: float, command: str) -> Json:
        deadline = self._runtime.monotonic() + timeout
        pause = POLL_SECONDS
        while True:
            job = self._poll(job_id)
            if job is not None and job["jobstatus"] == _DONE:
                result: Json = job["jobresult"]
                return result
            if job is not None and job["jobstatus"] != _RUNNING:
                failure = job["jobresult"]
                raise CloudApiError(command or str(job["cmd"]), int(failure["errorcode"]), str(failure["errortext"]))
            left = deadline - self._runtime.monotonic()
            if left <= 0:
                raise TimeoutError(f"job {job_id} of {command or 'an async command'} did not end in {timeout:g} s")
            self._runtime.sleep(min(pause, left))
            pause = min(pause * POLL_GROWTH, LONGEST_POLL_SECONDS)

    def _poll(self, job_id: str) -> Json | None:
        """The job, or None while no management server answers: it may be starting again."""
        try:
            return self._request("queryAsyncJobResult", {"jobid": job_id})
        except ConnectionError:
            return None

    def _request(self, command: str, parameters: dict[str, str | int | bool]) -> Json:
        query = [("command", command), ("response", "json"), ("apikey", self._api_key)]
        query += [(name, _text(value)) for name, value in parameters.items()]
        query.append(("signature", sign(query, self._secret_key)))
        status, body = self._send(query)
        decoded = msgspec.json.decode(body)
        (answer,) = decoded.values()
        if status != 200 or "errorcode" in answer:
            raise CloudApiError(command, int(answer["errorcode"]), str(answer.get("errortext", "")))
        found: Json = answer
        return found


def sign(query: Query, secret_key: str) -> str:
    """Signature version 1 (spec/cloudstack-api.md section 6)."""
    quoted = (f"{name}={value if _PLAIN.fullmatch(value) else quote(value, safe='*')}" for name, value in sorted(query))
    text = "&".join(quoted).lower()
    return base64.b64encode(hmac.digest(secret_key.encode(), text.encode(), "sha1")).decode()


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
