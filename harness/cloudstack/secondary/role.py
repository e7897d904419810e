"""What CloudStack asks of the secondary storage VM, carried out on the export."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from harness.agent import qemu_img
from harness.cloudstack.secondary.config import SecondaryConfig
from harness.cloudstack.secondary.downloads import check_token
from harness.cloudstack.secondary.export import Export
from harness.cloudstack.secondary.fetch import CHUNK, check_sum, fetch
from harness.spi.commands import (
    USERDATA,
    Answer,
    AnyAnswer,
    AnyCommand,
    CopyCmdAnswer,
    CopyCommand,
    CreateEntityDownloadURLAnswer,
    CreateEntityDownloadURLCommand,
    DeleteCommand,
    DownloadAnswer,
    DownloadCommand,
    PingAnswer,
    PingCommand,
    published,
    shown,
)
from harness.spi.errors import Error, InvalidParameter, MisuseError, NotFound, Unavailable
from harness.spi.locks import KeyedLocks
from harness.spi.objects import ImageFormat
from harness.spi.ports import Host
from harness.spi.runtime import Runtime

_log = logging.getLogger("harness.cloudstack.secondary")

INFO_SECONDS = 30.0


ISO_MARK = (0x8001, b"CD001")
"""Where ISO 9660 has its standard identifier: in the first volume descriptor, after its type."""


class SecondaryRole:
    """Safe for many tasks: one command at a time works on a path. Keeps nothing but the export's files."""

    def __init__(
        self, runtime: Runtime, host: Host, config: SecondaryConfig, downloads_url: Callable[[], str] | None = None
    ) -> None:
        """`downloads_url` tells where clients find what is published; None when nothing may be."""
        self._downloads_url = downloads_url
        self._runtime = runtime
        self._host = host
        self._config = config
        self._export = Export(Path(config.export_directory))
        self._locks = KeyedLocks(runtime, "image")

    def handle(self, command: AnyCommand) -> AnyAnswer:
        """Carry out one command; errors are answers, after which nothing new is on the export."""
        try:
            if isinstance(command, DownloadCommand):
                return self._download(command)
            if isinstance(command, DeleteCommand):
                return self._delete(command)
            if isinstance(command, CopyCommand):
                return self._copy(command)
            if isinstance(command, CreateEntityDownloadURLCommand):
                return self._publish(command)
            if isinstance(command, PingCommand):
                return PingAnswer(result=True, host_uuid="secondary", vms={})
            raise InvalidParameter(f"{type(command).__name__} is not for the secondary storage role")
        except MisuseError:
            raise
        except Error as error:
            text = _without_token(command, str(error))
            _log.warning("%s failed: %s", type(command).__name__, text)
            return Answer(result=False, details=text, error_class=error.error_class)

    def _download(self, command: DownloadCommand) -> DownloadAnswer:
        template = command.template
        if template.format is ImageFormat.RAW:
            raise InvalidParameter(f"templates of format {template.format} are not registered here, only QCOW2")
        path = template.path or f"template/tmpl/{template.id}/{template.uuid}.{template.format.lower()}"
        target = self._export.locate(path)
        deadline = self._runtime.monotonic() + command.wait
        with self._locks.hold(path, command.wait):
            # The file's name holds the template's uuid: if it is there, an earlier try of this command made it.
            if target.is_file():
                size = self._check(target, command)
            else:
                with self._export.writing(target) as (part, file):
                    fetch(command.url, file, self._config, lambda: self._runtime.monotonic() > deadline)
                    file.flush()
                    size = self._check(part, command)
            physical = target.stat().st_size
        _log.info("template %s: %s is at %s", template.uuid, shown(command.url), path)
        return DownloadAnswer(result=True, install_path=path, virtual_size=size, physical_size=physical)

    def _check(self, file: Path, command: DownloadCommand) -> int:
        """Virtual size of the image; raises `InvalidParameter` when it is not what it must be."""
        if command.checksum:
            check_sum(file, command.checksum, command.url)
        if command.template.format is ImageFormat.ISO and not is_iso(file):
            raise InvalidParameter(f"{shown(command.url)} is not an ISO 9660 image")
        size = self._size(file, command.template.format, shown(command.url))
        if not 0 < size <= self._config.max_virtual_bytes:
            raise InvalidParameter(
                f"{shown(command.url)} has a virtual size of {size} bytes;"
                f" 1 to {self._config.max_virtual_bytes} are allowed"
            )
        return size

    def _copy(self, command: CopyCommand) -> CopyCmdAnswer:
        path = command.destination.path
        if path is None or command.source.path is None:
            raise InvalidParameter("source and destination of a copy must both have a path")
        source, target = self._export.locate(command.source.path), self._export.locate(path)
        deadline = self._runtime.monotonic() + command.wait
        with self._locks.hold(path, command.wait):
            # Each copy has a file of its own: if it is there, an earlier try of this command made it.
            if target.is_file():
                size = self._size(target, ImageFormat.QCOW2, path)
            else:
                with self._export.writing(target) as (part, into):
                    self._pour(source, into, deadline)
                    into.flush()
                    size = self._size(part, ImageFormat.QCOW2, path)
            physical = target.stat().st_size
        return CopyCmdAnswer(result=True, path=path, size=size, physical_size=physical)

    def _pour(self, source: Path, into: IO[bytes], deadline: float) -> None:
        try:
            with source.open("rb") as opened:
                while chunk := opened.read(CHUNK):
                    into.write(chunk)
                    if self._runtime.monotonic() > deadline:
                        raise Unavailable(f"{source.name} was not copied in time")
        except FileNotFoundError:
            raise NotFound(f"{source.name} is not on the image store any more") from None

    def _size(self, file: Path, image_format: ImageFormat, name: str) -> int:
        """Virtual size of an image that a guest may be given; raises `InvalidParameter` for any other."""
        image = qemu_img.info(self._host, str(file), image_format, INFO_SECONDS)
        qemu_img.check_guest_image(image, name)
        return image.virtual_size

    def _publish(self, command: CreateEntityDownloadURLCommand) -> CreateEntityDownloadURLAnswer:
        if self._downloads_url is None:
            raise InvalidParameter("nothing can be downloaded here: downloads_listen is not set in the role's settings")
        check_token(command.token)
        name = published(command.token)
        self._export.publish(self._export.locate(command.path), self._export.locate(name))
        return CreateEntityDownloadURLAnswer(result=True, url=f"{self._downloads_url()}/{name}")

    def _delete(self, command: DeleteCommand) -> Answer:
        target = self._export.locate(command.path)
        with self._locks.hold(command.path, command.wait):
            self._export.delete(target)
        return Answer(result=True)


def _without_token(command: AnyCommand, text: str) -> str:
    """Errors name files, and the name of a published one is all that it takes to download it."""
    token = ""
    if isinstance(command, CreateEntityDownloadURLCommand):
        token = command.token
    elif isinstance(command, DeleteCommand) and command.path.startswith(f"{USERDATA}/"):
        token = PurePosixPath(command.path).stem
    return text.replace(token, "***") if token else text


def is_iso(file: Path) -> bool:
    place, mark = ISO_MARK
    with file.open("rb") as image:
        image.seek(place)
        return image.read(len(mark)) == mark
