"""Calls under `/_sim/` that are about the HTTP layer and not about the cluster; `simulator.api.control` lists them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar
from urllib.parse import parse_qs

import msgspec

from simulator.api import wire
from simulator.api.control import BASE, decode
from simulator.api.errors import STATUS, Refused, invalid
from simulator.api.faults import Faults, Wanted, show
from simulator.api.log import Log
from simulator.api.token import matches
from simulator.ports import Reply, Request

_T = TypeVar("_T")


class _Seed(msgspec.Struct, forbid_unknown_fields=True):
    seed: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Desk:
    """Implements `simulator.api.server.Desk`."""

    def __init__(self, faults: Faults, log: Log, token: str, generation: Callable[[], int]) -> None:
        self._faults = faults
        self._log = log
        self._token = token
        self._generation = generation

    def serves(self, path: str) -> bool:
        return path.startswith(BASE) and path[len(BASE) :].partition("/")[0] in ("faults", "seed", "log")

    def serve(self, request: Request, query: bytes) -> Reply:
        try:
            if not matches(request.token, self._token):
                raise Refused("accessDenied", "Wrong or missing token")
            return Reply(200, wire.success(self._generation(), self._data(request, query)))
        except Refused as refused:
            return Reply(STATUS[refused.name], wire.failure(refused))

    def answered(self, request: Request, reply: Reply) -> None:
        if request.path == f"{BASE}reset" and reply.status == 200:
            self._faults.reset()

    def _data(self, request: Request, query: bytes) -> object:
        word, _, tail = request.path[len(BASE) :].partition("/")
        match (request.verb, word, tail):
            case ("GET", "faults", ""):
                return {"faults": self._faults.shown()}
            case ("POST", "faults", ""):
                return show(self._faults.add(decode(request.body, Wanted)))
            case ("DELETE", "faults", ""):
                self._faults.lift_all()
                return {"ok": True}
            case ("DELETE", "faults", number) if number.isascii() and number.isdecimal() and len(number) < 20:
                self._faults.lift(int(number))
                return {"ok": True}
            case ("GET", "seed", ""):
                return {"seed": self._faults.seed}
            case ("POST", "seed", ""):
                self._faults.sow(decode(request.body, _Seed).seed)
                return {"ok": True}
            case ("GET", "log", ""):
                return {"last": self._log.last, "calls": self._log.after(after(query))}
            case _:
                raise Refused("unknownCall", f"There is no control call {request.verb} {request.path[:100]}")


def after(query: bytes) -> int:
    """The `after=` argument of a query: a number of the log, 0 when there is none. Raises `Refused`."""
    try:
        given = parse_qs(query.decode("ascii", "replace"), max_num_fields=100).get("after", ["0"])[-1]
    except ValueError as error:
        raise invalid(f"The query string cannot be read: {error}") from error
    if not (given.isascii() and given.isdecimal() and len(given) < 20):
        raise invalid(f"after is the number of a call in the log, not '{given[:100]}'")
    return int(given)
