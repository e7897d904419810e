"""Runs cases of the fault matrix of the tree that it is started in, for `tests/run_mutants.py`.

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
    operations = dict.fromkeys(word.partition(":")[0] for word in words)
    not_held = [{"case": f"{name} without a fault", "why": why} for name in operations if (why := find(name).why)]
    if not_held:
        return {"tried": len(operations), "not_held": not_held}
    tried = 0
    for case in dict.fromkeys(case for word in words for case in cases(word)):
        judged = matrix.judge(case)
        tried += 1
        if judged.held:
            continue
        not_held.append({"case": judged.case, "why": judged.why})
        if because and re.search(because, judged.why):
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
