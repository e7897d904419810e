"""LIMITS.md names every call that is not served and every choice where StorPool's own is not known."""

from __future__ import annotations

import re
from pathlib import Path

from simulator.api.operations import OPERATIONS
from simulator.settings import Settings

SIMULATOR = Path(__file__).parents[2] / "simulator"
PAGE = (SIMULATOR / "LIMITS.md").read_text()


def test_the_calls_that_answer_not_implemented_are_exactly_those_listed() -> None:
    section = PAGE.partition("## Calls that answer `notImplemented`")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(\w+)`", section)) == {found.call for found in OPERATIONS if not found.served}


def test_every_choice_is_listed_with_its_default() -> None:
    unknown = re.findall(r'^    (\w+): [^\n]*\n    """Not known', (SIMULATOR / "settings.py").read_text(), re.MULTILINE)
    assert len(unknown) > 6
    listed = re.findall(r"^\| `(\w+)` \| `(.*)` \|$", PAGE, re.MULTILINE)
    assert listed == [(name, str(getattr(Settings(), name))) for name in unknown]
