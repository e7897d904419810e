"""Which scenarios exist: modules of this package register functions, `load` imports them all."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from harness.observers import World
from scenarios.table import BY_ID, RowId

Scenario = Callable[[World], None]

SITES = ("", "clusters", "zones")

_cases: dict[str, Case] = {}


@dataclass(frozen=True, slots=True)
class Case:
    """One scenario: a function over the observers, for one row of the table."""

    id: str
    """`ROW.name`, for example `4.hot`; what `splab run` takes to run this one alone."""
    row: RowId
    title: str
    run: Scenario
    site: str = ""
    """What the case needs of a world beside what all have: `clusters` are two StorPool clusters below one zone, each
    with a CloudStack cluster and a host; `zones` are two zones, each with a StorPool cluster of another location."""


def scenario(row: RowId, name: str, title: str, site: str = "") -> Callable[[Scenario], Scenario]:
    """Register the decorated function as case `name` of `row`; a name that is taken is an error."""
    if site not in SITES:
        raise ValueError(f"scenario {name}: there is no site {site!r}, only {', '.join(SITES)}")
    if row not in BY_ID:
        raise ValueError(f"scenario {name}: the action table has no row {row}")

    def register(function: Scenario) -> Scenario:
        case = Case(f"{row}.{name}", row, title, function, site)
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
