"""How many points each operation has at least: a fault that finds fewer places to strike proves less.

Points may grow; then `baseline.json` is raised by hand in the same change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

BASELINE = Path(__file__).with_name("baseline.json")


def load() -> dict[str, int]:
    """Points by operation."""
    points: dict[str, int] = json.loads(BASELINE.read_text())
    return points


def fallen(points: Mapping[str, int]) -> list[str]:
    """A line for each of these operations that has fewer points than its baseline, or none."""
    known = load()
    return [
        f"{operation}: {found} points, its baseline in {BASELINE.name} is {known.get(operation, 'missing')}"
        for operation, found in points.items()
        if found < known.get(operation, found + 1)
    ]
