"""Runs cases of the fault matrix and seeds of exploration in the tree that it is started in, for `run_mutants.py`.

`python judge.py BECAUSE WORD ...` prints a JSON object: `tried` (number of cases) and `not_held` (case and why of each
that did not hold). An operation that does not even work without a fault is a case of its own, and then the only one. It
ends at the first case that did not hold for a reason in which the regular expression BECAUSE is found; an empty one is
never found.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import harness
from harness.explore.drawing import draw, seed_text
from harness.explore.run import run
from harness.faults import matrix
from harness.faults.matrix import Case

EXPLORE = "explore"
find = functools.cache(matrix.find)


def cases(word: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """What each is called, and what tells why it did not hold, or "".

    A word is an operation, one kind of fault at it (`4.hot:answer-lost`), one case (`4.hot:answer-lost@2`) or a number
    of seeds (`explore:200`). A kind is better than one case: a message more or less, and `@2` is another point.
    """
    operation, colon, fault = word.partition(":")
    if operation == EXPLORE:
        for number in range(int(fault)):
            yield seed_text(number), functools.partial(explored, number)
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


def judge(because: str, words: Sequence[str]) -> dict[str, object]:
    operations = dict.fromkeys(word.partition(":")[0] for word in words if not word.startswith(EXPLORE))
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
