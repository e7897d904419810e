"""StorPool's errors by class, and the one place that maps StorPool's error names and texts to them.

    NotFound <- ObjectDoesNotExist          permanent; success when something was to be deleted
    Conflict <- ObjectExists                success when the same name was to be created
             <- Busy                        conflict; `clients` holds the object open
    InsufficientCapacity <- InsufficientResources
    Unavailable <- NotSent                  transient: no endpoint was reached
                <- TransientRefusal         transient: StorPool asks to come again
    InvalidParameter <- RequestRefused      permanent: StorPool does not take the request
                     <- ClientNotRegistered permanent: the host's storpool_block is not known to the cluster
                     <- AuthenticationFailed
    Unknown <- AnswerLost                   unknown: the request left, no answer came
            <- MalformedAnswer              unknown: what came is not an answer of the StorPool API

Names and texts: spec/storpool-api.md section 8. Nothing public names the error of a wrong token, so its HTTP status
decides.
"""

from __future__ import annotations

import re

import msgspec

from harness.spi.errors import (
    Conflict,
    Error,
    InsufficientCapacity,
    InvalidParameter,
    NotFound,
    Unavailable,
    Unknown,
)


class ObjectDoesNotExist(NotFound):
    """The volume, snapshot or template does not exist."""


class ObjectExists(Conflict):
    """The name is taken."""


class Busy(Conflict):
    """The object is attached, or its device is open."""

    def __init__(self, text: str, clients: tuple[int, ...] = ()) -> None:
        super().__init__(text)
        self.clients = clients
        """StorPool clients that hold the device open, as far as StorPool tells."""


class InsufficientResources(InsufficientCapacity):
    """No space, or not enough servers or disks for the replication."""


class NotSent(Unavailable):
    """No endpoint of the API accepted a connection: the request did not leave."""


class TransientRefusal(Unavailable):
    """StorPool refused the request with `transient: true`: nothing was done, and it may go through later."""


class RequestRefused(InvalidParameter):
    """StorPool refused the request for good."""


class ClientNotRegistered(RequestRefused):
    """StorPool does not know the client that an attachment names."""


class AuthenticationFailed(RequestRefused):
    """StorPool does not take the token."""


class AnswerLost(Unknown):
    """The request was sent and the connection broke, or the time was up, before the whole answer came."""


class MalformedAnswer(Unknown):
    """What came back is not an answer of the StorPool API, so it proves nothing about the request."""


class ApiError(msgspec.Struct, frozen=True):
    """The `error` member of an answer."""

    name: str
    descr: str = ""
    transient: bool = False


_BY_NAME: dict[str, type[Error]] = {
    "objectDoesNotExist": ObjectDoesNotExist,
    "objectExists": ObjectExists,
    "insufficientResources": InsufficientResources,
}

_OPEN_AT = re.compile(r"is open at (?:client )?(\d+)")
UNAUTHENTICATED = (401, 403)
"""HTTP status of an answer to a token that StorPool does not take."""


def from_answer(call: str, status: int, error: ApiError) -> Error:
    """The typed error for an `error` member that came with this HTTP status; `call` is the call path."""
    text = f"StorPool {call}: {error.name}: {error.descr or 'no description'}"
    if error.transient:
        return TransientRefusal(text)
    if status in UNAUTHENTICATED:
        return AuthenticationFailed(f"{text}; check the pool's SP_AUTH_TOKEN")
    if error.name == "busy" or "is open at" in error.descr:
        return Busy(text, tuple(int(client) for client in _OPEN_AT.findall(error.descr)))
    if error.name == "invalidParam" and error.descr == "No such client registered":
        return ClientNotRegistered(f"{text}; start storpool_block on that host and check its SP_OURID")
    return _BY_NAME.get(error.name, RequestRefused)(text)
