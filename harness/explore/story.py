"""A failing run told for people: the command that repeats it, what was done, what struck, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from harness.explore.drawing import seed_text
from harness.explore.plan import Plan, decode
from harness.explore.run import Evidence, Outcome
from harness.explore.violation import Violation
from harness.faults.journal import shown, without_noise
from harness.runtime.journal import Entry
from harness.runtime.simulated import MAIN

TAIL = 60
_STORY = ("client ", "fault", "judge")


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """As it is written to the report directory, and read by `--plan`."""

    seed: str
    """From which the plan was drawn."""
    commit: str
    violation: Violation
    plan: Plan
    """Shrunk."""
    drawn: Plan
    """As it was drawn."""


def tell(failure: Failure, outcome: Outcome, evidence: Evidence, command: str) -> str:
    """The first line is the one command that repeats the run."""
    plan = failure.plan
    lines = [
        f"{command}    # at commit {failure.commit}",
        f"violated: {failure.violation}",
        f"at the beginning: {plan.vms} running VMs, {plan.volumes} DATA volumes"
        + (", the first template used before" if plan.seeded else "")
        + (f", delete-after {plan.delete_after} s" if plan.delete_after else ""),
    ]
    lines += [f"client {number}: {'; '.join(map(str, actions))}" for number, actions in enumerate(plan.clients)]
    lines.append(f"faults: {', '.join(plan.faults) or 'none'}")
    lines += [f"  struck: {fired}" for fired in outcome.fired]
    lines.append("what happened (virtual seconds):")
    lines += [f"  {shown(entry)}" for entry in evidence.journal if _told(entry[1])]
    lines.append(f"the last of {len(evidence.journal)} entries of the journal:")
    lines += [f"  {shown(entry)}" for entry in list(_untold(evidence.journal))[-TAIL:]]
    return "\n".join(lines)


def write(failure: Failure, story: str, directory: Path) -> Path:
    """The failure as JSON, and its story beside it; the path of the JSON."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{failure.seed.replace(':', '-')}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(failure)))
    path.with_suffix(".txt").write_text(story + "\n")
    return path


def read(path: Path) -> Plan:
    """The plan of a failure, or a plan alone; raises `ValueError`."""
    text = path.read_bytes()
    try:
        return msgspec.json.decode(text, type=Failure).plan
    except msgspec.ValidationError:
        return decode(text)


def command_of(number: int) -> str:
    return f"splab explore --seed {seed_text(number)}"


def _untold(journal: Sequence[Entry]) -> Iterator[Entry]:
    """Without the looks of the judge, and commits."""
    judging = False
    for entry in without_noise(journal):
        _, who, what, _ = entry
        judging = judging or who == "judge"
        if what != "commit" and not (judging and who == MAIN):
            yield entry


def _told(who: str) -> bool:
    return who.startswith(_STORY)
