"""What an operation of the matrix is, and what one case of it is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.observers import CloudApiError, Json, World
from scenarios import looks, steps
from scenarios.table import RowId

REFUSALS = (CloudApiError, ConnectionError)
"""How a request ends that CloudStack did not call a success."""


@dataclass(slots=True)
class Subject:
    """What one case is about. `vm` and `volume` are as CloudStack showed them before the request."""

    vm: Json = field(default_factory=dict)
    volume: Json = field(default_factory=dict)
    snapshot: Json = field(default_factory=dict)
    owner: Json = field(default_factory=dict)
    """The VM that the request takes the volume from."""
    template_id: str = ""
    name: str = ""
    """Of the template that the request registers."""
    names: tuple[str, ...] = ()
    """Of the VMs that the request makes."""
    guests_ended: bool = False
    """Whether a fault may have powered VMs off."""


@dataclass(frozen=True, slots=True)
class Operation:
    """`done` and `undone` raise `AssertionError` with what was seen."""

    id: str
    """`ROW.name`."""
    title: str
    prepare: Callable[[World], Subject]
    request: Callable[[World, Subject], None]
    """Raises `CloudApiError`, or `ConnectionError` when no answer came."""
    done: Callable[[World, Subject], None]
    undone: Callable[[World, Subject], None]
    site: str = ""
    """As `scenarios.registry.Case.site`."""
    without: frozenset[str] = frozenset()
    """Kinds of faults that do not strike it, because theirs would not be the only fault."""

    @property
    def row(self) -> RowId:
        number = self.id.partition(".")[0]
        return int(number) if number.isdigit() else number


def running(world: World, subject: Subject, vm: Json) -> Json:
    """The VM as it is now, which must run; started again when a fault ended its guest."""
    now = looks.reread(world, vm)
    if now["state"] == "Stopped" and subject.guests_ended:
        return steps.start(world, now)
    assert now["state"] == "Running", f"VM {vm['id']} is {now['state']}"
    return now
