"""How many StorPool calls the plugin makes, by name: for each operation of the matrix and for each case of a row.

`calls.json` holds them for one schedule of the memory world. An operation that needs more than is written there has to
be looked at: then `make calls` writes them anew. Of the observers' and the checks' own calls none is counted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import click

from harness import checks
from harness.faults import matrix
from harness.faults.operation import Operation
from harness.faults.operations import BY_ID
from harness.recording import Recorder
from harness.run import Verdict, judge
from harness.runtime.messages import MessageFault
from harness.worlds.memory.world import MemoryWorld
from scenarios.registry import Case, load

FILE = Path(__file__).with_name("calls.json")
CALL = "StorPool "
"""Points at which a StorPool call is sent have details that begin so."""
OBSERVER = "scenario"
"""The process of the observers."""

Counts = dict[str, int]
"""Calls by name."""
Baseline = dict[str, dict[str, Counts]]
"""`operations` and `cases`, each by id."""


class Counter:
    """Counts while it is on; its `strike` is what a `MemoryWorld` is given."""

    def __init__(self, *, on: bool = False) -> None:
        self.on = on
        self.counts: Counts = {}

    def strike(self, process: str, kind: str, detail: str) -> MessageFault | None:
        if self.on and kind == "send" and process != OBSERVER and detail.startswith(CALL):
            name = detail.removeprefix(CALL).partition(" at ")[0]
            self.counts[name] = self.counts.get(name, 0) + 1
        return None


def of_operation(operation: Operation, seed: int = matrix.SEED) -> Counts:
    """From the request until the cloud is at rest: what is done after the answer counts too."""
    counter = Counter()

    def run(world: MemoryWorld) -> None:
        subject = operation.prepare(world)
        _rest(world)
        counter.on = True
        operation.request(world, subject)
        _rest(world)
        counter.on = False

    MemoryWorld(seed, strike=counter.strike, site=operation.site).run(run)
    return dict(sorted(counter.counts.items()))


def _rest(world: MemoryWorld) -> None:
    violated = checks.violations_at_rest(world, world.simulation.main.sleep, matrix.REST_SECONDS)
    if violated:
        raise RuntimeError(f"the cloud does not come to rest, so its calls say nothing: {violated[0]}")


def of_case(case: Case, seed: int = matrix.SEED) -> Counts:
    """Of a whole scenario, its removal included. Raises `RuntimeError` when it does not pass."""
    counter, verdict = Counter(on=True), Verdict()
    recorder = Recorder("memory", case.id, lambda _event: None, lambda: 0.0)
    world = MemoryWorld(seed, strike=counter.strike, site=case.site)
    world.run(lambda inner: judge(case, inner, recorder, verdict))
    if verdict.error is not None or recorder.failed:
        raise RuntimeError(f"{case.id} does not pass, so its calls say nothing: {verdict.error or verdict.violated}")
    return dict(sorted(counter.counts.items()))


def measure() -> Baseline:
    """All operations and all cases."""
    return {
        "operations": of_operations(),
        "cases": {case.id: of_case(case) for case in load()},
    }


def of_operations() -> dict[str, Counts]:
    return {operation.id: of_operation(operation) for operation in BY_ID.values()}


def baseline() -> Baseline:
    """What is written."""
    known: Baseline = json.loads(FILE.read_text())
    return known


def write(found: Baseline) -> None:
    lines = [
        f"  {json.dumps(kind)}: {{\n"
        + ",\n".join(f"    {json.dumps(name)}: {json.dumps(counts)}" for name, counts in found[kind].items())
        + "\n  }"
        for kind in found
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def grown(found: Mapping[str, Mapping[str, Counts]], known: Mapping[str, Mapping[str, Counts]]) -> list[str]:
    """A line for what has no baseline, and for each call that is made more often than it says."""
    lines = []
    for kind, measured in found.items():
        for name, counts in measured.items():
            before = known.get(kind, {}).get(name)
            if before is None:
                lines.append(f"{name} has no baseline in {FILE.name}; make calls writes one")
                continue
            lines += [
                f"{name}: {call} is called {count} times, in {FILE.name} it is {before.get(call, 0)}"
                for call, count in counts.items()
                if count > before.get(call, 0)
            ]
    return lines


@click.command()
@click.option("--write", "writing", is_flag=True, help="Write what was found as the new baseline.")
def calls(writing: bool) -> None:
    """Count the StorPool calls of each operation and case in memory; say what needs more than its baseline.

    Exits with 0 when nothing does, or when the new baseline was written.
    """
    logging.getLogger("harness").setLevel(logging.CRITICAL)
    found = measure()
    known = baseline() if FILE.exists() else {}
    more = grown(found, known)
    for line in more:
        click.echo(line)
    if writing:
        write(found)
        gone = [name for kind, names in known.items() for name in names if name not in found.get(kind, {})]
        click.echo(f"{FILE} written: {sum(map(len, found.values()))} entries, {len(more)} grown, {len(gone)} gone")
        return
    total = sum(sum(counts.values()) for measured in found.values() for counts in measured.values())
    click.echo(f"{total} StorPool calls, {'none' if not more else len(more)} more often than the baseline says")
    if more:
        raise SystemExit(1)
