"""Which scenarios exist: modules of this package register functions, `load` imports them all."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from harness.observers import World
from scenarios.table import BY_ID, RowId

Scenario = Callable[[World], None]

_cases: dict[str, Case] = {}


@dataclass(frozen=True, slots=True)
class Case:
    """One scenario: a function over the observers, for one row of the table."""

    id: str
    """`ROW.name`, for example `4.hot`; what `splab run` takes to run this one alone."""
    row: RowId
    title: str
    run: Scenario


def scenario(row: RowId, name: str, title: str) -> Callable[[Scenario], Scenario]:
    """Register the decorated function as case `name` of `row`; a name that is taken is an error."""
    if row not in BY_ID:
        raise ValueError(f"scenario {name}: the action table has no row {row}")

    def register(function: Scenario) -> Scenario:
        case = Case(f"{row}.{name}", row, title, function)
        if case.id in _cases:
            raise ValueError(f"scenario {case.id} is registered twice")
        _cases[case.id] = case
        return function

    return register


def load() -> tuple[Case, ...]:
    """Every case, in the order of the table and of the modules' text."""
    import scenarios

    for module in sorted(pkgutil.iter_modules(scenarios.__path__), key=lambda info: info.name):
        importlib.import_module(f"scenarios.{module.name}")
    order = {row: index for index, row in enumerate(BY_ID)}
    return tuple(sorted(_cases.values(), key=lambda case: order[case.row]))
