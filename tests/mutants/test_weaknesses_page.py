"""`harness/driver/WEAKNESSES.md` has a verdict on each weakness, and names the patches that there are; where one
changes nothing of the plugin it says which file of the stand-in it changes."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "harness" / "driver" / "WEAKNESSES.md"
PATCHES = ROOT / "tests" / "mutants"
ABSENT, KEPT, IN_PART = "absent", "absent; kept by the stand-in", "absent in part"
ROW = re.compile(rf"\| (\d+) \| (.+) \| ({ABSENT}|{KEPT}|{IN_PART}|not applicable|inherited) \| (.+) \|")
PLUGIN = re.compile(r"harness/(?:agent|driver|spi|storpool)/")
STAND_IN = re.compile(r"harness/cloudstack/(.+)")


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


def changed(name: str) -> list[str]:
    """The files that a patch changes."""
    return re.findall(r"(?m)^\+\+\+ b/(.+)$", (PATCHES / f"{name}.patch").read_text())


def of_the_plugin(name: str) -> bool:
    return any(PLUGIN.match(file) for file in changed(name))


def test_each_of_the_70_weaknesses_has_a_verdict() -> None:
    assert sorted(rows()) == list(range(1, 71))


def test_what_is_absent_is_shown_by_a_patch_that_says_so() -> None:
    there = patches()
    for number, (verdict, text) in rows().items():
        named = [name for name in re.findall(r"`([a-z-]+)`", text) if name in there]
        assert verdict.startswith(ABSENT) == bool(named), f"{number}: {verdict}, {text}"
        for name in named:
            assert number in there[name], f"{name}.patch says it is about {there[name]}, not {number}"
        if named:
            assert (verdict == KEPT) != any(map(of_the_plugin, named)), f"{number}: {verdict}, not what {named} change"


def test_a_patch_of_the_stand_in_alone_is_named_with_the_file_that_it_changes() -> None:
    text = PAGE.read_text()
    for name in patches():
        files = [match[1] for file in changed(name) if (match := STAND_IN.fullmatch(file))]
        told = set(re.findall(rf"`{name}` \(stand-in: (.+?)\)", text))
        wanted = not of_the_plugin(name)
        assert bool(told) == wanted and told <= set(files), f"{name} changes {changed(name)}, the page names {told}"


def test_every_patch_is_on_the_page() -> None:
    text = PAGE.read_text()
    shown = {number: text for number, (_, text) in rows().items()}
    for name, numbers in patches().items():
        assert f"`{name}`" in text, f"{name} is not on {PAGE}"
        for number in numbers:
            assert f"`{name}`" in shown[number], f"{name} is not in the row of weakness {number}"
