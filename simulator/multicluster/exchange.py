"""Bridges between the clusters of one process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from simulator.api import errors, wire
from simulator.ports import (
    Blocks,
    BlocksError,
    Bridges,
    Contents,
    NoBridges,
    Reply,
    Request,
    Service,
    Withdraw,
    nothing_waits,
)


class Member(Service, Protocol):
    """A service that can be told that another one's call may have changed when it must be called again."""

    moved: Callable[[], None]

    def withdraw(self, number: int) -> bool:
        """As `simulator.ports.Withdraw`, of the call with this number."""
        ...


@dataclass(frozen=True, slots=True)
class _Joined:
    service: Member
    blocks: Blocks
    token: str


class Exchange:
    """Knows every cluster of the process. Messages are delivered one after the other, each when the one before is."""

    def __init__(self, elsewhere: Bridges | None = None) -> None:
        """`elsewhere` leads to clusters of other processes."""
        self._elsewhere = elsewhere or NoBridges()
        self._joined: dict[str, _Joined] = {}
        self._queue: deque[Callable[[], object]] = deque()
        self._delivering = False

    def join(self, cluster: str, service: Member, blocks: Blocks, token: str) -> None:
        """From now on it is reached; whoever had the id before is not any more."""
        self._joined[cluster] = _Joined(service, blocks, token)

    def leave(self, cluster: str) -> None:
        self._joined.pop(cluster, None)

    def bridges(self, cluster: str) -> Bridges:
        """The ways that lead from this cluster."""
        return _Ways(self, cluster)

    def clusters(self) -> Collection[str]:
        return [*self._joined, *self._elsewhere.clusters()]

    def shares_devices(self, cluster: str) -> bool:
        return cluster in self._joined

    def submit(self, cluster: str, request: Request, reply: Callable[[Reply], None]) -> Withdraw:
        delivered: list[Withdraw] = []
        answered = partial(self._answered, reply)
        self._queue.append(lambda: delivered.append(self._deliver(cluster, request, answered)))
        self._run()
        return lambda: any(withdraw() for withdraw in delivered)

    def _answered(self, reply: Callable[[Reply], None], answer: Reply) -> None:
        """Not from within the call of the cluster that answers: what the answer leads to is no part of that."""
        self._queue.append(partial(reply, answer))
        self._run()

    def _run(self) -> None:
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._queue:
                self._queue.popleft()()
        finally:
            self._delivering = False
        for joined in self._joined.values():
            joined.service.moved()

    def _deliver(self, cluster: str, request: Request, reply: Callable[[Reply], None]) -> Withdraw:
        joined = self._joined.get(cluster)
        if joined is None and cluster in self._elsewhere.clusters():
            return self._elsewhere.submit(cluster, request, reply)
        if joined is None:
            reply(wire.refusal(errors.unavailable(f"Cluster {cluster} cannot be reached")))
            return nothing_waits
        number = joined.service.submit(Request(request.verb, request.path, request.body, joined.token), reply)
        return partial(joined.service.withdraw, number)

    def contents(self, cluster: str, global_id: str) -> Contents:
        if cluster in self._elsewhere.clusters():
            return self._elsewhere.contents(cluster, global_id)
        joined = self._joined.get(cluster)
        key = None if joined is None else joined.service.object_keys().get(global_id)
        if joined is None or key is None:
            raise BlocksError(f"cluster {cluster} has no object {global_id}, or cannot be reached")
        return _BlockContents(joined.blocks, key)


@dataclass(frozen=True, slots=True)
class _Ways:
    exchange: Exchange
    origin: str

    def clusters(self) -> Collection[str]:
        return [cluster for cluster in self.exchange.clusters() if cluster != self.origin]

    def shares_devices(self, cluster: str) -> bool:
        return self.exchange.shares_devices(cluster)

    def submit(self, cluster: str, request: Request, reply: Callable[[Reply], None]) -> Withdraw:
        return self.exchange.submit(cluster, request, reply)

    def contents(self, cluster: str, global_id: str) -> Contents:
        return self.exchange.contents(cluster, global_id)


@dataclass(frozen=True, slots=True)
class _BlockContents:
    blocks: Blocks
    key: int

    def extents(self) -> Iterable[tuple[int, int]]:
        return self.blocks.extents(self.key)

    def read(self, offset: int, length: int) -> bytes:
        return self.blocks.read(self.key, offset, length)
