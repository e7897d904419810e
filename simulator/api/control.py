"""The control API under `/_sim/`: what a test may do to a simulator and no client of StorPool can.

    GET    /_sim/calls          served calls by name
    GET    /_sim/volumecare     snapshots of VolumeCare, as `storpool_vcctl status --json` lists them
    POST   /_sim/reset          back to the cluster of an empty state, without faults
    GET    /_sim/clock          {"now": Unix seconds}
    POST   /_sim/clock          {"advance": seconds}, where the clock can be moved
    POST   /_sim/client/ID      {"running": true | false}
    POST   /_sim/server/ID      {"running": true | false}
    POST   /_sim/disk/ID        {"up": true | false}
    GET    /_sim/journal        what the last changes since the start put and dropped; no values

and, of the HTTP server (`simulator.api.desk`), not of a service in process:

    GET    /_sim/faults         faults in force, and those that are over
    POST   /_sim/faults         a new one: `simulator.api.faults.Wanted`
    DELETE /_sim/faults         all are lifted; calls that hang go on
    DELETE /_sim/faults/ID      this one
    GET    /_sim/seed           {"seed": number} of the draws of faults that strike by chance; 0 at the start
    POST   /_sim/seed           {"seed": number}: draws begin anew
    GET    /_sim/log?after=N    the last calls of the API, later ones than number N: `simulator.api.log.Line`

For example, the next creation of volume `v` is carried out and its answer is lost:
`POST /_sim/faults {"kind": "lose", "call": "VolumeCreate", "object": "v"}`.

Answers have the API's envelopes; the token is the API's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Protocol, TypeVar

import msgspec

from simulator.api import wire
from simulator.api.errors import Refused, invalid
from simulator.cluster import changes, disks, services
from simulator.cluster.plan import Handler
from simulator.cluster.records import JournalRecord
from simulator.ports import Request
from simulator.services import history

BASE = "/_sim/"
WORDS = "calls, client, clock, disk, faults, journal, log, reset, seed, server, volumecare"
_T = TypeVar("_T")


class Controlled(Protocol):
    """What the control API needs of the service."""

    advance: Callable[[float], None] | None

    @property
    def calls(self) -> Mapping[str, int]: ...

    @property
    def time(self) -> float: ...

    @property
    def last_changes(self) -> Iterable[tuple[int, JournalRecord]]: ...

    def reset(self, number: int) -> None: ...

    def tick(self) -> float | None: ...

    def control_call(self, number: int, handler: Handler, args: tuple[str, ...]) -> None: ...

    def answer(self, number: int, data: object) -> None: ...


class _Advance(msgspec.Struct, forbid_unknown_fields=True):
    advance: Annotated[float, msgspec.Meta(ge=0, le=10 * 366 * 86400)]


class _DiskStatus(msgspec.Struct, forbid_unknown_fields=True):
    up: bool


class _ClientStatus(msgspec.Struct, forbid_unknown_fields=True):
    running: bool


def serve(service: Controlled, number: int, request: Request) -> None:
    """Answers through `service.answer`; raises `Refused`."""
    word, _, tail = request.path[len(BASE) :].partition("/")
    match (request.verb, word):
        case ("GET", "calls"):
            service.answer(number, {"calls": dict(service.calls)})
        case ("GET", "volumecare"):
            service.tick()
            service.control_call(number, lambda call: history.history(call.state, call.settings.cluster_id), ())
        case ("POST", "reset"):
            service.reset(number)
            service.answer(number, {"ok": True})
        case ("GET", "clock"):
            service.answer(number, {"now": service.time})
        case ("GET", "journal"):
            service.answer(number, {"changes": [changes.told(*each) for each in service.last_changes]})
        case ("POST", "clock"):
            _advance(service, number, request)
        case ("POST", "client") if tail.isascii() and tail.isdigit():
            running = decode(request.body, _ClientStatus).running
            service.control_call(number, services.client_up if running else services.client_down, (tail,))
        case ("POST", "server") if tail.isascii() and tail.isdigit():
            running = decode(request.body, _ClientStatus).running
            service.control_call(number, services.server_back if running else services.server_down, (tail,))
        case ("POST", "disk") if tail.isascii() and tail.isdigit():
            up = decode(request.body, _DiskStatus).up
            service.control_call(number, disks.disk_back if up else disks.disk_down, (tail,))
        case _:
            text = f"There is no control call {request.verb} {request.path[:100]}; they begin with {WORDS}"
            raise Refused("unknownCall", text)


def _advance(service: Controlled, number: int, request: Request) -> None:
    if service.advance is None:
        raise invalid("This simulator's clock cannot be moved")
    service.advance(decode(request.body, _Advance).advance)
    service.tick()
    service.answer(number, {"ok": True})


def decode(body: bytes, wanted: type[_T]) -> _T:
    """Raises `Refused` and says what is wrong with it."""
    if not body.strip():
        raise invalid("This control call needs a body, a JSON object: see simulator/api/control.py")
    try:
        return msgspec.json.decode(body, type=wanted)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise invalid(f"control call: {wire.explained(str(error))}") from error
