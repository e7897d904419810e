"""Hundreds of kills in memory: at any write to the journal and any step of an effect, with several clients at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from crash_clients import MARK_BYTES, Client, settle

from simulator.blocks.memory import MemoryBlocks
from simulator.effects import Done, Work
from simulator.inprocess import Asked, InProcess
from simulator.journal.memory import MemoryJournal
from simulator.ports import Links

KILLS = 500 if os.environ.get("SPLAB_COUNTS") == "full" else 100
OPEN = KILLS * 3 // 5
"""At least so many of them with a call that is not answered, or an effect that is not over."""
STARTS = KILLS // 20
"""At least so many of them while a start was putting right what the kill before had left."""


class Killed(BaseException):
    """The process is gone; nothing that runs may catch this."""


class Fate:
    """Kills at the n-th point that is passed from now on."""

    def __init__(self) -> None:
        self.left = 0
        """0: no kill is coming."""

    def __call__(self) -> None:
        if self.left:
            self.left -= 1
            if not self.left:
                raise Killed


class MortalJournal(MemoryJournal):
    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self._fate = fate

    def sync(self) -> None:
        self._fate()
        super().sync()
        self._fate()


class MortalBlocks(MemoryBlocks):
    """Dies before and after each change; a group, or an effect of several changes, dies within."""

    def __init__(self, fate: Fate) -> None:
        super().__init__(1 << 40)
        self._fate = fate

    def _mortal(self, change: Callable[[], Any]) -> Any:
        self._fate()
        done = change()
        self._fate()
        return done

    def create(self, key: int, size: int) -> None:
        self._mortal(lambda: MemoryBlocks.create(self, key, size))

    def clone(self, source: int, key: int, size: int) -> None:
        self._mortal(lambda: MemoryBlocks.clone(self, source, key, size))

    def resize(self, key: int, size: int) -> None:
        self._mortal(lambda: MemoryBlocks.resize(self, key, size))

    def delete(self, key: int) -> None:
        self._mortal(lambda: MemoryBlocks.delete(self, key))

    def attach(self, key: int, links: Links, *, read_only: bool) -> str:
        return str(self._mortal(lambda: MemoryBlocks.attach(self, key, links, read_only=read_only)))

    def detach(self, key: int, client: int, *, force: bool) -> None:
        self._mortal(lambda: MemoryBlocks.detach(self, key, client, force=force))

    def limit(self, key: int, iops: int, bytes_per_second: int) -> None:
        self._mortal(lambda: MemoryBlocks.limit(self, key, iops, bytes_per_second))


class Mortal(InProcess):
    """A simulator whose effects end in any order, and which dies as `fate` says."""

    def __init__(self) -> None:
        self.fate = Fate()
        self.waiting: list[tuple[Work, Done]] = []
        super().__init__(effects=self)
        self.blocks = MortalBlocks(self.fate)
        self.journal = MortalJournal(self.fate)
        self.restart()

    def start(self, work: Work, done: Done) -> None:
        self.waiting.append((work, done))

    def finish(self, at: int) -> None:
        work, done = self.waiting.pop(at)
        failure = work()
        self.fate()
        done(failure)

    def beginning(self, number: int) -> bytes:
        return self.blocks.read(number, 0, MARK_BYTES)


def live(simulator: Mortal, clients: list[Client], draw: Random) -> None:
    """Until it is killed: one thing after the other, as chance has it."""
    asked: dict[Client, Asked] = {}
    while True:
        client = draw.choice(clients)
        if simulator.waiting and draw.random() < 0.4:
            simulator.finish(draw.randrange(len(simulator.waiting)))
        elif draw.random() < 0.1:
            simulator.advance(draw.choice([0.3, 2.0]))
            simulator.service.tick()
        elif client.order is None:
            writable = [name for name, known in client.world.items() if not known.snapshot]
            if writable and draw.random() < 0.3:
                write(simulator, client, draw.choice(writable))
            order = client.next()
            asked[client] = simulator.ask("POST", order.path, msgspec.json.encode(order.body))
        elif asked[client].reply is not None:
            asked[client].envelope()
            client.answered()


def write(simulator: Mortal, client: Client, name: str) -> None:
    mark = f"{client.name}{client.turn}".encode()
    number = simulator.get(f"Volume/{name}")[0]["id"]
    simulator.blocks.write(number, 0, mark.ljust(MARK_BYTES, b"\0"))
    client.written(name, mark)


def check(simulator: Mortal, clients: list[Client]) -> None:
    """What is there is what the clients know, and the blocks and the links have nothing besides."""
    listed = settle(clients, simulator)
    while simulator.waiting:
        simulator.finish(0)
    assert {number: simulator.blocks.size(number) for number in simulator.blocks.objects()} == {
        number: entry["size"] for number, entry in listed.items()
    }
    for client in clients:
        attached = {name for name, known in client.world.items() if known.at}
        assert set(simulator.blocks.links(client.number)) == attached
    attached_ones = {name: known for client in clients for name, known in client.world.items() if known.at}
    for number, entry in listed.items():
        known = attached_ones.get(entry["name"])
        assert simulator.blocks.limits(number) == (known.iops if known else 0, 0)
    before = simulator.service.encoded_state()
    simulator.restart()
    assert simulator.service.mended == [] and simulator.service.encoded_state() == before


def test_what_is_acknowledged_outlives_hundreds_of_kills_and_nothing_else_does() -> None:
    draw = Random(1)
    simulator, clients = Mortal(), [Client(name, number) for number, name in enumerate("abc", 1)]
    kills = with_open = starts = 0
    while kills < KILLS:
        simulator.fate.left = draw.randint(1, 60)
        try:
            live(simulator, clients, draw)
        except Killed:
            kills += 1
            with_open += bool(simulator.waiting) or any(client.order for client in clients)
        simulator.waiting.clear()
        while True:
            simulator.fate.left = draw.choice([0, 0, 0, 0, 1, 3])
            try:
                simulator.restart()
                break
            except Killed:
                kills, starts = kills + 1, starts + 1
        simulator.fate.left = 0
        simulator.waiting.clear()
        check(simulator, clients)
    print(f"{kills} kills, {with_open} with a call or an effect open, {starts} of starts")
    assert with_open >= OPEN and starts >= STARTS
