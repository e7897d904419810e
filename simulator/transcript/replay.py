"""A transcript asked again: of a simulator of this process, or of any StorPool API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec
from msgspec import UNSET

from simulator.inprocess import InProcess
from simulator.settings import Settings
from simulator.transcript.compare import Comparison, Difference, clusters_in
from simulator.transcript.format import Exchange, Transcript

_MOST_DUE = 10_000


class Cluster(Protocol):
    """What is held to a transcript."""

    def pause(self, seconds: float) -> None:
        """Let so much time pass on the cluster."""
        ...

    def ask(self, verb: str, path: str, body: bytes, took: float) -> tuple[int, bytes]:
        """HTTP status and body of the answer; `took` is how long the recorded one took. Raises `OSError`."""
        ...


class Simulated:
    """A simulator in memory, whose clock goes as the recording's."""

    def __init__(self, simulator: InProcess) -> None:
        self._simulator = simulator

    def pause(self, seconds: float) -> None:
        """What is due meanwhile happens when it is due, because more may follow from it."""
        for _ in range(_MOST_DUE):
            due = self._simulator.service.due_in()
            if due is None or due >= seconds:
                break
            self._pass(due)
            seconds -= due
        self._pass(seconds)

    def _pass(self, seconds: float) -> None:
        self._simulator.advance(seconds)
        self._simulator.service.tick()

    def ask(self, verb: str, path: str, body: bytes, took: float) -> tuple[int, bytes]:
        asked = self._simulator.ask(verb, path, body)
        if asked.reply is None:
            self.pause(took)
        if asked.reply is None:
            self._simulator.service.cancel(asked.number)
            return 0, b'{"error": {"name": "(no answer yet)", "descr": ""}}'
        return asked.reply.status, asked.reply.body


def clusters_of(transcript: Transcript) -> frozenset[str]:
    """Ids of the clusters that a recording tells of."""
    return frozenset().union(*(clusters_in(exchange.answer) for exchange in transcript.exchanges))


def check(
    transcript: Transcript, ignore: frozenset[str] = frozenset(), simulator: InProcess | None = None
) -> Iterator[Difference]:
    """The differences of a simulator in memory: by default an empty one, of the recorded cluster's id if there is just
    one, at the recorded time."""
    if simulator is None:
        clusters = clusters_of(transcript)
        settings = Settings(cluster_id=next(iter(clusters))) if len(clusters) == 1 else Settings()
        simulator = InProcess(settings)
        simulator.advance(transcript.header.started - simulator.time)
    return hold(Simulated(simulator), transcript, ignore)


def hold(cluster: Cluster, transcript: Transcript, ignore: frozenset[str] = frozenset()) -> Iterator[Difference]:
    """Ask everything again, one after the other, and tell what is answered differently, as it is found."""
    comparison = Comparison(clusters_of(transcript), ignore)
    now = 0.0
    for number, exchange in enumerate(transcript.exchanges, 1):
        if exchange.at > now:
            cluster.pause(exchange.at - now)
            now = exchange.at
        path = comparison.translated_path(exchange.path)
        json = exchange.json
        body = b"" if json is UNSET else msgspec.json.encode(comparison.translated(json))
        status, text = cluster.ask(exchange.verb, path, body, exchange.took)
        answer = _decoded(text)
        yield from comparison.differences(
            number, _call(exchange, path), exchange.answer, answer, (exchange.status, status)
        )


def _decoded(text: bytes) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = None
    return answer if isinstance(answer, dict) else {"(no JSON object)": text[:200].decode(errors="replace")}


def _call(exchange: Exchange, path: str) -> str:
    return f"{exchange.verb} {path}"
