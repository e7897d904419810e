"""The scenarios that exist, and what a user may choose of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import scenarios
from harness.observers import World
from harness.run import select
from scenarios.registry import load, scenario
from scenarios.table import ROWS


def test_the_table_has_23_rows_and_11_extras() -> None:
    assert [row.id for row in ROWS[:23]] == list(range(1, 24))
    assert len(ROWS) == 34 and len({row.id for row in ROWS}) == 34


def test_every_row_that_is_built_has_scenarios_with_names_of_their_own() -> None:
    cases = load()
    assert {case.row for case in cases} == {row.id for row in ROWS}
    assert len({case.id for case in cases}) == len(cases)
    assert len({(case.row, case.title) for case in cases}) == len(cases)
    assert [case.row for case in cases] == sorted((case.row for case in cases), key=[r.id for r in ROWS].index)


def test_scenarios_import_the_observers_each_other_and_modules_without_clock_chance_or_machine() -> None:
    computing = {"collections", "contextlib", "dataclasses", "functools", "hashlib", "itertools", "json", "re"}
    allowed = computing | {"__future__", "importlib", "pkgutil", "scenarios"}
    seen: set[str] = set()
    for path in Path(scenarios.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                seen.add(node.module or "")
            elif isinstance(node, ast.Import):
                seen |= {alias.name for alias in node.names}
    assert {"harness.observers", "scenarios.registry"} <= seen
    assert not {name for name in seen if name != "harness.observers" and name.split(".")[0] not in allowed}


def nothing(world: World) -> None:
    del world


def test_a_name_that_is_taken_or_a_row_that_is_not_there_is_refused() -> None:
    load()
    with pytest.raises(ValueError, match="twice"):
        scenario(4, "hot", "again")(nothing)
    with pytest.raises(ValueError, match="no row 24"):
        scenario(24, "new", "of no row")


def test_rows_and_single_cases_can_be_chosen() -> None:
    cases = load()
    everything = select(cases, [])
    assert (len(everything.rows), everything.cases, everything.unbuilt) == (34, cases, ())
    chosen = select(cases, ["4.hot", "8", "pool"])
    assert chosen.rows == (4, 8, "pool")
    assert chosen.unbuilt == ()
    assert chosen.by_row()["4"] == ["4.hot"]
    assert len(chosen.by_row()["8"]) == sum(case.row == 8 for case in cases)


@pytest.mark.parametrize("word", ["24", "0", "no-such-extra", "4.no-such-case", ""])
def test_an_unknown_row_is_refused(word: str) -> None:
    with pytest.raises(KeyError):
        select(load(), [word])
