"""How many StorPool calls the plugin makes, by name: for each operation of the matrix and for each case of a row.

`calls.json` holds them for one schedule of the memory world. An operation that needs more than is written there has to
be looked at. If it has to be so, users are told: `make calls` writes more than before only when a new line of
CHANGELOG.md names the call. Of the observers' and the checks' own calls none is counted.
"""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
CHANGELOG = Path(__file__).parent.parent.parent / "CHANGELOG.md"
WHAT_NEXT = "look at it; if it has to be so, name the call in a new line of CHANGELOG.md as `Call`, then: make calls"
GIT_SECONDS = 30.0
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


@dataclass(frozen=True, slots=True)
class Rise:
    """A call that an operation or case makes more often than the baseline says."""

    name: str
    call: str
    before: int
    now: int

    def __str__(self) -> str:
        return f"{self.name}: {self.call} is called {self.now} times, in {FILE.name} it is {self.before}"


def rises(found: Mapping[str, Mapping[str, Counts]], known: Mapping[str, Mapping[str, Counts]]) -> list[Rise]:
    """Of what has a baseline."""
    return [
        Rise(name, call, before.get(call, 0), count)
        for kind, measured in found.items()
        for name, counts in measured.items()
        if (before := known.get(kind, {}).get(name)) is not None
        for call, count in counts.items()
        if count > before.get(call, 0)
    ]


def grown(found: Mapping[str, Mapping[str, Counts]], known: Mapping[str, Mapping[str, Counts]]) -> list[str]:
    """A line for what has no baseline, and for each call that is made more often than it says."""
    new = [name for kind, measured in found.items() for name in measured if name not in known.get(kind, {})]
    return [
        *(f"{name} has no baseline in {FILE.name}; make calls writes one" for name in new),
        *map(str, rises(found, known)),
    ]


def not_told(risen: Sequence[Rise]) -> list[Rise]:
    """Those whose call no new line of CHANGELOG.md names: one that the commit which is checked out has not.

    Raises `RuntimeError` where that cannot be seen.
    """
    new = _new_lines() if risen else []
    return [rise for rise in risen if not any(f"`{rise.call}`" in line for line in new)]


def _new_lines() -> list[str]:
    try:
        now = CHANGELOG.read_text().splitlines()
        known = _git("ls-tree", "--name-only", "HEAD", "--", CHANGELOG.name)
        before = _git("show", f"HEAD:./{CHANGELOG.name}").splitlines() if known else []
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        raise RuntimeError(
            f"which lines of {CHANGELOG} are new cannot be seen, and without them no count may rise; write the counts"
            f" in a git clone of the project ({str(said).strip()})"
        ) from error
    return [line for line in now if line not in before]


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(CHANGELOG.parent), *arguments],
        capture_output=True,
        text=True,
        timeout=GIT_SECONDS,
        check=True,
    ).stdout


@click.command()
@click.option(
    "--write",
    "writing",
    is_flag=True,
    help="Write what was found as the new baseline. A call that is made more often than before must be named, as"
    " `Call`, by a line of CHANGELOG.md that is not committed yet; else nothing is written.",
)
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
        refuse_untold(rises(found, known))
        write(found)
        gone = [name for kind, names in known.items() for name in names if name not in found.get(kind, {})]
        click.echo(f"{FILE} written: {sum(map(len, found.values()))} entries, {len(more)} grown, {len(gone)} gone")
        return
    total = sum(sum(counts.values()) for measured in found.values() for counts in measured.values())
    click.echo(f"{total} StorPool calls, {'none' if not more else len(more)} more often than the baseline says")
    if more:
        click.echo(WHAT_NEXT)
        raise SystemExit(1)


def refuse_untold(risen: Sequence[Rise]) -> None:
    """Raises `click.ClickException` for those that CHANGELOG.md does not name."""
    try:
        left = not_told(risen)
    except RuntimeError as error:
        raise click.ClickException(f"{FILE.name} is left as it was: {error}") from error
    if left:
        lines = "\n".join(map(str, left))
        raise click.ClickException(
            f"{FILE.name} is left as it was: no new line of {CHANGELOG.name} names the call of\n{lines}\n{WHAT_NEXT}"
        )
