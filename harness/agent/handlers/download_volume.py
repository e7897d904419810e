"""StorPoolDownloadVolumeCommand: a file of an NFS pool onto a StorPool volume (spec/cloudstack-plugin.md 4.18).

The format is the one that the records say, never probed: the original took what a guest had written for a header.
"""

from __future__ import annotations

from harness.agent import qemu_img
from harness.agent.deadline import Deadline
from harness.agent.operations import Kind, Operation
from harness.agent.tools import Tools
from harness.spi.commands import CopyCmdAnswer, StorPoolDownloadVolumeCommand
from harness.spi.errors import Error, InvalidParameter

INFO_SECONDS = 60.0


def handle(tools: Tools, command: StorPoolDownloadVolumeCommand) -> CopyCmdAnswer:
    """The answer has the disk's size. `wait` bounds the copy; the volume is detached whatever happens."""
    source, destination = command.source, command.destination
    if source.store is None or source.path is None or destination.path is None:
        raise InvalidParameter(f"source {source.path!r} and destination {destination.path!r} must both have a place")
    deadline = Deadline(tools.runtime, command.wait)
    with tools.volumes([destination.path], deadline.remaining):
        with tools.secondary.file(source.store, source.path) as file:
            image = qemu_img.info(tools.host, file, source.format, min(INFO_SECONDS, deadline.remaining))
            qemu_img.check_guest_image(image, file)
            with tools.operations.begin(Kind.DOWNLOAD, None, [destination.path]) as operation:
                capacity = tools.adaptor.connect(destination.path, size=destination.size, timeout=deadline.remaining)
                try:
                    if image.virtual_size > capacity:
                        raise InvalidParameter(
                            f"{file} is a disk of {image.virtual_size} bytes, but {destination.path} has {capacity}"
                        )
                    qemu_img.convert_to_device(
                        tools.host, file, source.format, destination.path, deadline.remaining, operation.id
                    )
                except Error as error:
                    tools.adaptor.undo(error, [destination.path])
                    raise
                details = _detach(tools, destination.path, operation)
                # It stays, so that a copy of the attach could still be carried out, and nothing would undo it.
                tools.operations.attach_may_come_late(destination.path)
    return CopyCmdAnswer(result=True, path=destination.path, size=image.virtual_size, details=details)


def _detach(tools: Tools, path: str, operation: Operation) -> str:
    """Detach after a good copy; a failure is told in the details, for it does not make the copy bad."""
    try:
        tools.adaptor.disconnect(path)
    except Error as error:
        operation.leave_open()
        return f"copied, but {path} stays attached to host {tools.config.host_name}: {error}"
    return ""
