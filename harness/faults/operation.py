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
    """Of a template or ISO."""
    offering_id: str = ""
    """Of the disk or compute offering that the request names."""
    storpool_template: str = ""
    """Of the pool that the request is about."""
    global_id: str = ""
    """Of the StorPool object that the request is to remove."""
    name: str = ""
    """Of the one thing that the request makes, or of the pool that it is about."""
    names: tuple[str, ...] = ()
    """Of the VMs that the request makes."""
    url: str = ""
    """That the request was told to download from."""
    written: str = ""
    """What the request had come to when something was written to its disks at once; that must survive every copy of a
    StorPool request that comes late. Empty when nothing was written."""
    wrong: str = ""
    """What was seen meanwhile that must never be, whatever the request comes to."""
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
    """The VM as it is now, which must run, with its guest up; started again when a fault ended that."""
    now = looks.reread(world, vm)
    if now["state"] == "Stopped" and subject.guests_ended:
        now = steps.start(world, now)
    assert now["state"] == "Running", f"VM {vm['id']} is {now['state']}"
    world.guest(str(vm["id"])).boot_id()
    return now


WAIT_SECONDS = "1800"


def shorten(world: World, *waits: str) -> None:
    """Settings that are hours in CloudStack: what a late copy of a request writes is looked for when they are over."""
    for name in waits:
        world.cloud.call("updateConfiguration", name=name, value=WAIT_SECONDS)
