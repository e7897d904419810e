"""What the API costs: calls over HTTP beside the least server, lists beside their encoding alone, start-up, memory."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from harness.bench.http_client import apart
from harness.bench.measure import Bench, Missing, Pair, in_turns, seconds
from harness.bench.rig import MIB, TOKEN, Simulator, bare, loop_simulator, request, require_devices, simulator
from simulator.api.schema import answers
from simulator.blocks.memory import MemoryBlocks
from simulator.cluster.records import JournalRecord
from simulator.journal.file import FileJournal
from simulator.ports import Reply, Request
from simulator.service import Service
from simulator.settings import Settings
from simulator.statedir import journal_path

LEG = "api"
_BARE = "the same starlette and uvicorn with a handler that answers the same bytes"
_CONNECTIONS = (1, 8)
_CREATE = request("POST", "VolumeCreate", {"size": MIB})
_ENCODING = "msgspec encoding the same answer"
_POOL = 4 << 30
_CAPACITY = 1 << 50
_MEMORY = 300 * MIB
_BATCH = 500
"""Calls between two syncs when the large cluster is made."""


def measure(bench: Bench) -> None:
    reads(bench)
    creates(bench)
    try:
        require_devices()
    except Missing as missing:
        bench.note(f"api: creates with --blocks loop are left out, for they need {missing}")
    else:
        creates_with_devices(bench)
    large(bench)


def rate(bench: Bench, port: int, asked: bytes, connections: int) -> float:
    """Answers a second."""
    return apart(port, asked, connections, bench.effort.seconds).per_second


def reads(bench: Bench) -> None:
    with simulator("--blocks", "memory") as running:
        running.call("POST", "VolumeCreate", {"name": "volume", "size": 1 << 30})
        asked = request("GET", "Volume/volume")
        with bare(bench.directory / "bare-reads", running.call("GET", "Volume/volume"), b"") as least:
            for connections in _CONNECTIONS:
                pairs = in_turns(
                    bench.effort.turns,
                    partial(rate, bench, running.port, asked, connections),
                    partial(rate, bench, least.port, asked, connections),
                )
                bench.compared(LEG, f"reads of one volume, {_of(connections)}", "answers/s", _BARE, pairs, at_least=0.5)


def _of(connections: int) -> str:
    return f"{connections} connection{'s' if connections > 1 else ''}"


def creates(bench: Bench) -> None:
    state = bench.directory / "creates"
    with simulator("--blocks", "memory", "--state", str(state)) as running:
        answer, record = _one_create(running, state)
        against = f"{_BARE} after one fdatasync of a record as long"
        with bare(bench.directory / "bare-creates", answer, record) as least:
            for connections in _CONNECTIONS:
                pairs = in_turns(
                    bench.effort.turns,
                    partial(rate, bench, running.port, _CREATE, connections),
                    partial(rate, bench, least.port, _CREATE, connections),
                )
                name = f"durable creates in memory, {_of(connections)}"
                bench.compared(LEG, name, "answers/s", against, pairs, at_least=0.5 if connections == 1 else None)
        pairs = in_turns(
            bench.effort.turns,
            partial(rate, bench, running.port, _CREATE, 8),
            partial(syncs, bench.directory / "syncs", record, bench.effort.seconds),
        )
        name = "durable creates in memory, 8 connections, as syncs"
        bench.compared(LEG, name, "a second", "fdatasync of a record as long, in a loop", pairs, at_least=1.0)


def _one_create(running: Simulator, state: Path) -> tuple[bytes, bytes]:
    """The answer of one create, and bytes as many as it appends to the journal."""
    running.call("POST", "VolumeCreate", {"size": MIB})
    before = journal_path(state).stat().st_size
    answer = running.call("POST", "VolumeCreate", {"size": MIB})
    return answer, bytes(journal_path(state).stat().st_size - before)


def syncs(path: Path, record: bytes, lasting: float) -> float:
    """How many appends with an fdatasync each the disk takes in a second."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        count = end = 0
        began = time.monotonic()
        while time.monotonic() < began + lasting:
            end += os.pwrite(file, record, end)
            os.fdatasync(file)
            count += 1
        return count / (time.monotonic() - began)
    finally:
        os.close(file)


def creates_with_devices(bench: Bench) -> None:
    state = bench.directory / "creates-loop"
    with loop_simulator(state, _POOL) as running:
        answer, record = _one_create(running, state)
        with bare(bench.directory / "bare-loop", answer, record, str(_POOL)) as least:
            pairs = in_turns(
                bench.effort.turns,
                partial(rate, bench, running.port, _CREATE, 1),
                partial(rate, bench, least.port, _CREATE, 1),
            )
        against = f"{_BARE} after one fdatasync and making one subvolume with its file"
        bench.compared(LEG, "durable creates on btrfs, 1 connection", "answers/s", against, pairs, at_least=0.5)


