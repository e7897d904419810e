"""Bridges between the simulated StorPool processes: as those of one simulator process, but each process dies alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from simulator.api import errors, wire
from simulator.multicluster.exchange import Exchange
from simulator.ports import Bridges, Contents, Reply, Request, Withdraw


class MemoryBridges:
    """One for all processes; what was asked of one that dies is answered at once, as a connection that breaks."""

    def __init__(self) -> None:
        self.exchange = Exchange()
        self._asked: dict[int, tuple[str, str, Callable[[Reply], None]]] = {}
        """Who asked, who was asked, and where the reply goes."""
        self._next = 0

    def of(self, cluster: str) -> Bridges:
        """The ways that lead from this cluster."""
        return _Ways(self, cluster, self.exchange.bridges(cluster))

    def died(self, cluster: str) -> None:
        """The process of this cluster is gone: it is not reached, and what it asked nobody waits for."""
        self.exchange.leave(cluster)
        for number, (asking, asked, reply) in list(self._asked.items()):
            if cluster in (asking, asked):
                del self._asked[number]
            if cluster == asked and asking != cluster:
                reply(wire.refusal(errors.unavailable(f"Cluster {cluster} cannot be reached")))

    def submit(
        self, asking: str, ways: Bridges, cluster: str, request: Request, reply: Callable[[Reply], None]
    ) -> Withdraw:
        number = self._next = self._next + 1
        self._asked[number] = (asking, cluster, reply)

        def replied(answer: Reply) -> None:
            if self._asked.pop(number, None) is not None:
                reply(answer)

        return ways.submit(cluster, request, replied)


@dataclass(frozen=True, slots=True)
class _Ways:
    bridges: MemoryBridges
    origin: str
    ways: Bridges

    def clusters(self) -> Collection[str]:
        return self.ways.clusters()

    def shares_devices(self, cluster: str) -> bool:
        """Also of one that is down: where its devices lead does not depend on its process."""
        del cluster
        return True

    def submit(self, cluster: str, request: Request, reply: Callable[[Reply], None]) -> Withdraw:
        return self.bridges.submit(self.origin, self.ways, cluster, request, reply)

    def contents(self, cluster: str, global_id: str) -> Contents:
        return self.ways.contents(cluster, global_id)
