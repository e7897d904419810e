"""What commands have in common that copy to or from a volume, or a snapshot, which is attached here meanwhile."""

from __future__ import annotations

from harness.agent.operations import Operation
from harness.agent.tools import Tools
from harness.spi.errors import Error, InvalidParameter


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
