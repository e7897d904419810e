"""Runs cases of the fault matrix, seeds of exploration, scenarios and tests in the tree that it is started in, for
`run_mutants.py`.

`python judge.py BECAUSE WORD ...` prints a JSON object: `tried` (number of cases) and `not_held` (case and why of each
that did not hold). An operation that does not even work without a fault is a case of its own, and then the only one. It
ends at the first case that did not hold for a reason in which the regular expression BECAUSE is found; an empty one is
never found.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import harness
from harness.explore.drawing import draw, seed_text
from harness.explore.run import run
from harness.faults import matrix
from harness.faults.matrix import Case
from harness.recording import Recorder
from harness.report.stream import Event
from harness.run import Verdict
from harness.run import judge as judge_scenario
from harness.runtime.errors import SimulationError
from harness.worlds.memory.world import MemoryWorld
from scenarios.registry import load

EXPLORE, SCENARIO, TEST = "explore", "run", "pytest"
SEED = 1
"""Of scenarios: they must hold for every one."""
find = functools.cache(matrix.find)


def cases(word: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """What each is called, and what tells why it did not hold, or "".

    A word is an operation, one kind of fault at it (`4.hot:answer-lost`), one case (`4.hot:answer-lost@2`), a number
    of seeds (`explore:200`), a scenario (`run:15.shrink`) or a test (`pytest:tests/FILE.py::NAME`). A kind is better
    than one case: a message more or less, and `@2` is another point.
    """
    operation, colon, fault = word.partition(":")
    if operation == EXPLORE:
        for number in range(int(fault)):
            yield seed_text(number), functools.partial(explored, number)
        return
    if operation == SCENARIO:
        yield word, functools.partial(played, fault)
        return
    if operation == TEST:
        yield word, functools.partial(tested, fault)
        return
    if "@" in fault:
        chosen: Sequence[Case] = matrix.chosen([word])[1]
    else:
        chosen = [case for case in find(operation).cases if not colon or case.fault.kind.name == fault]
    assert chosen, f"{word}: no such fault fits there"
    for case in chosen:
        yield str(case), functools.partial(struck, case)


def struck(case: Case) -> str:
    return matrix.judge(case).why


def explored(number: int) -> str:
    return str(run(draw(number)).violation or "")


def played(case_id: str) -> str:
    case = next((case for case in load() if case.id == case_id), None)
    assert case is not None, f"{case_id}: there is no such scenario"
    world, verdict = MemoryWorld(SEED, site=case.site), Verdict()
    recorder = Recorder("memory", case.id, _forget, lambda: 0.0)
    try:
        world.run(lambda inner: judge_scenario(case, inner, recorder, verdict))
    except SimulationError as error:
        return f"{type(error).__name__}: {error}"
    if verdict.error is not None:
        return f"{type(verdict.error).__name__}: {verdict.error}"
    return "; ".join([*verdict.violated, *verdict.left]) or ("" if verdict.finished else "did not finish")


def _forget(event: Event) -> None:
    del event


class Failures:
    """What pytest says of tests that failed."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.texts.append(report.longreprtext if crash is None else str(crash.message))


def tested(node: str) -> str:
    failures = Failures()
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main(["-q", "-p", "no:cacheprovider", "--import-mode=importlib", node], plugins=[failures])
    if failures.texts:
        return "\n".join(failures.texts)
    return "" if code == pytest.ExitCode.OK else f"pytest ended with {code!r}"


def judge(because: str, words: Sequence[str]) -> dict[str, object]:
    operations = dict.fromkeys(word.partition(":")[0] for word in words)
    for other in (EXPLORE, SCENARIO, TEST):
        operations.pop(other, None)
    not_held = [{"case": f"{name} without a fault", "why": why} for name in operations if (why := find(name).why)]
    if not_held:
        return {"tried": len(operations), "not_held": not_held}
    tried = 0
    for name, why_not in dict(case for word in words for case in cases(word)).items():
        why = why_not()
        tried += 1
        if not why:
            continue
        not_held.append({"case": name, "why": why})
        if because and re.search(because, why):
            break
    return {"tried": tried, "not_held": not_held}


def main() -> None:
    tree = Path.cwd()
    if not Path(harness.__file__).is_relative_to(tree):
        sys.exit(f"{harness.__file__} was imported, not the harness of {tree}")
    matrix.quietly()
    print(json.dumps(judge(sys.argv[1], sys.argv[2:])))


if __name__ == "__main__":
    main()
