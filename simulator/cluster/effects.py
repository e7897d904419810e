"""What a change asks of the blocks, as values, and what became of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from simulator.ports import Links


@dataclass(frozen=True, slots=True)
class Create:
    key: int
    size: int


@dataclass(frozen=True, slots=True)
class Clone:
    source: int
    key: int
    size: int


@dataclass(frozen=True, slots=True)
class CloneGroup:
    """Contents of all sources at one point in time."""

    clones: tuple[Clone, ...]


@dataclass(frozen=True, slots=True)
class Resize:
    key: int
    size: int
    was: int


@dataclass(frozen=True, slots=True)
class Delete:
    key: int


@dataclass(frozen=True, slots=True)
class Attach:
    key: int
    links: Links
    read_only: bool
    was: tuple[Links, bool] | None = None
    """What the client had before, which an undo brings back."""


@dataclass(frozen=True, slots=True)
class Detach:
    key: int
    client: int
    force: bool
    name: str
    """As the error text shows it."""
    was: tuple[Links, bool]


@dataclass(frozen=True, slots=True)
class Limit:
    """Of every device of the object: IOPS and bytes a second, 0 for unlimited."""

    key: int
    iops: int
    bytes_per_second: int
    was: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Contents of an object of another cluster."""

    key: int
    size: int
    cluster: str
    global_id: str
    base: int = 0
    """An object here that it differs little from, such as its parent's copy; 0 for none."""


Effect = Create | Clone | CloneGroup | Fetch | Resize | Delete | Attach | Detach | Limit


class Cause(enum.Enum):
    BUSY = "busy"
    SPACE = "space"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Failure:
    """The effect that failed; those before it have been undone."""

    effect: Effect
    cause: Cause
    text: str
