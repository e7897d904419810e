"""From an agent's answer to the error it stands for."""

from __future__ import annotations

from harness.spi.commands import AnyAnswer
from harness.spi.errors import (
    Conflict,
    Error,
    ErrorClass,
    InsufficientCapacity,
    InvalidParameter,
    NotFound,
    Unavailable,
    Unknown,
)

_KINDS: dict[ErrorClass | None, type[Error]] = {
    ErrorClass.TRANSIENT: Unavailable,
    ErrorClass.CONFLICT: Conflict,
    ErrorClass.UNKNOWN: Unknown,
}


def checked(answer: AnyAnswer, endpoint: str) -> AnyAnswer:
    """The answer when its result is true, else the error of its class with the agent's own words."""
    if answer.result:
        return answer
    kind = _KINDS.get(answer.error_class, Error)
    raise kind(f"{endpoint}: {answer.details or 'the agent gave no reason'}")


def reworded(error: Error, text: str) -> Error:
    """An error of the same kind and class that says more."""
    kinds = (InvalidParameter, NotFound, Conflict, InsufficientCapacity, Unavailable, Unknown)
    made = next((kind for kind in kinds if isinstance(error, kind)), Error)(text)
    made.error_class = error.error_class
    return made
