"""Commands that copy an image onto a StorPool volume: of secondary storage, or a volume's file on an NFS pool
(spec/cloudstack-plugin.md 4.2, 4.10 and 4.18).

The format is the one that the records say, never probed: the original took what a guest had written for a header.
"""

from __future__ import annotations

from harness.agent import qemu_img
from harness.agent.copies import attached, check_size, detach
from harness.agent.deadline import Deadline
from harness.agent.operations import Kind
from harness.agent.tools import Tools
from harness.spi.commands import CopyCmdAnswer, StorPoolDownloadTemplateCommand, StorPoolDownloadVolumeCommand
from harness.spi.errors import InvalidParameter
from harness.spi.objects import ImageFormat, SnapshotObject, VolumeObject


def handle(tools: Tools, command: StorPoolDownloadTemplateCommand | StorPoolDownloadVolumeCommand) -> CopyCmdAnswer:
    """The answer has the image's virtual size. `wait` bounds the copy; the volume is detached whatever happens."""
    source, destination = command.source, command.destination
    if source.store is None or source.path is None or destination.path is None:
        raise InvalidParameter(f"source {source.path!r} and destination {destination.path!r} must both have a path")
    deadline = Deadline(tools.runtime, command.wait)
    size = destination.size if isinstance(destination, VolumeObject) else None
    # Backups of snapshots on secondary storage are qcow2 (section 4.9).
    image_format = ImageFormat.QCOW2 if isinstance(source, SnapshotObject) else source.format
    with (
        tools.copies.run(destination.path) as copy,
        tools.volumes([destination.path], deadline.remaining),
        tools.secondary.file(source.store, source.path) as file,
    ):
        copy.begin()
        image = qemu_img.info(tools.host, file, image_format, deadline.remaining)
        qemu_img.check_guest_image(image, file)
        with tools.operations.begin(Kind.DOWNLOAD, None, [destination.path]) as operation:
            copy.operation = operation.id
            with attached(tools, destination.path, deadline, size=size) as capacity:
                check_size(file, image.virtual_size, destination.path, capacity)
                qemu_img.convert_to_device(
                    tools.host, file, image_format, destination.path, deadline.remaining, operation.id, copy.heard
                )
            details = detach(tools, destination.path, operation)
            if isinstance(destination, VolumeObject):
                # It stays, so that a copy of the attach could still be carried out, and nothing would undo it.
                tools.operations.attach_may_come_late(destination.path)
    return CopyCmdAnswer(result=True, path=destination.path, size=image.virtual_size, details=details)
