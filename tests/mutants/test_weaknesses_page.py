"""`harness/driver/WEAKNESSES.md` has a verdict on each weakness, and names the patches that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "harness" / "driver" / "WEAKNESSES.md"
PATCHES = ROOT / "tests" / "mutants"
ROW = re.compile(r"\| (\d+) \| (.+) \| (absent|not applicable|inherited) \| (.+) \|")


def rows() -> dict[int, tuple[str, str]]:
    """Verdict and last column by number."""
    found = [ROW.fullmatch(line) for line in PAGE.read_text().splitlines()]
    return {int(row[1]): (row[3], row[4]) for row in found if row is not None}


def patches() -> dict[str, set[int]]:
    """The weaknesses that each patch brings back."""
    return {
        path.stem: {int(word) for word in re.findall(r"\d+", re.findall("(?m)^weakness: (.*)$", path.read_text())[0])}
        for path in PATCHES.glob("*.patch")
    }


def test_each_of_the_70_weaknesses_has_a_verdict() -> None:
    assert sorted(rows()) == list(range(1, 71))


def test_what_is_absent_is_shown_by_a_patch_that_says_so() -> None:
    there = patches()
    for number, (verdict, text) in rows().items():
        named = [name for name in re.findall(r"`([a-z-]+)`", text) if name in there]
        assert (verdict == "absent") == bool(named), f"{number}: {verdict}, {text}"
        for name in named:
            assert number in there[name], f"{name}.patch says it is about {there[name]}, not {number}"


def test_every_patch_is_on_the_page() -> None:
    text = PAGE.read_text()
    shown = {number: text for number, (_, text) in rows().items()}
    for name, numbers in patches().items():
        assert f"`{name}`" in text, f"{name} is not on {PAGE}"
        for number in numbers:
            assert f"`{name}`" in shown[number], f"{name} is not in the row of weakness {number}"
