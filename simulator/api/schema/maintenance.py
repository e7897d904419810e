"""Bodies and answers of maintenance (spec storpool-api 5.6, 6.5). Durations are seconds."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from simulator.api.schema.requests import Body

NodeId = Annotated[int, Meta(ge=0, le=63)]
Duration = Annotated[int, Meta(ge=1, le=10 * 366 * 86400)]
Few = Annotated[int, Meta(ge=0, le=63)]


class MaintenanceSetDesc(Body, frozen=True, kw_only=True):
    nodeId: NodeId
    duration: Duration
    description: Annotated[str, Meta(max_length=1023)]
    minOkReplicas: Few | None = None
    maxReplicationDecrease: Few | None = None
    votingSafetyMargin: Few | None = None
    maxNodesInMaintenance: Few | None = None


class MaintenanceCompleteDesc(Body, frozen=True, kw_only=True):
    nodeId: NodeId


class MaintenanceNode(Struct, kw_only=True):
    nodeId: int
    started: int
    """Unix seconds."""
    duration: int
    description: str
    overrun: bool
    """Whether it lasts longer than was said."""
    remaining: int | UnsetType = UNSET


class MaintenanceNodes(Struct, kw_only=True):
    """MaintenanceNodesList."""

    nodes: list[MaintenanceNode]
