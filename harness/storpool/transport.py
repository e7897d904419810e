"""How a request reaches the StorPool management API: one method, so that a test or a simulation can stand in for HTTP.

An implementation of `Transport` raises `NotSent` only when the request certainly did not reach StorPool, and
`AnswerLost` whenever it may have. It never sends a request a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

import requests
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError

from harness.storpool.errors import AnswerLost, MalformedAnswer, NotSent, RequestRefused
from harness.storpool.secret import Secret

BASE_PATH = "/ctrl/1.0/"
ANSWER_LIMIT = 64 * 1024 * 1024
"""Bytes of the largest answer that is read: VolumesList of a large cluster, with room to spare."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the StorPool API."""

    verb: str
    """`GET` or `POST`."""
    path: str
    """Call and its argument below `/ctrl/1.0/`, not percent-encoded; for example `MultiCluster/Volume/~a.b.c`."""
    body: bytes | None
    """The JSON of a POST, or the `json` argument of a GET."""
    timeout: float
    """Seconds until the caller wants to know."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes


class Transport(Protocol):
    def call(self, request: Request) -> Reply:
        """Send the request once. Raises `NotSent` or `AnswerLost`."""
        ...


class HttpTransport:
    """The API over HTTP. Endpoints (`host:port`) are tried in turn until one accepts a connection.

    Each wait for data is bounded by the request's timeout, or by `read_timeout` where that is shorter. With `monotonic`
    the request's timeout bounds the whole answer too.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        token: Secret,
        connect_timeout: float = 5.0,
        read_timeout: float | None = None,
        *,
        monotonic: Callable[[], float] | None = None,
        session: Callable[[], requests.Session] = requests.Session,
        answer_limit: int = ANSWER_LIMIT,
    ) -> None:
        if not endpoints:
            raise RequestRefused("StorPool API: no endpoint is configured; set SP_API_HTTP_HOST")
        self._endpoints = tuple(endpoints)
        self._token = token
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._monotonic = monotonic
        self._session = session
        self._answer_limit = answer_limit
        self._preferred = 0

    def __repr__(self) -> str:
        return f"HttpTransport({', '.join(self._endpoints)})"

    def call(self, request: Request) -> Reply:
        count = len(self._endpoints)
        first = self._preferred
        refusals = []
        for offset in range(count):
            index = (first + offset) % count
            try:
                reply = self._send(self._endpoints[index], request)
            except NotSent as error:
                refusals.append(str(error))
                continue
            self._preferred = index
            return reply
        raise NotSent(f"StorPool {request.path}: no API endpoint could be reached: {'; '.join(refusals)}")

    def _send(self, endpoint: str, request: Request) -> Reply:
        # StorPool closes the connection after each answer, so a session lives for one call; that also keeps threads
        # apart and rules out a request that dies with a connection kept alive.
        with self._session() as session:
            session.trust_env = False
            try:
                response = session.request(
                    request.verb,
                    f"http://{endpoint}{BASE_PATH}{quote(request.path, safe='/~@*:')}",
                    params={"json": request.body} if request.verb == "GET" and request.body else None,
                    data=request.body if request.verb == "POST" else None,
                    headers={
                        "Authorization": f"Storpool v1:{self._token.reveal()}",
                        "Content-Type": "application/json",
                        "Accept-Encoding": "identity",
                    },
                    timeout=(self._connect_timeout, min(self._read_timeout or request.timeout, request.timeout)),
                    allow_redirects=False,
                    stream=True,
                )
            except requests.RequestException as error:
                raise _lost(endpoint, request, error) from None
            with response:
                if response.is_redirect:
                    raise RequestRefused(
                        f"StorPool {request.path}: {endpoint} answered with a redirect (HTTP {response.status_code}), "
                        "which StorPool never does; check SP_API_HTTP_HOST"
                    )
                return Reply(response.status_code, self._read(endpoint, request, response))

    def _read(self, endpoint: str, request: Request, response: requests.Response) -> bytes:
        deadline = None if self._monotonic is None else self._monotonic() + request.timeout
        parts: list[bytes] = []
        length = 0
        try:
            for part in response.raw.stream(65536, decode_content=False):
                parts.append(part)
                length += len(part)
                if length > self._answer_limit:
                    raise MalformedAnswer(
                        f"StorPool {request.path}: the answer of {endpoint} is larger than {self._answer_limit} bytes"
                    )
                if deadline is not None and self._monotonic is not None and self._monotonic() > deadline:
                    raise AnswerLost(
                        f"StorPool {request.path}: {endpoint} did not finish its answer in {request.timeout:g} s"
                    )
        except (HTTPError, OSError) as error:
            raise _lost(endpoint, request, error) from None
        return b"".join(parts)


def _lost(endpoint: str, request: Request, error: Exception) -> NotSent | AnswerLost:
    """What a failed exchange means. The text names the kind of failure only: library texts may quote headers."""
    cause = _cause(error)
    kind = type(cause).__name__
    if isinstance(error, requests.ConnectTimeout) or isinstance(cause, NewConnectionError | ConnectTimeoutError):
        return NotSent(f"{endpoint}: {kind}")
    if isinstance(
        error, requests.exceptions.InvalidURL | requests.exceptions.InvalidHeader | requests.exceptions.InvalidSchema
    ):
        return NotSent(f"{endpoint}: {kind}; check SP_API_HTTP_HOST and SP_AUTH_TOKEN")
    return AnswerLost(
        f"StorPool {request.path}: sent to {endpoint}, but no whole answer came ({kind}); "
        "the request may have been carried out, or may be later"
    )


def _cause(error: BaseException) -> BaseException:
    """The innermost reason that requests and urllib3 wrap."""
    reason: object = error.reason if isinstance(error, MaxRetryError) else (error.args[0] if error.args else None)
    return _cause(reason) if isinstance(reason, Exception) else error
