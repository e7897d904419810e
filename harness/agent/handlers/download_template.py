"""StorPoolDownloadTemplateCommand: an image of secondary storage onto a volume (spec/cloudstack-plugin.md 4.2)."""

from __future__ import annotations

from harness.agent import qemu_img
from harness.agent.deadline import Deadline
from harness.agent.operations import Kind, Operation
from harness.agent.tools import Tools
from harness.spi.commands import CopyCmdAnswer, StorPoolDownloadTemplateCommand
from harness.spi.errors import Error, InvalidParameter
from harness.spi.objects import ImageFormat, SnapshotObject, TemplateObject, VolumeObject

INFO_SECONDS = 60.0


def handle(tools: Tools, command: StorPoolDownloadTemplateCommand) -> CopyCmdAnswer:
    """The answer has the image's virtual size. `wait` bounds the copy; the volume is detached whatever happens."""
    source, destination = command.source, command.destination
    if source.path is None or destination.path is None:
        raise InvalidParameter(f"source {source.path!r} and destination {destination.path!r} must both have a path")
    deadline = Deadline(tools.runtime, command.wait)
    size = destination.size if isinstance(destination, VolumeObject) else None
    with tools.volumes([destination.path], deadline.remaining):
        with tools.secondary.file(source.store, source.path) as file:
            image = qemu_img.info(tools.host, file, _format(source), min(INFO_SECONDS, deadline.remaining))
            qemu_img.check_guest_image(image, file)
            with tools.operations.begin(Kind.DOWNLOAD, None, [destination.path]) as operation:
                capacity = tools.adaptor.connect(destination.path, size=size, timeout=deadline.remaining)
                try:
                    check_size(file, image.virtual_size, destination.path, capacity)
                    qemu_img.convert_to_device(
                        tools.host, file, _format(source), destination.path, deadline.remaining, operation.id
                    )
                except Error as error:
                    tools.adaptor.undo(error, [destination.path])
                    raise
                details = detach(tools, destination.path, operation)
                if isinstance(destination, VolumeObject):
                    # It stays, so that a copy of the attach could still be carried out, and nothing would undo it.
                    tools.operations.attach_may_come_late(destination.path)
    return CopyCmdAnswer(result=True, path=destination.path, size=image.virtual_size, details=details)


def _format(source: TemplateObject | SnapshotObject) -> ImageFormat:
    """Backups of snapshots on secondary storage are qcow2 (section 4.9)."""
    return source.format if isinstance(source, TemplateObject) else ImageFormat.QCOW2


def check_size(file: str, virtual_size: int, device: str, capacity: int) -> None:
    if virtual_size > capacity:
        raise InvalidParameter(
            f"the image {file} is a disk of {virtual_size} bytes, but {device} has only {capacity}; "
            "make the volume at least that large"
        )


def detach(tools: Tools, path: str, operation: Operation) -> str:
    """Detach after a good copy; a failure is told in the details, for it does not make the copy bad."""
    try:
        tools.adaptor.disconnect(path)
    except Error as error:
        operation.leave_open()
        return f"copied, but {path} stays attached to host {tools.config.host_name}: {error}"
    return ""