def large(bench: Bench) -> None:
    """Lists, memory and start-up of a cluster with as many volumes and snapshots as are to be held."""
    state = bench.directory / "large"
    state.mkdir()
    service = _populate(bench, state)
    counts = f"{bench.effort.volumes} volumes and {bench.effort.snapshots} snapshots"
    in_process(bench, service, counts)
    service.close()
    del service
    start_up(bench, state, counts)
    with simulator("--blocks", "memory", "--state", str(state)) as running:
        for call in ("VolumesList", "SnapshotsList"):
            over_http(bench, running, call, counts)
        bench.alone(LEG, f"memory with {counts}", "bytes", [running.resident()], at_most=_MEMORY)


class _Batches:
    """`later` of a service: one sync for many calls."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def __call__(self, sync: Callable[[], None]) -> None:
        self._waiting.append(sync)

    def turn(self) -> None:
        while self._waiting:
            self._waiting.pop()()


def _populate(bench: Bench, state: Path) -> Service:
    batches = _Batches()
    journal = FileJournal(journal_path(state))
    service = Service(MemoryBlocks(_CAPACITY), journal, Settings(), time.time, TOKEN, later=batches)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("VolumeCreate", {"name": f"volume-{at}", "size": 1 << 30, "tags": {"cs": "volume", "uuid": f"{at:036}"}})
        for at in range(bench.effort.volumes)
    ]
    calls += [
        (f"VolumeSnapshot/volume-{at % bench.effort.volumes}", {"name": f"snapshot-{at}"})
        for at in range(bench.effort.snapshots)
    ]
    for at, (path, json) in enumerate(calls):
        _submit(service, "POST", path, json)
        if at % _BATCH == 0:
            batches.turn()
    batches.turn()
    return service


def _submit(service: Service, verb: str, path: str, json: object = None) -> list[Reply]:
    replies: list[Reply] = []
    body = b"" if json is None else msgspec.json.encode(json)
    service.submit(Request(verb, f"/ctrl/1.0/{path}", body, TOKEN), replies.append)
    return replies


class _List(msgspec.Struct):
    generation: int
    data: list[answers.Summary]


class _Statuses(msgspec.Struct):
    generation: int
    data: dict[str, answers.Status]


_SHAPES: dict[str, type[_List | _Statuses]] = {
    "VolumesList": _List,
    "SnapshotsList": _List,
    "VolumesGetStatus": _Statuses,
}
_encode = msgspec.json.Encoder().encode


def _encoding(body: bytes, shape: type[_List | _Statuses]) -> Callable[[], float]:
    """Seconds that msgspec alone takes to make these bytes of what they say."""
    content = msgspec.json.decode(body, type=shape)
    return lambda: seconds(lambda: _encode(content))


def in_process(bench: Bench, service: Service, counts: str) -> None:
    for call, shape in _SHAPES.items():
        [reply] = _submit(service, "GET", call)
        pairs = _rates(in_turns(bench.effort.turns, _asking(service, call), _encoding(reply.body, shape)))
        bench.compared(
            LEG,
            f"{call} in process",
            "answers/s",
            f"{_ENCODING}; {counts}",
            pairs,
            at_least=0.5 if call == "VolumesList" else None,
        )


def _asking(service: Service, call: str) -> Callable[[], float]:
    return lambda: seconds(lambda: _submit(service, "GET", call))


def _rates(pairs: list[Pair]) -> list[Pair]:
    return [(1 / value, 1 / baseline) for value, baseline in pairs]


def over_http(bench: Bench, running: Simulator, call: str, counts: str) -> None:
    encoding = _encoding(running.call("GET", call), _SHAPES[call])
    pairs = in_turns(
        bench.effort.turns, partial(rate, bench, running.port, request("GET", call), 1), lambda: 1 / encoding()
    )
    bench.compared(
        LEG,
        f"{call} over HTTP",
        "answers/s",
        f"{_ENCODING}; {counts}",
        pairs,
        at_least=0.5 if call == "VolumesList" else None,
    )


def start_up(bench: Bench, state: Path, counts: str) -> None:
    """A start, and the first lists after it, which nothing is remembered for."""
    decode = msgspec.msgpack.Decoder(JournalRecord).decode
    journal = FileJournal(journal_path(state))
    records = list(journal.replay())
    journal.close()
    firsts: dict[str, list[Pair]] = {"VolumesList": [], "SnapshotsList": []}

    def start() -> float:
        gc.collect()
        began = time.perf_counter()
        journal = FileJournal(journal_path(state))
        service = Service(MemoryBlocks(_CAPACITY, forgets=True), journal, Settings(), time.time, TOKEN)
        took = time.perf_counter() - began
        for call, pairs in firsts.items():
            first = _asking(service, call)()
            [reply] = _submit(service, "GET", call)
            pairs.append((first, _encoding(reply.body, _SHAPES[call])()))
        service.close()
        return took

    def decoding() -> float:
        gc.collect()
        return seconds(lambda: [decode(record) for record in records])

    started = in_turns(bench.effort.turns, start, decoding)
    name = "start-up from the journal"
    bench.compared(LEG, name, "s", f"decoding its {len(records)} records; {counts}", started, at_most=3.0)
    for call, pairs in firsts.items():
        bench.compared(
            LEG, f"{call} in process, the first after a start", "answers/s", f"{_ENCODING}; {counts}", _rates(pairs)
        )
