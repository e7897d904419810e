"""Commands that copy a StorPool snapshot into a new file of secondary storage: as the backup of a snapshot, a template,
or a volume to be downloaded (spec/cloudstack-plugin.md 4.9, 4.11 to 4.13)."""

from __future__ import annotations

from harness.agent import qemu_img
from harness.agent.copies import attached, detach, staying
from harness.agent.deadline import Deadline
from harness.agent.operations import Kind
from harness.agent.tools import Tools
from harness.spi.commands import CopyCmdAnswer, ToSecondary
from harness.spi.errors import Conflict, InvalidParameter, Unavailable
from harness.spi.objects import ImageFormat


def handle(tools: Tools, command: ToSecondary) -> CopyCmdAnswer:
    """The answer has the disk's size and the file's. `wait` bounds it; the snapshot is detached whatever happens."""
    source, destination = command.source, command.destination
    if source.path is None or destination.path is None or destination.store is None:
        raise InvalidParameter(f"source {source.path!r} and destination {destination.path!r} must both have a path")
    deadline = Deadline(tools.runtime, command.wait)
    with (
        tools.copies.run(source.path, destination.path) as copy,
        tools.volumes([source.path], deadline.remaining),
        tools.secondary.new_file(destination.store, destination.path) as file,
    ):
        copy.begin()
        if not qemu_img.is_missing(tools.host, file, ImageFormat.QCOW2, deadline.remaining):
            raise Conflict(f"{file} exists already, so nothing was written to it; each copy needs a name of its own")
        with tools.operations.begin(Kind.BACKUP, None, [source.path]) as operation, staying(tools, source.path):
            copy.operation = operation.id
            with attached(tools, source.path, deadline, shared=True) as size:
                qemu_img.convert_from_device(
                    tools.host, source.path, file, ImageFormat.QCOW2, deadline.remaining, operation.id, copy.heard
                )
                image = qemu_img.info(tools.host, file, ImageFormat.QCOW2, deadline.remaining)
                _check(image, file, size)
            details = detach(tools, source.path, operation)
    return CopyCmdAnswer(
        result=True, path=destination.path, size=size, physical_size=image.actual_size, details=details
    )


def _check(image: qemu_img.ImageInfo, file: str, size: int) -> None:
    if image.virtual_size != size:
        raise Unavailable(f"{file} became a disk of {image.virtual_size} bytes, but the snapshot has {size}")
