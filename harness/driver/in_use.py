"""What an agent may still be using of an operation that has no answer, until when, and how that is cut short.

A copy may take hours, and a copy of its command may arrive as late as any request. Nothing tells the end of it when its
answer is lost; but the host can be told to end it, and then only what is late is waited for.
"""

from __future__ import annotations

from harness.driver.operations import Operation, Operations, log
from harness.spi.commands import CancelCommand
from harness.spi.driver import HostEndpoints
from harness.spi.errors import Error

IN_USE = "in-use-until"
"""In an operation's data: the time until which an agent may use the object."""
IN_USE_FOR = "in-use-for"
"""How many seconds ahead that time was set; records of older drivers do not tell it."""
COPIED_BY = "host"
"""Name of the host whose agent that is; nobody has to be asked when it is empty."""
CANCEL_WAIT = 60.0
CANCEL_MARGIN = 15.0
"""Seconds that the answer may take beyond that."""


def in_use(operations: Operations, host: str, wait: float) -> dict[str, str]:
    """Data to be recorded before this host is asked for a copy that may take so many seconds."""
    use = wait + operations.settle_time
    return {COPIED_BY: host, IN_USE: str(operations.now() + use), IN_USE_FOR: str(use)}


def in_use_no_more(operations: Operations, operation: Operation) -> bool:
    return operations.passed(operation, IN_USE, float(operation.data.get(IN_USE_FOR, "inf")))


def cut_short(operations: Operations, operation: Operation, endpoints: HostEndpoints, path: str) -> None:
    """Have the copy from or to this path ended, and record that only what is late of it may still use the object.

    A host that cannot be asked, or does not know how, may use it for as long as before. Never raises `Error` of a host.
    """
    host = operation.data.get(COPIED_BY)
    if not host or in_use_no_more(operations, operation):
        return
    if cancelled(endpoints, host, path):
        settle_time = operations.settle_time
        until = min(float(operation.data[IN_USE]), operations.now() + settle_time)
        operation.note({COPIED_BY: "", IN_USE: str(until), IN_USE_FOR: str(settle_time)})


def cancelled(endpoints: HostEndpoints, host: str, path: str) -> bool:
    """Whether the host copies nothing from or to this path any more, and begins nothing that reaches the same agent."""
    command = CancelCommand(path=path, wait=CANCEL_WAIT)
    try:
        answer = endpoints.named(host).send(command, timeout=CANCEL_WAIT + CANCEL_MARGIN)
    except Error as error:
        log.warning("host %s could not be asked to end the copy of %s: %s", host, path, error)
        return False
    if not answer.result:
        log.warning("host %s did not end the copy of %s: %s", host, path, answer.details)
    return answer.result
