"""Calls to a StorPool API over HTTP, for the commands (spec storpool-api 1)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any

from simulator.commands.request import Action, Choice, Request

CONNECT_SECONDS = 10.0
CALL_SECONDS = 1900.0
"""A little more than the simulator lets a call wait."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    host: str
    port: int
    token: str = field(repr=False)


class Unreachable(Exception):
    """No answer of a StorPool API came."""


@dataclass(frozen=True, slots=True)
class Answer:
    request: Request
    text: str
    """The envelope as it came."""
    envelope: dict[str, Any]

    @property
    def error(self) -> dict[str, Any] | None:
        """`name` and `descr`, whatever the HTTP status."""
        found = self.envelope.get("error")
        return found if isinstance(found, dict) else None


def perform(action: Action, endpoint: Endpoint, *, multicluster: bool) -> Answer:
    """The answer to the call, or the refusal of the one that had to choose it. Raises `Unreachable`."""
    if isinstance(action, Choice):
        listed = call(action.ask, endpoint, multicluster=multicluster)
        if listed.error is not None:
            return listed
        action = action.choose(listed.envelope["data"])
    return call(action, endpoint, multicluster=multicluster)


def call(request: Request, endpoint: Endpoint, *, multicluster: bool) -> Answer:
    """One call, never sent again. Raises `Unreachable`."""
    where = f"the StorPool API at {endpoint.host}:{endpoint.port}"
    connection = HTTPConnection(endpoint.host, endpoint.port, timeout=CONNECT_SECONDS)
    body = None if request.body is None else json.dumps(request.body)
    headers = {"Authorization": f"Storpool v1:{endpoint.token}"}
    try:
        connection.connect()
        connection.sock.settimeout(CALL_SECONDS)
        connection.request(request.verb, request.path(multicluster), body, headers)
        text = connection.getresponse().read().decode()
    except (OSError, HTTPException, UnicodeError) as error:
        raise Unreachable(f"{where}: {str(error) or type(error).__name__}") from None
    finally:
        connection.close()
    try:
        envelope = json.loads(text)
    except ValueError:
        envelope = None
    if not isinstance(envelope, dict) or ("data" not in envelope) == ("error" not in envelope):
        raise Unreachable(f"{where} gave an answer that is none of the API's")
    return Answer(request, text, envelope)
