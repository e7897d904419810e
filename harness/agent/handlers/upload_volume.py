"""StorPoolUploadVolumeCommand: a volume's snapshot into a new file of an NFS pool (spec/cloudstack-plugin.md 4.18)."""

from __future__ import annotations

from harness.agent import qemu_img
from harness.agent.deadline import Deadline
from harness.agent.handlers.download_volume import INFO_SECONDS, detach
from harness.agent.operations import Kind
from harness.agent.tools import Tools
from harness.spi.commands import CopyCmdAnswer, StorPoolUploadVolumeCommand
from harness.spi.errors import Conflict, Error, InvalidParameter, Unavailable


def handle(tools: Tools, command: StorPoolUploadVolumeCommand) -> CopyCmdAnswer:
    """The answer has the disk's size and the file's. `wait` bounds it; the snapshot is detached whatever happens."""
    source, destination = command.source, command.destination
    if source.path is None or destination.store is None or destination.path is None:
        raise InvalidParameter(f"source {source.path!r} and destination {destination.path!r} must both have a place")
    deadline = Deadline(tools.runtime, command.wait)
    with (
        tools.volumes([source.path], deadline.remaining),
        tools.secondary.new_file(destination.store, destination.path) as file,
    ):
        if not qemu_img.is_missing(tools.host, file, destination.format, min(INFO_SECONDS, deadline.remaining)):
            raise Conflict(f"{file} exists already, so nothing was written to it; each copy needs a name of its own")
        with tools.operations.begin(Kind.BACKUP, None, [source.path]) as operation:
            size = tools.adaptor.connect(source.path, size=None, timeout=deadline.remaining, shared=True)
            try:
                qemu_img.convert_from_device(
                    tools.host, source.path, file, destination.format, deadline.remaining, operation.id
                )
                image = qemu_img.info(tools.host, file, destination.format, min(INFO_SECONDS, deadline.remaining))
                if image.virtual_size != size:
                    raise Unavailable(f"{file} became a disk of {image.virtual_size} bytes, but the volume has {size}")
            except Error as error:
                tools.adaptor.undo(error, [source.path])
                raise
            details = detach(tools, source.path, operation)
    return CopyCmdAnswer(
        result=True, path=destination.path, size=size, physical_size=image.actual_size, details=details
    )
