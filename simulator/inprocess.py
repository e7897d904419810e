"""A simulator in memory with a clock of its own, for tests and for trying things out.

simulator = InProcess()
simulator.post("VolumeCreate", {"name": "a", "size": 1 << 30})
simulator.get("VolumesList")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from simulator.api.paths import BASE
from simulator.blocks.memory import MemoryBlocks
from simulator.effects import Effects
from simulator.journal.memory import MemoryJournal
from simulator.multicluster.exchange import Exchange
from simulator.ports import Reply, Request
from simulator.promises import Later
from simulator.service import Service
from simulator.settings import KnownCluster, Settings

TOKEN = "1234567890123456789"


class ApiError(Exception):
    """An error answer."""

    def __init__(self, status: int, name: str, descr: str) -> None:
        super().__init__(f"{status} {name}: {descr}")
        self.status = status
        self.name = name
        self.descr = descr


@dataclass(slots=True)
class Asked:
    """A call that may not have been answered yet."""

    number: int
    reply: Reply | None = None

    def envelope(self) -> dict[str, Any]:
        """The whole answer. Raises `ApiError`, and `LookupError` while there is none."""
        if self.reply is None:
            raise LookupError(f"call {self.number} has not been answered yet")
        answer: dict[str, Any] = msgspec.json.decode(self.reply.body)
        if "error" in answer:
            raise ApiError(self.reply.status, answer["error"]["name"], answer["error"]["descr"])
        return answer

    @property
    def data(self) -> Any:
        """JSON."""
        return self.envelope()["data"]


class InProcess:
    """One cluster. `restart` builds the service again from what is durable."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        capacity: int = 1 << 40,
        effects: Effects | None = None,
        later: Later | None = None,
        configurations: Mapping[str, str] = MappingProxyType({}),
        exchange: Exchange | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.blocks = MemoryBlocks(capacity)
        self.journal = MemoryJournal()
        self.time = 1_700_000_000.0
        self._effects = effects
        self._later = later
        self._configurations = configurations
        self._exchange = exchange
        self.service = self._start()

    def _start(self) -> Service:
        cluster = self.settings.cluster_id
        service = Service(
            self.blocks,
            self.journal,
            self.settings,
            lambda: self.time,
            TOKEN,
            self._effects,
            control=True,
            advance=self.advance,
            later=self._later,
            configurations=self._configurations,
            bridges=None if self._exchange is None else self._exchange.bridges(cluster),
        )
        if self._exchange is not None:
            self._exchange.join(cluster, service, self.blocks, TOKEN)
        return service

    def advance(self, seconds: float) -> None:
        """Move the clock on; what has become due is done at the next call or `tick`."""
        self.time += seconds

    def restart(self, settings: Settings | None = None) -> None:
        """As after a kill: what was not synced is lost."""
        self.settings = settings or self.settings
        self.service = self._start()

    def ask(self, verb: str, path: str, body: bytes = b"", token: str | None = TOKEN) -> Asked:
        """One call; paths without a leading slash are calls of the API."""
        asked = Asked(0)

        def answered(reply: Reply) -> None:
            asked.reply = reply

        whole = path if path.startswith("/") else BASE + path
        asked.number = self.service.submit(Request(verb, whole, body, token), answered)
        return asked

    def get(self, path: str, json: Any = None) -> Any:
        """`data` of the answer. Raises `ApiError`."""
        return self.ask("GET", path, b"" if json is None else msgspec.json.encode(json)).data

    def post(self, path: str, json: Any = None) -> Any:
        return self.ask("POST", path, b"" if json is None else msgspec.json.encode(json)).data


def connected(*clusters: KnownCluster, exchange: Exchange | None = None) -> list[InProcess]:
    """Clusters that are registered with each other, with bridges; each has a clock of its own."""
    exchange = exchange or Exchange()
    return [
        InProcess(
            Settings(cluster_id=one.cluster_id, cluster_name=one.name, known_clusters=clusters), exchange=exchange
        )
        for one in clusters
    ]
