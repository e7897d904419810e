"""The vendor's bindings, strict, over a simulator of this process whose journal outlives it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock
from urllib.parse import unquote

import msgspec
import pytest
from storpool import spapi

from simulator.inprocess import TOKEN, ApiError, InProcess
from simulator.ports import Request
from simulator.settings import KnownCluster

_driver = ""


@contextlib.contextmanager
def driven(client: str) -> Iterator[None]:
    """Calls made meanwhile are this real client's; the innermost client is hidden by the one that drives it."""
    global _driver
    before, _driver = _driver, _driver or client
    try:
        yield
    finally:
        _driver = before


def driver() -> str:
    """The real client whose call is under way, or nothing."""
    return _driver


def judge(method: str, raw: Any) -> None:
    """Hold `data` of an answer to the type that the bindings declare for the method."""
    getattr(spapi.Api, method).__globals__["returns"](raw)


TWO_CLUSTERS = (
    KnownCluster(cluster_id="aa.b", name="alpha", location="sofia"),
    KnownCluster(cluster_id="aa.c", name="beta", location="sofia"),
)
"""Of one location."""


class FakeResponse:
    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self._body = body

    def read(self) -> bytes:
        return self._body


class FakeConnection:
    """Stands in for http.client.HTTPConnection and leads into a simulator of this process."""

    def __init__(self, simulator: Callable[[], InProcess]) -> None:
        self._simulator = simulator
        self._response: FakeResponse | None = None

    def request(self, verb: str, path: str, body: str | None, headers: dict[str, str]) -> None:
        scheme, _, token = headers["Authorization"].partition(":")
        assert scheme == "Storpool v1"
        path, _, query = path.partition("?json=")
        json = unquote(query) if verb == "GET" else body or ""
        replies: list[FakeResponse] = []
        with driven("bindings"):
            self._simulator().service.submit(
                Request(verb, unquote(path), json.encode(), token),
                lambda reply: replies.append(FakeResponse(reply.status, reply.body)),
            )
        [self._response] = replies

    def getresponse(self) -> FakeResponse:
        assert self._response is not None
        return self._response

    def close(self) -> None:
        pass


class Strict:
    """The bindings, with every answer held to the declared type."""

    def __init__(self, rig: Bindings) -> None:
        self._rig = rig
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: object, **options: object) -> Any:
            with self._rig.connected():
                raw = getattr(self._rig.vendor, name)(*args, returnRawAPIData=True, **options)
            judge(name, raw)
            self.called.add(name)
            return raw

        return call


class Bindings:
    """`vendor` talks to the simulator inside `connected`; `strict` and the others by themselves."""

    def __init__(self, simulator: InProcess, *, multicluster: bool = False) -> None:
        self.simulator = simulator
        self.vendor = spapi.Api(auth=TOKEN, multiCluster=multicluster)
        self.strict = Strict(self)

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        with mock.patch.object(spapi.http, "HTTPConnection", lambda *_a, **_o: FakeConnection(lambda: self.simulator)):
            yield

    def refused(self, name: str, call: str, *args: object) -> spapi.ApiError:
        """The call is refused with this error name, and changes nothing."""
        before = self.simulator.service.encoded_state()
        with self.connected(), pytest.raises(spapi.ApiError) as refused:
            getattr(self.vendor, call)(*args)
        assert refused.value.name == name, refused.value
        assert self.simulator.service.encoded_state() == before
        return refused.value

    def refuses(self, verb: str, path: str, json: object = None) -> str:
        """Name of the error with which a call is refused that the bindings would not make; it changes nothing."""
        before = self.simulator.service.encoded_state()
        with pytest.raises(ApiError) as refused:
            self.simulator.ask(verb, path, b"" if json is None else msgspec.json.encode(json)).envelope()
        assert self.simulator.service.encoded_state() == before
        return refused.value.name

    def restart(self) -> None:
        """As after a kill: the state from the journal, which must be the same."""
        before = self.simulator.service.encoded_state()
        self.simulator.restart()
        assert self.simulator.service.encoded_state() == before


def configure(simulator: InProcess, bucket: str, text: str) -> None:
    """Give a service its configuration, which it takes at once."""
    with contextlib.suppress(ApiError):
        simulator.post(f"KV/Create/{bucket}")
    simulator.post(f"KV/Set/{bucket}", {"set": {"config": text}})
    simulator.service.tick()


def problems(simulator: InProcess, bucket: str) -> list[str]:
    """What a service tells of itself."""
    told: str = simulator.get(f"KV/List/{bucket}")["pairs"].get("problems", "")
    return told.splitlines()


def bindings(*, multicluster: bool = False) -> Bindings:
    return Bindings(InProcess(), multicluster=multicluster)
