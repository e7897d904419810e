"""Runs cases of the fault matrix of the tree that it is started in, for `tests/run_mutants.py`.

`python judge.py BECAUSE WORD ...` prints a JSON object: `tried` (number of cases), `broken` (what fails without a fault
or ""), and `not_held` (case, point and why of each case that did not hold). It ends at the first case that did not hold
for a reason in which the regular expression BECAUSE is found; an empty one is never found.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import harness
from harness.faults import matrix
from harness.faults.matrix import Case

find = functools.cache(matrix.find)


def cases(word: str) -> Iterator[Case]:
    """Those of an operation, of one kind of fault at it (`4.hot:answer-lost`), or one (`4.hot:answer-lost@2`).

    A kind is better than one case: a message more or less, and `@2` is another point.
    """
    operation, colon, fault = word.partition(":")
    if "@" in fault:
        yield from matrix.chosen([word])[1]
        return
    found = find(operation)
    assert not colon or fault in {case.fault.kind.name for case in found.cases}, f"{word}: no such fault fits there"
    yield from (case for case in found.cases if not colon or case.fault.kind.name == fault)


def judge(because: str, words: Sequence[str]) -> dict[str, object]:
    result: dict[str, object] = {"tried": 0, "broken": "", "not_held": []}
    for operation in dict.fromkeys(word.partition(":")[0] for word in words):
        if why := find(operation).why:
            return {**result, "broken": f"{operation}: {why}"}
    tried: list[Case] = []
    not_held: list[dict[str, str]] = []
    for case in dict.fromkeys(case for word in words for case in cases(word)):
        judged = matrix.judge(case)
        tried.append(case)
        if judged.held:
            continue
        not_held.append({"case": judged.case, "point": judged.point, "why": judged.why})
        if because and re.search(because, judged.why):
            break
    return {**result, "tried": len(tried), "not_held": not_held}


def main() -> None:
    tree = Path.cwd()
    if not Path(harness.__file__).is_relative_to(tree):
        sys.exit(f"{harness.__file__} was imported, not the harness of {tree}")
    matrix.quietly()
    print(json.dumps(judge(sys.argv[1], sys.argv[2:])))


if __name__ == "__main__":
    main()
