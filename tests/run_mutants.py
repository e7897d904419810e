"""Patches that bring a weakness back: each must be noticed. `python tests/run_mutants.py [NAME ...]`.

A mutant is a file NAME.patch in tests/mutants: lines `key: value`, then a unified diff.

    title     what the code does wrong with it
    weakness  number in spec/cloudstack-plugin.md section 10, or the rule that it breaks
    kills     where it shows: operations and faults of `splab faults` (4.hot, 4.hot:answer-lost, 4.hot:answer-lost@2),
              so many first seeds of `splab explore` (explore:200), scenarios in memory (run:15.shrink) or tests
              (pytest:tests/FILE.py::NAME)
    because   regular expression that is found in why a case did not hold

Each is applied to a copy of this tree, and is killed when one of its cases does not hold for that reason, so a patch
that only crashes is none. Without patches every one of these cases must hold. Exit 1 unless all are killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MUTANTS = ROOT / "tests" / "mutants"
JUDGE = "tests/mutants/judge.py"
PACKAGES = ("harness", "simulator", "scenarios", "lab")
PROCESSES = 2
LIMIT = 180.0
"""Seconds for all cases of one mutant. A patch may make a run that never ends."""
KEYS = ("title", "weakness", "kills", "because")
CAUSE = 150
"""Characters of a cause in the table."""


@dataclass(frozen=True)
class Mutant:
    name: str
    patch: Path
    title: str
    weakness: str
    kills: tuple[str, ...]
    because: str


@dataclass(frozen=True)
class Verdict:
    mutant: Mutant
    case: str = ""
    """That killed it."""
    text: str = ""
    """Why that case did not hold, or why the mutant counts as not killed."""

    @property
    def killed(self) -> bool:
        return bool(self.case)


class Wrong(Exception):
    """Something is wrong with a patch or with the tree; the text says what to do."""


def read(patch: Path) -> Mutant:
    head = re.split(r"^(?:diff --git|---) ", patch.read_text(), maxsplit=1, flags=re.MULTILINE)
    if len(head) != 2:
        raise Wrong(f"{patch}: there is no diff in it")
    values: dict[str, str] = {}
    for line in filter(None, head[0].splitlines()):
        key, colon, value = line.partition(":")
        if not colon or key not in KEYS or key in values or not value.strip():
            raise Wrong(f"{patch}: {line!r}: before the diff come `key: value`, each once, of {', '.join(KEYS)}")
        values[key] = value.strip()
    if missing := [key for key in KEYS if key not in values]:
        raise Wrong(f"{patch}: {', '.join(missing)} missing before the diff")
    if re.search(values["because"], ""):
        raise Wrong(f"{patch}: because: {values['because']!r} is found in every text, so a crash would count")
    return Mutant(
        name=patch.stem,
        patch=patch,
        title=values["title"],
        weakness=values["weakness"],
        kills=tuple(values["kills"].split()),
        because=values["because"],
    )


def copy_of_tree(to: Path) -> None:
    for name in PACKAGES:
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", to / "tests", ignore=shutil.ignore_patterns("__pycache__", "*.patch"))
    shutil.copy2(ROOT / "pyproject.toml", to / "pyproject.toml")


async def run_cases(tree: Path, because: str, words: Sequence[str]) -> dict[str, Any]:
    """What `judge.py` prints, run with that tree's code. Raises `Wrong` when it did not end well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        JUDGE,
        because,
        *words,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT):
            out, err = await process.communicate()
    except TimeoutError:
        raise Wrong(f"its cases did not end within {LIMIT:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise Wrong((err.decode(errors="replace").strip().splitlines() or [f"exit {process.returncode}"])[-1])
    result: dict[str, Any] = json.loads(out)
    return result


def apply(patch: Path, tree: Path) -> None:
    # Within a repository git would take the paths to be relative to that.
    outside = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    done = subprocess.run(
        ["git", "apply", str(patch)], cwd=tree, env=outside, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Wrong(
            f"it does not apply any more ({' '.join(done.stderr.split())}); make its change by hand in the code as it "
            "is now and put the new diff under its header, or remove it with the code that it is about"
        )


async def judge(mutant: Mutant, plain: Path, turn: asyncio.Semaphore) -> Verdict:
    async with turn:
        tree = plain.with_name(mutant.name)
        # With its bytecode, which is right for all files but those that the patch makes newer.
        shutil.copytree(plain, tree)
        try:
            apply(mutant.patch, tree)
            result = await run_cases(tree, mutant.because, mutant.kills)
        except Wrong as error:
            return Verdict(mutant, text=str(error))
        shutil.rmtree(tree)
        return verdict(mutant, result)


def verdict(mutant: Mutant, result: dict[str, Any]) -> Verdict:
    for found in result["not_held"]:
        cause = re.search(mutant.because, found["why"])
        if cause is not None:
            return Verdict(mutant, found["case"], found["why"][cause.start() :])
    if result["not_held"]:
        found = result["not_held"][0]
        return Verdict(mutant, text=f"{found['case']} does not hold, but for another reason: {found['why']}")
    return Verdict(mutant, text=f"survived: {result['tried']} cases hold ({' '.join(mutant.kills)})")


async def judge_all(mutants: Sequence[Mutant], directory: Path) -> list[Verdict]:
    plain = directory / "plain"
    copy_of_tree(plain)
    words = dict.fromkeys(word for mutant in mutants for word in mutant.kills)
    result = await run_cases(plain, "", tuple(words))
    broken = [f"{one['case']}: {one['why']}" for one in result["not_held"]]
    if broken:
        raise Wrong(f"without any patch {len(broken)} cases do not hold; mend that first:\n" + "\n".join(broken))
    print(f"without a patch {result['tried']} cases hold", flush=True)
    turn = asyncio.Semaphore(PROCESSES)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(judge(mutant, plain, turn)) for mutant in mutants]
    return [task.result() for task in tasks]


async def run(mutants: Sequence[Mutant]) -> list[Verdict]:
    me = asyncio.current_task()
    assert me is not None
    # As an interrupt does: what is under way ends, and the temporary directory goes.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    with tempfile.TemporaryDirectory(prefix="splab-mutants-") as directory:
        return await judge_all(mutants, Path(directory))


def show(verdicts: Sequence[Verdict]) -> None:
    rows = [("mutant", "weakness", "killed by", "first cause")]
    for one in verdicts:
        rows.append((one.mutant.name, one.mutant.weakness, one.case or "NOT KILLED", " ".join(one.text.split())))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for *row, cause in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        print("  ".join([*cells, cause if cells[2].startswith("NOT") else cause[:CAUSE]]).rstrip())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help="mutants; all by default")
    parser.add_argument("--patches", type=Path, default=MUTANTS, help="directory of the patches")
    options = parser.parse_args()
    began = time.monotonic()
    try:
        mutants = [read(patch) for patch in sorted(options.patches.glob("*.patch"))]
        if unknown := set(options.name) - {mutant.name for mutant in mutants}:
            raise Wrong(f"there is no mutant {', '.join(sorted(unknown))} in {options.patches}")
        chosen = [mutant for mutant in mutants if not options.name or mutant.name in options.name]
        if not chosen:
            raise Wrong(f"there is no NAME.patch in {options.patches}")
        verdicts = asyncio.run(run(chosen))
    except Wrong as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted", file=sys.stderr)
        return 130
    show(verdicts)
    killed = sum(one.killed for one in verdicts)
    print(f"{time.monotonic() - began:.0f} s")
    print(f"{killed} passed, {len(verdicts) - killed} failed")
    return 0 if killed == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
