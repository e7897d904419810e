"""Asking an agent to copy, and what its answer means."""

from __future__ import annotations

from harness.driver.discard import IN_USE, IN_USE_FOR
from harness.driver.operations import Operation, Operations
from harness.spi.commands import AnyAnswer, AnyCommand, CopyCmdAnswer
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


def copy_out(
    operations: Operations, operation: Operation, endpoint: Endpoint, command: AnyCommand, what: str
) -> CopyCmdAnswer:
    """Have the agent copy what the operation made, for as long as the command may take. Steps: copy, copied.

    Whatever becomes of it, the data tells until when the agent, or a late copy of the command, may use the object.
    """
    before, use = operation.step, command.wait + operations.settle_time
    until = operations.now() + use
    operation.advance("copy", {"host": endpoint.name, IN_USE: str(until), IN_USE_FOR: str(use)})
    try:
        answer = endpoint.send(command, timeout=command.wait + ANSWER_MARGIN)
    except Unavailable:
        operation.advance(before, {IN_USE: "0"})
        raise
    found = copied(answer, endpoint, what)
    operation.advance("copied", {IN_USE: "0"})
    return found


def copied(answer: AnyAnswer, endpoint: Endpoint, what: str) -> CopyCmdAnswer:
    """The answer, which says that the copy was made; raises what any other one says."""
    succeeded(answer, endpoint, f"copy {what}")
    if not isinstance(answer, CopyCmdAnswer):
        raise Error(f"host {endpoint.name} answered the copy of {what} with {type(answer).__name__}")
    return answer
