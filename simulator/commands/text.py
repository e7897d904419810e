"""Answers as text for people; programs take `-j`. Sizes are shown in the largest unit that divides them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

_POLICY = ("size", "replication", "placeHead", "placeAll", "placeTail", "iops", "bw", "parentName", "templateName")
_STATUS = ("name", "snapshot", "status", "migrating", "decreasedRedundancy", "downDrives")
_COLUMNS = {
    "VolumesList": ("name", *_POLICY, "tags"),
    "VolumesSpace": ("name", "size", "storedSize", "spaceUsed"),
    "VolumesGetStatus": (*_STATUS, "storedSize", "onDiskSize"),
    "VolumesGetStatusQuick": _STATUS,
    "SnapshotsList": ("name", *_POLICY, "onVolume", "bound", "deleted", "targetDeleteDate", "tags"),
    "SnapshotsSpace": ("name", "onVolume", "storedSize", "spaceUsed"),
    "AttachmentsList": ("client", "volume", "globalId", "snapshot", "rights", "pos"),
    "VolumeTemplatesList": ("name", *_POLICY[:-1]),
    "VolumeTemplatesStatus": (
        *("name", "placeHead", "placeAll", "placeTail", "replication", "volumesCount", "snapshotsCount"),
        *("size", "storedSize", "availablePlaceAll", "capacityPlaceAll"),
    ),
    "LocationsList": ("id", "name"),
    "ClustersList": ("id", "location", "name"),
}
_BYTES = frozenset(
    ("size", "storedSize", "spaceUsed", "onDiskSize", "totalSize", "availablePlaceAll", "capacityPlaceAll")
)


def render(call: str, data: Any) -> str:
    """`data` of a call's envelope, or `OK` for a change."""
    columns = _COLUMNS.get(call)
    if columns is not None:
        return table(columns, _entries(data))
    if call == "ServicesList":
        kinds = ("mgmt", "servers", "clients", "bridges", "iscsiTargets")
        services = [{"kind": kind, **service} for kind in kinds for service in data.get(kind, {}).values()]
        cluster = f"cluster {data.get('clusterStatus')}\n"
        return cluster + table(("kind", "id", "nodeId", "version", "status"), services)
    if isinstance(data, dict) and "ok" not in data:
        return "\n".join(f"{name}: {_shown(name, value)}" for name, value in data.items())
    return "OK"


def table(columns: Sequence[str], entries: Iterable[dict[str, Any]]) -> str:
    rows = [list(columns), *([_shown(name, entry.get(name)) for name in columns] for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join((rule, lines[0], rule, *lines[1:], rule))


def _entries(data: Any) -> list[dict[str, Any]]:
    """Lists come bare, as the only member of an object, or as an object by name."""
    if isinstance(data, list):
        return data
    members = list(data.values())
    if len(members) == 1 and isinstance(members[0], list):
        return members[0]
    return [{"name": name, **entry} for name, entry in data.items()]


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and name in _BYTES:
        return size(value)
    if isinstance(value, dict):
        return " ".join(f"{key}={inner}" for key, inner in value.items())
    if isinstance(value, list):
        return " ".join(json.dumps(inner) if isinstance(inner, dict) else str(inner) for inner in value)
    return str(value)


def size(amount: int) -> str:
    """As the command line takes it: 10G, 1536M, 512."""
    for power, unit in reversed(list(enumerate("KMGTP", 1))):
        if amount and amount % (1 << 10 * power) == 0:
            return f"{amount >> 10 * power}{unit}"
    return str(amount)
