"""Commands for pools on NFS (CloudStack's default primary storage): reach, and a new empty volume."""

from __future__ import annotations

from contextlib import suppress

from harness.agent import qemu_img
from harness.agent.deadline import Deadline
from harness.agent.tools import Tools
from harness.spi.commands import Answer, CopyCmdAnswer, CreateObjectCommand, ModifyStoragePoolCommand
from harness.spi.errors import Conflict, InvalidParameter, NotFound
from harness.spi.objects import ImageFormat

PROBE = "reachable"
"""A file that nobody makes: that a server says it is not there is an answer."""


def modify(tools: Tools, command: ModifyStoragePoolCommand) -> Answer:
    """Raises `Unavailable` when the server does not answer, or has no such export."""
    # The file is missed by qemu-img, or before that by who mounts the export.
    with suppress(NotFound), tools.secondary.file(command.pool, PROBE) as file:
        qemu_img.info(tools.host, file, ImageFormat.RAW, command.wait)
    return Answer(result=True)


def create(tools: Tools, command: CreateObjectCommand) -> CopyCmdAnswer:
    """One command at a time for a file, so that a second one finds what the first has made."""
    volume = command.volume
    if volume.store is None or volume.path is None:
        raise InvalidParameter(f"volume {volume.name} ({volume.uuid}) has no place on a pool")
    deadline = Deadline(tools.runtime, command.wait)
    # Not by the name that qemu-img takes: each mount has its own.
    with (
        tools.volumes([f"{volume.store.url}/{volume.path}"], deadline.remaining),
        tools.secondary.new_file(volume.store, volume.path) as file,
    ):
        if qemu_img.is_missing(tools.host, file, volume.format, deadline.remaining):
            qemu_img.create(tools.host, file, volume.format, volume.size, deadline.remaining)
        image = qemu_img.info(tools.host, file, volume.format, deadline.remaining)
        if image.virtual_size != volume.size:
            raise Conflict(
                f"{file} is a disk of {image.virtual_size} bytes, and not of {volume.size}; it was left as it is"
            )
    return CopyCmdAnswer(result=True, path=volume.path, size=image.virtual_size, physical_size=image.actual_size)
