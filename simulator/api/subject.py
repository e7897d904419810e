"""Which call a request is and which objects it names, for whoever looks at calls from outside: faults and the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from simulator.api.errors import Refused
from simulator.api.paths import BASE
from simulator.api.routing import remote_command, route
from simulator.settings import Settings

_NAMES = ("name", "volume", "snapshot")
"""Members of a body, or of what it lists, that name an object."""
_LISTS = ("reassign", "volumes")
"""Members of a body that list such."""


@dataclass(frozen=True, slots=True)
class Subject:
    call: str = ""
    """As in `Operation.call`; empty for what is no call of the API."""
    objects: tuple[str, ...] = ()
    """As the request names them, by name or by `~globalId`: the one of its path, else those of its body."""


def subject(verb: str, path: str, body: bytes, settings: Settings) -> Subject:
    """Never fails: of a request that cannot be understood it tells what can be. What is for another cluster is told as
    it is called there."""
    elsewhere = remote_command(path, settings)
    try:
        found = route(verb, path if elsewhere is None else BASE + elsewhere[1], settings)
    except Refused:
        return Subject()
    named = found.args[:1] or tuple(dict.fromkeys(_named(_json(body))))
    return Subject(found.operation.call, named)


def _json(body: bytes) -> Any:  # Any: whatever a client sent
    try:
        return msgspec.json.decode(body) if body else None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _named(body: Any) -> Iterator[str]:
    items = body if isinstance(body, list) else [body]
    if isinstance(body, dict):
        for key in _LISTS:
            items += body[key] if isinstance(body.get(key), list) else []
    for item in items:
        if isinstance(item, dict):
            yield from (item[key] for key in _NAMES if isinstance(item.get(key), str))
