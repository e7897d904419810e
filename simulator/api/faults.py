"""Faults that the HTTP layer makes calls suffer, so that clients can be tried against a cluster that misbehaves.

A fault strikes the calls that it names, a number of times or by chance. It is kept in memory only: a restart or a reset
forgets it. The service behind does not know of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from simulator.api import wire
from simulator.api.draws import Draws
from simulator.api.errors import STATUS, Refused, invalid, missing
from simulator.api.operations import OPERATIONS
from simulator.api.subject import Subject, subject
from simulator.api.token import matches
from simulator.ports import Reply, Request
from simulator.settings import Settings

Kind = Literal["refuse", "transient", "delay", "lose", "duplicate", "hang"]
KINDS: dict[Kind, str] = {
    "refuse": "not carried out: an error",
    "transient": "not carried out: an error that asks to try again",
    "delay": "carried out, and answered later",
    "lose": "carried out, and the connection is closed without an answer",
    "duplicate": "carried out a second time as soon as it is answered",
    "hang": "neither carried out nor answered until the fault is lifted",
}
"""What becomes of a call that is struck."""
CALLS = tuple(sorted({operation.call for operation in OPERATIONS}))
MOST = 64
"""Faults at a time."""
_TRANSIENT_ERROR = "unavailable"


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fault as it is asked for."""

    kind: Kind
    call: str
    """As in `Operation.call`: the fixed words of the path."""
    object: Annotated[str, Meta(min_length=1, max_length=1022)] | None = None
    """Only calls that name this object so, in their path or their body."""
    count: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """How often it strikes: once, unless there is a probability, with which it has no end of its own."""
    probability: Annotated[float, Meta(gt=0, le=1)] | None = None
    error: str | None = None
    """Name of the error of refuse, and of transient, where it is `unavailable` when none is given."""
    seconds: Annotated[float, Meta(gt=0, le=3600)] | None = None
    """Of delay."""


@dataclass(slots=True)
class Fault:
    id: int
    wanted: Wanted
    left: int | None
    """Strikes to come; None for no end."""
    draws: Draws
    struck: int = 0
    hanging: dict[asyncio.Future[Reply | None], None] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """For the log of calls."""
        return f"{self.wanted.kind} ({self.id})"

    def strikes(self, about: Subject) -> bool:
        """Whether it strikes this call; a draw is made only when nothing else speaks against it."""
        wanted = self.wanted
        if self.left == 0 or wanted.call != about.call:
            return False
        if wanted.object is not None and wanted.object not in about.objects:
            return False
        return wanted.probability is None or self.draws.next() < wanted.probability

    def refusal(self, statuses: Mapping[str, int]) -> Reply:
        name = self.wanted.error or _TRANSIENT_ERROR
        refused = Refused(name, f"Fault {self.id} strikes this call", transient=self.wanted.kind == "transient")
        return Reply(statuses.get(name) or STATUS[name], wire.failure(refused))


class Shown(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A fault as it is listed."""

    id: int
    kind: Kind
    call: str
    object: str | None = None
    probability: float | None = None
    error: str | None = None
    seconds: float | None = None
    left: int | None
    """Null for no end."""
    struck: int
    hanging: int = 0


class Faults:
    """The faults in force. Not thread-safe: lives on the server's event loop."""

    def __init__(self, settings: Settings, token: str) -> None:
        """Calls without this token are not struck: they count for nobody."""
        self._settings = settings
        self._token = token
        self.seed = 0
        self._next = 1
        self._faults: dict[int, Fault] = {}

    def add(self, wanted: Wanted) -> Fault:
        """Raises `Refused` when it cannot be meant, or when there are too many."""
        _refuse_nonsense(wanted)
        if len(self._faults) >= MOST:
            self._forget_one_that_is_over()
        count = wanted.count or (None if wanted.probability is not None else 1)
        made = Fault(self._next, wanted, count, self._draws(self._next))
        self._faults[made.id] = made
        self._next += 1
        return made

    def lift(self, number: int) -> None:
        """Calls that hang in it go on. Raises `Refused` when there is no such fault."""
        found = self._faults.pop(number, None)
        if found is None:
            raise missing("Fault", number)
        _let_go(found, None)

    def lift_all(self) -> None:
        for found in self._faults.values():
            _let_go(found, None)
        self._faults.clear()

    def reset(self) -> None:
        """As in the beginning, but for the seed. Calls that hang are of a cluster that is gone: they are refused."""
        refused = Refused("unavailable", "The simulator was reset")
        for found in self._faults.values():
            _let_go(found, Reply(STATUS[refused.name], wire.failure(refused)))
        self._faults.clear()
        self._next = 1

    def sow(self, seed: int) -> None:
        """Draws begin anew, those of the faults in force too."""
        self.seed = seed
        for found in self._faults.values():
            found.draws = self._draws(found.id)

    def shown(self) -> list[Shown]:
        return [show(found) for found in self._faults.values()]

    @property
    def statuses(self) -> Mapping[str, int]:
        """HTTP statuses by error name that differ from `simulator.api.errors.STATUS`."""
        return self._settings.error_statuses

    def strike(self, request: Request) -> Fault | None:
        """The first fault that strikes this call, one strike poorer."""
        if not self._faults or not matches(request.token, self._token):
            return None
        about = subject(request.verb, request.path, request.body, self._settings)
        for found in self._faults.values():
            if found.strikes(about):
                found.struck += 1
                found.left = None if found.left is None else found.left - 1
                return found
        return None

    def _draws(self, number: int) -> Draws:
        return Draws(self.seed, f"fault {number}")

    def _forget_one_that_is_over(self) -> None:
        for found in self._faults.values():
            if found.left == 0 and not found.hanging:
                del self._faults[found.id]
                return
        raise invalid(f"There are {MOST} faults, and none is over; lift one first")


def show(fault: Fault) -> Shown:
    wanted = fault.wanted
    return Shown(
        id=fault.id,
        kind=wanted.kind,
        call=wanted.call,
        object=wanted.object,
        probability=wanted.probability,
        error=wanted.error,
        seconds=wanted.seconds,
        left=fault.left,
        struck=fault.struck,
        hanging=len(fault.hanging),
    )


def _refuse_nonsense(wanted: Wanted) -> None:
    if wanted.call not in CALLS:
        raise invalid(f"There is no call '{wanted.call[:100]}'; calls are named as in their path, as VolumeCreate is")
    if wanted.kind == "refuse" and wanted.error is None:
        raise invalid("A fault of kind refuse needs error: the name of the error")
    if wanted.error is not None and wanted.kind not in ("refuse", "transient"):
        raise invalid(f"A fault of kind {wanted.kind} has no error")
    if wanted.error is not None and wanted.error not in STATUS:
        raise invalid(f"There is no error '{wanted.error[:100]}'; there are {', '.join(STATUS)}")
    if (wanted.kind == "delay") != (wanted.seconds is not None):
        needs = "needs" if wanted.kind == "delay" else "has no"
        raise invalid(f"A fault of kind {wanted.kind} {needs} seconds")


def _let_go(fault: Fault, outcome: Reply | None) -> None:
    for hanging in fault.hanging:
        if not hanging.done():
            hanging.set_result(outcome)
