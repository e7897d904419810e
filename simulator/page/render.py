"""The page's HTML. Everything that is shown is escaped: names are what clients chose."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache

import jinja2

from simulator.api.errors import STATUS
from simulator.api.faults import CALLS, KINDS, Shown
from simulator.api.log import Line
from simulator.cluster.overview import Overview

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_DEEPEST = 12
"""Levels of the tree that are told apart by indentation."""


def render(
    overview: Overview,
    lines: Sequence[Line],
    *,
    backend: str | None,
    faults: Sequence[Shown] | None,
    form_token: str,
    given: Mapping[str, str],
    error: str,
) -> str:
    """`backend` is the kind of pool behind loop devices, None without devices; `faults` is None where there can be
    none. `given` is what a form held that was refused for `error`."""
    return _template().render(
        cluster=overview,
        lines=list(reversed(lines)),
        last=lines[-1].number if lines else 0,
        backend=backend,
        faults=faults,
        form_token=form_token,
        given=given,
        error=error,
        kinds=KINDS,
        calls=CALLS,
        errors=tuple(STATUS),
    )


def size(count: int) -> str:
    """Bytes, exact where a whole number of units says it, else with one decimal."""
    unit = 0
    shown: float = count
    while shown >= 1024 and unit < len(_UNITS) - 1:
        shown, unit = shown / 1024, unit + 1
    return f"{shown:.0f} {_UNITS[unit]}" if shown == int(shown) else f"{shown:.1f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (left, "s")]
    shown = [f"{count} {unit}" for count, unit in parts if count]
    return " ".join(shown[:2]) or "0 s"


def clock(seconds: float) -> str:
    """Unix seconds as a time of day in UTC."""
    return time.strftime("%H:%M:%S", time.gmtime(seconds))


def indent(depth: int) -> str:
    return "\u00a0\u00a0\u00a0\u00a0" * min(depth, _DEEPEST)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("simulator.page", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": size, "duration": duration, "clock": clock, "indent": indent}
    return environment.get_template("page.html.j2")
