"""Counts points while a run goes on, and strikes where the plan says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from harness.faults.kinds import FaultKind, fitting
from harness.faults.plan import Fault
from harness.faults.points import Point
from harness.faults.target import FaultTarget
from harness.runtime.messages import MessageFault


class Fired(NamedTuple):
    """A fault that struck, and where."""

    fault: Fault
    point: Point

    def __str__(self) -> str:
        return f"{self.fault} ({self.point})"


class Injector:
    """Its `strike` is what a `MemoryWorld` is given. Nothing strikes, and nothing is counted, until it is armed."""

    def __init__(self, faults: Iterable[Fault] = (), *, count_all: bool = False) -> None:
        """With `count_all` points are counted for every kind, not only for those of the plan."""
        self.armed = False
        self.points: list[Point] = []
        """Points passed while armed; kept with `count_all` only."""
        self.counts: dict[str, int] = {}
        """By name of a kind: how many points passed that it fits."""
        self.fired: list[Fired] = []
        self._count_all = count_all
        self._at: dict[str, set[int]] = {}
        self.ends_guests = False
        """Whether the plan has faults that power VMs off."""
        for fault in faults:
            self.ends_guests |= fault.kind.ends_guests
            self._at.setdefault(fault.kind.name, set()).add(fault.at)
        self._target: FaultTarget | None = None

    def aim(self, target: FaultTarget) -> None:
        """Say what the faults befall."""
        self._target = target

    def strike(self, process: str, kind: str, detail: str) -> MessageFault | None:
        if not self.armed:
            return None
        point = Point(process, kind, detail)
        found = fitting(point)
        if self._count_all:
            if found:
                self.points.append(point)
            for each in found:
                self.counts[each.name] = self.counts.get(each.name, 0) + 1
        hit: FaultKind | None = None
        for each in found:
            planned = self._at.get(each.name)
            if planned is None:
                continue
            if not self._count_all:
                self.counts[each.name] = self.counts.get(each.name, 0) + 1
            # One fault a point: what two of them would mean together depends on their order.
            if hit is None and self.counts[each.name] in planned:
                hit = each
        if hit is None or self._target is None:
            return None
        self.fired.append(Fired(Fault(hit, self.counts[hit.name]), point))
        return hit.strike(self._target, point)
