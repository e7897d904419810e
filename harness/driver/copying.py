"""Asking an agent to copy, and what its answer means."""

from __future__ import annotations

from harness.driver.in_use import COPIED_BY, IN_USE, in_use
from harness.driver.operations import Operation, Operations
from harness.spi.commands import AnyAnswer, AnyCommand, CopyCmdAnswer
from harness.spi.errors import Conflict, Error, ErrorClass, Unavailable, Unknown
from harness.spi.ports import Endpoint

ANSWER_MARGIN = 60.0
"""Seconds between the end of the agent's work and of our waiting for its answer."""
COPY = "copy"
COPIED = "copied"

_KINDS: dict[ErrorClass | None, type[Error]] = {
    ErrorClass.UNKNOWN: Unknown,
    ErrorClass.TRANSIENT: Unavailable,
    ErrorClass.CONFLICT: Conflict,
}


def ask(operations: Operations, operation: Operation, endpoint: Endpoint, command: AnyCommand, what: str) -> AnyAnswer:
    """Have the agent do it to what the operation made, for as long as the command may take. Steps: copy.

    The answer is one of success. Whatever becomes of it, the data tells who may use the object, and until when.
    """
    operation.advance(COPY, in_use(operations, endpoint.name, command.wait))
    try:
        answer = endpoint.send(command, timeout=command.wait + ANSWER_MARGIN)
        succeeded(answer, endpoint, what)
    except Unavailable:
        operation.note({IN_USE: "0"})
        raise
    except Unknown:
        raise
    except Error:
        operation.note({COPIED_BY: ""})
        raise
    return answer


def succeeded(answer: AnyAnswer, endpoint: Endpoint, what: str) -> None:
    """Raise what an answer says that is none of success."""
    if not answer.result:
        raise _KINDS.get(answer.error_class, Error)(f"host {endpoint.name} could not {what}: {answer.details}")


def copy_out(
    operations: Operations, operation: Operation, endpoint: Endpoint, command: AnyCommand, what: str
) -> CopyCmdAnswer:
    """Have the agent copy what the operation made, for as long as the command may take. Steps: copy, copied."""
    found = copied(ask(operations, operation, endpoint, command, f"copy {what}"), endpoint, what)
    operation.advance(COPIED, {IN_USE: "0"})
    return found


def copied(answer: AnyAnswer, endpoint: Endpoint, what: str) -> CopyCmdAnswer:
    """The answer, which says that the copy was made; raises what any other one says."""
    succeeded(answer, endpoint, f"copy {what}")
    if not isinstance(answer, CopyCmdAnswer):
        raise Error(f"host {endpoint.name} answered the copy of {what} with {type(answer).__name__}")
    return answer
