"""Bridges to clusters of other processes, over HTTP to their API (spec storpool-api 1, 7.8)."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, urlsplit

import msgspec

from simulator.api import errors, wire
from simulator.api.paths import BRIDGE_BASE
from simulator.ports import BlocksError, Contents, Reply, Request, Withdraw, nothing_waits

SECONDS = 300.0
"""For which another cluster may be silent."""
LARGEST = 64 << 20
"""Bytes of an answer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The API of a cluster that runs elsewhere."""

    url: str
    """`http://HOST:PORT`"""
    token: str = field(repr=False)


class Threads(Protocol):
    """Runs what waits for the network."""

    def start(self, work: Callable[[], Reply], done: Callable[[Reply], None]) -> None:
        """`work` on another thread, then `done` with its result on the thread of the service."""
        ...


def call(endpoint: Endpoint, request: Request) -> Reply:
    """One call; an answer that does not come is `unavailable`. Whether it was carried out is not known then."""
    url = urlsplit(endpoint.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port or 81, timeout=SECONDS)
    path, body = quote(request.path, safe="/~"), request.body
    if request.verb == "GET" and body:
        path, body = f"{path}?json={quote(body.decode(), safe='')}", b""
    try:
        connection.request(request.verb, path, body, {"Authorization": f"Storpool v1:{endpoint.token}"})
        response = connection.getresponse()
        answer = response.read(LARGEST + 1)
    except (OSError, http.client.HTTPException) as error:
        return _no_answer(f"{endpoint.url} does not answer: {type(error).__name__}")
    finally:
        connection.close()
    if len(answer) > LARGEST:
        return _no_answer(f"{endpoint.url} answers with more than {LARGEST} bytes")
    return Reply(response.status, answer)


def _no_answer(descr: str) -> Reply:
    return wire.refusal(errors.unavailable(descr))


class Elsewhere:
    """Implements `simulator.ports.Bridges`."""

    def __init__(self, endpoints: Mapping[str, Endpoint], threads: Threads) -> None:
        """`endpoints` by cluster id."""
        self._endpoints = dict(endpoints)
        self._threads = threads

    def clusters(self) -> Collection[str]:
        return self._endpoints.keys()

    def shares_devices(self, _cluster: str) -> bool:
        return False

    def submit(self, cluster: str, request: Request, reply: Callable[[Reply], None]) -> Withdraw:
        endpoint = self._endpoints[cluster]
        self._threads.start(lambda: call(endpoint, request), reply)
        return nothing_waits  # it ends after `SECONDS`

    def contents(self, cluster: str, global_id: str) -> Contents:
        endpoint = self._endpoints.get(cluster)
        if endpoint is None:
            raise BlocksError(f"cluster {cluster} cannot be reached")
        return _RemoteContents(endpoint, global_id)


@dataclass(frozen=True, slots=True)
class _RemoteContents:
    endpoint: Endpoint
    global_id: str

    def extents(self) -> Iterable[tuple[int, int]]:
        answer = self._ask("Extents", {"globalId": self.global_id})
        try:
            return msgspec.json.decode(answer, type=list[tuple[int, int]])
        except msgspec.DecodeError as error:
            raise BlocksError(f"{self.endpoint.url} does not tell the extents of {self.global_id}: {error}") from error

    def read(self, offset: int, length: int) -> bytes:
        data = self._ask("Read", {"globalId": self.global_id, "offset": offset, "length": length})
        if len(data) != length:
            raise BlocksError(f"{self.endpoint.url} gave {len(data)} of {length} bytes of {self.global_id}")
        return data

    def _ask(self, what: str, body: object) -> bytes:
        reply = call(self.endpoint, Request("POST", BRIDGE_BASE + what, msgspec.json.encode(body), None))
        if reply.status != 200:
            raise BlocksError(f"{what} of {self.global_id} at {self.endpoint.url}: {reply.body[:500]!r}")
        return reply.body
