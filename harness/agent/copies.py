"""What commands have in common that copy to or from a volume, or a snapshot, which is attached here meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.agent.deadline import Deadline
from harness.agent.operations import Operation
from harness.agent.tools import Tools
from harness.spi.errors import Error, InvalidParameter


@contextmanager
def attached(
    tools: Tools, path: str, deadline: Deadline, *, size: int | None = None, shared: bool = False
) -> Iterator[int]:
    """The bytes of its device. After an error of the block it is detached, else the caller does that (`detach`).

    `size` and `shared` as the adaptor's `connect` has them.
    """
    capacity = tools.adaptor.connect(path, size=size, timeout=deadline.remaining, shared=shared)
    try:
        yield capacity
    except Error as error:
        tools.adaptor.undo(error, [path])
        raise


@contextmanager
def staying(tools: Tools, *paths: str) -> Iterator[None]:
    """Of what stays in StorPool, whatever becomes of the block that attaches it: a copy of the request to attach could
    be carried out after the detach, and nothing else would undo that."""
    try:
        yield
    finally:
        for path in paths:
            tools.operations.attach_may_come_late(path)


def check_size(file: str, virtual_size: int, device: str, capacity: int) -> None:
    """Sizes are bytes. Raises `InvalidParameter` when the disk in the file is larger than the device."""
    if virtual_size > capacity:
        raise InvalidParameter(
            f"the image {file} is a disk of {virtual_size} bytes, but {device} has only {capacity}; "
            "make the volume at least that large"
        )


def detach(tools: Tools, path: str, operation: Operation, done: str = "copied") -> str:
    """Detach when the work is `done`; a failure is told in the details, for it does not make the work bad."""
    try:
        tools.adaptor.disconnect(path)
    except Error as error:
        operation.leave_open()
        return f"{done}, but {path} stays attached to host {tools.config.host_name}: {error}"
    return ""
