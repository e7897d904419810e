"""Asking an agent to copy, and what its answer means."""

from __future__ import annotations

from harness.spi.commands import AnyAnswer, CopyCmdAnswer
from harness.spi.errors import Conflict, Error, ErrorClass, Unavailable, Unknown
from harness.spi.ports import Endpoint

ANSWER_MARGIN = 60.0
"""Seconds between the end of the agent's work and of our waiting for its answer."""

_KINDS: dict[ErrorClass | None, type[Error]] = {
    ErrorClass.UNKNOWN: Unknown,
    ErrorClass.TRANSIENT: Unavailable,
    ErrorClass.CONFLICT: Conflict,
}


def succeeded(answer: AnyAnswer, endpoint: Endpoint, what: str) -> None:
    """Raise what an answer says that is none of success."""
    if not answer.result:
        raise _KINDS.get(answer.error_class, Error)(f"host {endpoint.name} could not {what}: {answer.details}")


def copied(answer: AnyAnswer, endpoint: Endpoint, what: str) -> CopyCmdAnswer:
    """The answer, which says that the copy was made; raises what any other one says."""
    succeeded(answer, endpoint, f"copy {what}")
    if not isinstance(answer, CopyCmdAnswer):
        raise Error(f"host {endpoint.name} answered the copy of {what} with {type(answer).__name__}")
    return answer
