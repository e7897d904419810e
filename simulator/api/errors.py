"""Names, HTTP statuses and shape of API errors (spec storpool-api 8). No status is documented; these are our choice."""

from __future__ import annotations

STATUS: dict[str, int] = {
    "accessDenied": 401,
    "busy": 409,
    "insufficientResources": 507,
    "internalError": 500,
    "invalidParam": 400,
    "notImplemented": 501,
    "objectDoesNotExist": 404,
    "objectExists": 409,
    "runIfVersionIsMismatch": 409,
    "timeout": 504,
    "unavailable": 503,
    "unknownCall": 404,
}


class Refused(Exception):
    """A call is answered with an error and has changed nothing."""

    def __init__(self, name: str, descr: str, *, transient: bool = False) -> None:
        super().__init__(f"{name}: {descr}")
        self.name = name
        self.descr = descr
        self.transient = transient


def missing(kind: str, name: object) -> Refused:
    """`kind` begins the sentence: Volume, Snapshot, Template..."""
    return Refused("objectDoesNotExist", f"{kind} '{name}' does not exist")


def exists(name: str) -> Refused:
    return Refused("objectExists", f"The name '{name}' is already taken")


def invalid(descr: str) -> Refused:
    return Refused("invalidParam", descr)


def busy(descr: str) -> Refused:
    return Refused("busy", descr)


def unavailable(descr: str) -> Refused:
    """It may be otherwise soon."""
    return Refused("unavailable", descr, transient=True)


def scarce(descr: str) -> Refused:
    return Refused("insufficientResources", descr)
