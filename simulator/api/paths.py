"""Where calls are found, and what a path was understood as."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.api.operation import Operation

BASE = "/ctrl/1.0/"
BRIDGE_BASE = "/_bridge/"
"""Of what clusters ask each other."""


@dataclass(frozen=True, slots=True)
class Route:
    operation: Operation
    args: tuple[str, ...]
    multicluster: bool = False
    """The answer is in the form of the MultiCluster calls."""
    all_clusters: bool = False
    alone: bool = False
    """Another cluster asks: this one answers for itself."""
