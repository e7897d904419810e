"""The control API under `/_sim/`: what a test may do to a simulator and no client of StorPool can.

    GET  /_sim/calls            served calls by name
    GET  /_sim/volumecare       snapshots of VolumeCare, as `storpool_vcctl status --json` lists them
    POST /_sim/reset            back to the cluster of an empty state
    POST /_sim/clock            {"advance": seconds}, where the clock can be moved
    POST /_sim/client/ID        {"running": true | false}
    POST /_sim/server/ID        {"running": true | false}
    POST /_sim/disk/ID          {"up": true | false}

Answers have the API's envelopes; the token is the API's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Protocol, TypeVar

import msgspec

from simulator.api.errors import Refused, invalid
from simulator.cluster import disks, services
from simulator.cluster.plan import Handler
from simulator.ports import Request
from simulator.services import history

BASE = "/_sim/"
_T = TypeVar("_T")


class Controlled(Protocol):
    """What the control API needs of the service."""

    advance: Callable[[float], None] | None

    @property
    def calls(self) -> Mapping[str, int]: ...

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
        case ("POST", "clock"):
            _advance(service, number, request)
        case ("POST", "client") if tail.isascii() and tail.isdigit():
            running = _decode(request.body, _ClientStatus).running
            service.control_call(number, services.client_up if running else services.client_down, (tail,))
        case ("POST", "server") if tail.isascii() and tail.isdigit():
            running = _decode(request.body, _ClientStatus).running
            service.control_call(number, services.server_back if running else services.server_down, (tail,))
        case ("POST", "disk") if tail.isascii() and tail.isdigit():
            up = _decode(request.body, _DiskStatus).up
            service.control_call(number, disks.disk_back if up else disks.disk_down, (tail,))
        case _:
            raise Refused("unknownCall", f"There is no control call {request.verb} {request.path[:100]}")


def _advance(service: Controlled, number: int, request: Request) -> None:
    if service.advance is None:
        raise invalid("This simulator's clock cannot be moved")
    service.advance(_decode(request.body, _Advance).advance)
    service.tick()
    service.answer(number, {"ok": True})


def _decode(body: bytes, wanted: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=wanted)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise invalid(f"control call: {error}") from error
