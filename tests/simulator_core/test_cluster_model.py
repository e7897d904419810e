"""The cluster in memory against the model; `tests/simulator_machine` has the same on loop devices."""

from __future__ import annotations

from collections.abc import Mapping

from cluster_machine import PAGE, Everything, Subject
from hypothesis import settings

from simulator.inprocess import InProcess


class InMemory:
    def __init__(self) -> None:
        self.simulator = InProcess()

    def read(self, number: int, length: int) -> bytes:
        return self.simulator.blocks.read(number, 0, length)

    def write(self, number: int, offset: int, data: bytes) -> None:
        self.simulator.blocks.write(number, offset, data)

    def open(self, number: int, client: int) -> None:
        self.simulator.blocks.open(number, client)

    def release(self, number: int, client: int) -> None:
        self.simulator.blocks.release(number, client)

    def objects(self) -> set[int]:
        return set(self.simulator.blocks.objects())

    def opened(self) -> set[int]:
        return {number for number in self.objects() if self.simulator.blocks.opened(number)}

    def attached(self, client: int) -> Mapping[int, str]:
        blocks = self.simulator.blocks
        return {number: blocks.rights(number, client) or "" for number in blocks.links_by_id(client).values()}

    def used(self) -> tuple[int, int]:
        capacity, free = self.simulator.blocks.capacity()
        return capacity - free, capacity - free

    def stored(self, data: bytes) -> tuple[int, int]:
        """Pages that are not all zeroes."""
        pages = sum(any(data[at : at + PAGE]) for at in range(0, len(data), PAGE))
        size = min(len(data), pages * PAGE)
        return size, pages * PAGE


class OnMemory(Everything):
    def subject(self) -> Subject:
        return InMemory()


TestEverything = OnMemory.TestCase
TestEverything.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
