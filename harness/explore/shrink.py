"""Shrinks a plan that fails to the shortest one that still fails in the same way (Zeller's delta debugging)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from harness.explore.plan import Action, Plan
from harness.explore.violation import Violation

MAX_RUNS = 400

Run = Callable[[Plan], Violation | None]
_Part = tuple[str, int, Action | str]
"""`action` of a client, or `fault`; the client's number; the thing itself."""


class _Budget:
    def __init__(self, run: Run, kind: str, runs: int) -> None:
        self._run = run
        self._kind = kind
        self.left = runs

    def fails(self, plan: Plan) -> bool:
        """Whether it still fails in the same way; never once the runs are used up."""
        if self.left <= 0:
            return False
        self.left -= 1
        found = self._run(plan)
        return found is not None and found.kind == self._kind


def shrink(plan: Plan, kind: str, run: Run, runs: int = MAX_RUNS) -> Plan:
    """The shortest plan found with at most `runs` runs; `plan` itself fails with a violation of this kind."""
    budget = _Budget(run, kind, runs)
    best = plan
    while True:
        before = best
        best = _fewer_parts(best, budget)
        best = _simpler(best, budget)
        if best == before:
            return best


def _fewer_parts(plan: Plan, budget: _Budget) -> Plan:
    """Leave out runs of actions and faults, long ones first; at the end none can be left out alone."""
    parts = _parts(plan)
    size = max(1, len(parts) // 2)
    while True:
        start = 0
        while start < len(parts):
            fewer = parts[:start] + parts[start + size :]
            if budget.fails(_plan(plan, fewer)):
                parts = fewer
            else:
                start += size
        if size == 1:
            return _plan(plan, parts)
        size = max(1, min(size // 2, len(parts)))


def _simpler(plan: Plan, budget: _Budget) -> Plan:
    """Take away what is there at the beginning, pauses, marks and settings."""
    for change in _changes(plan):
        if change != plan and budget.fails(change):
            return change
    return plan


def _changes(plan: Plan) -> list[Plan]:
    replace = msgspec.structs.replace
    found = [_struck(plan, at, sooner) for at, fault in enumerate(plan.parsed_faults()) for sooner in _sooner(fault.at)]
    if plan.vms:
        found.append(replace(plan, vms=plan.vms - 1))
    if plan.volumes:
        found.append(replace(plan, volumes=plan.volumes - 1))
    if plan.seeded:
        found.append(replace(plan, seeded=False))
    if plan.bypass:
        found.append(replace(plan, bypass=False))
    if plan.delete_after:
        found.append(replace(plan, delete_after=0))
    for client, actions in enumerate(plan.clients):
        for at, action in enumerate(actions):
            for simpler in (
                replace(action, pause=0.0),
                replace(action, write=False),
                replace(action, template=0),
                replace(action, offering=0),
                replace(action, size=min(action.size, 1)),
            ):
                if simpler != action:
                    changed = (*actions[:at], simpler, *actions[at + 1 :])
                    found.append(replace(plan, clients=(*plan.clients[:client], changed, *plan.clients[client + 1 :])))
    return found


def _sooner(at: int) -> list[int]:
    """Numbers of points to try instead: without what was left out there are fewer before the one that matters."""
    return sorted({at // 2, at - 4, at - 2, at - 1} - set(range(-4, 1)))


def _struck(plan: Plan, number: int, at: int) -> Plan:
    """One of its faults strikes at another point."""
    faults = list(plan.faults)
    faults[number] = str(plan.parsed_faults()[number]._replace(at=at))
    return msgspec.structs.replace(plan, faults=tuple(dict.fromkeys(faults)))


def _parts(plan: Plan) -> list[_Part]:
    parts: list[_Part] = [("fault", 0, fault) for fault in plan.faults]
    parts += [("action", number, action) for number, actions in enumerate(plan.clients) for action in actions]
    return parts


def _plan(plan: Plan, parts: Sequence[_Part]) -> Plan:
    clients: list[list[Action]] = [[] for _ in plan.clients]
    faults: list[str] = []
    for _, client, part in parts:
        if isinstance(part, str):
            faults.append(part)
        else:
            clients[client].append(part)
    kept = tuple(tuple(actions) for actions in clients if actions)
    return msgspec.structs.replace(plan, clients=kept, faults=tuple(faults))
