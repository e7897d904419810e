"""What a handler is given and what it gives back: a call in, data or a plan out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from simulator.api.errors import Refused
from simulator.api.schema.answers import Ok
from simulator.cluster.effects import Delete, Effect
from simulator.cluster.records import Event
from simulator.cluster.state import State
from simulator.settings import Settings


@dataclass(slots=True)
class Call:
    """A decoded request, with everything that the handler may know of the world outside the state."""

    state: State
    settings: Settings
    now: float
    """Unix seconds."""
    args: tuple[str, ...] = ()
    """From the path."""
    multicluster: bool = False
    capacity: tuple[int, int] = (0, 0)
    """(all, free) bytes of the pool; only for operations that ask for it."""
    stored: Mapping[int, int] = field(default_factory=dict)
    """Bytes held by each object; only for operations that ask for it."""
    under_way: Mapping[str, int] = field(default_factory=dict)
    """Numbers of the moves here that are not decided, by global id of what moves."""
    started: float = 0.0
    """Unix seconds at which the services started."""


@dataclass(slots=True)
class Wait:
    """The answer is held back until these clients have the change."""

    clients: tuple[int, ...]
    deadline: float | None
    """Unix seconds; None waits for ever."""


@dataclass(slots=True)
class Hold:
    """A query that cannot be answered before these clients have the current configuration; it is asked again then."""

    clients: tuple[int, ...]


@dataclass(slots=True)
class Plan:
    """A change: effects first (undone if one fails), then events, then the answer, then what can be done late."""

    answer: Ok
    events: list[Event] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    touches: tuple[int | str, ...] = ()
    """Objects and names that no other change may touch at the same time. New objects need no mention: until the commit
    nobody knows them, and a parked call gets another serial in the end."""
    uses: tuple[int | str, ...] = ()
    """What others may use at the same time but nobody may touch: parents to clone from, templates, groups."""
    late: list[Delete] = field(default_factory=list)
    """Tried again until done; needs no record, for start-up removes what the journal does not know."""
    forward: bool = False
    wait: Wait | None = None
    moves: bool = False
    """It is a step of a move to another cluster, and may touch what is leaving."""
    serials: int = 0
    """How many new serials the plan uses, from `State.next_serial` on."""
    failed: Callable[[Refused], None] | None = None
    """Told that the effects failed, when no call asked for the change."""


Handler = Callable[..., object]
"""Given the call, and its decoded body when the operation has one: a `Plan`, a `Hold` or the data of the answer.
Raises `Refused`. Each operation has a struct of its own, so the arguments are not spelled out here."""
