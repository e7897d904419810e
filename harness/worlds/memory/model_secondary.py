"""The secondary storage machine: an NFS export in memory, the web server templates come from, and its role.

Kinder than the real role (harness/cloudstack/secondary): what that copies or downloads is there at once, never in part.
"""

from __future__ import annotations

import hashlib
from posixpath import normpath

from harness.spi.commands import (
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
    published,
)
from harness.spi.errors import Error, InvalidParameter, NotFound, Unavailable
from harness.spi.runtime import Runtime
from harness.worlds.memory.image import ImageError, read_image

DIRECTORIES = ("snapshots", "template/tmpl/2", "volumes", "primary")
"""Those that are always there: QEMU's NFS client makes none."""
WEB = "http://secondary"
"""Where what was published is downloaded from."""


class ModelExport:
    """An NFS export and a web server beside it. They outlive every process."""

    def __init__(self, url: str) -> None:
        self.url = url
        """`nfs://host/export`."""
        self.files: dict[str, bytes] = {}
        """Contents by path relative to the export."""
        self.served: dict[str, bytes] = {}
        """Contents by URL, for registration."""
        self.stalls = 0
        """How many reasons there are for which the NFS server does not answer."""
        self.full = 0
        """How many reasons there are for which nothing more can be written."""

    def read(self, name: str) -> bytes:
        """Contents of the file with this NFS name; `NotFound` when there is none or the server does not answer."""
        if self.stalls:
            raise NotFound(f"{name}: Failed to mount NFS share: timed out")
        path = name.removeprefix(self.url + "/")
        if not name.startswith(self.url + "/") or path not in self.files:
            raise NotFound(f"{name}: No such file or directory")
        return self.files[path]

    def page(self, url: str) -> bytes | None:
        """What the web server that templates come from has at the URL."""
        return self.served.get(url)

    def download(self, url: str) -> bytes | None:
        """What a client gets from the web server that serves what was published."""
        return self.files.get(url.removeprefix(WEB + "/")) if url.startswith(f"{WEB}/userdata/") else None

    def write(self, name: str, content: bytes, *, new: bool) -> None:
        """What qemu-img writes; a file that was deleted since it began is not made again, as with NFS's handles."""
        if self.stalls:
            raise Unavailable(f"{name}: Failed to mount NFS share: timed out")
        path = name.removeprefix(self.url + "/")
        if not name.startswith(self.url + "/") or path.rpartition("/")[0] not in DIRECTORIES:
            raise Unavailable(f"{name}: No such file or directory")
        if self.full:
            raise Unavailable(f"{name}: No space left on device")
        if not new and path not in self.files:
            raise Unavailable(f"{name}: Stale file handle")
        self.files[path] = content


class ModelSecondaryRole:
    """Registers and deletes images beside the export, as the secondary storage VM does. One a process."""

    def __init__(self, runtime: Runtime, export: ModelExport) -> None:
        self._runtime = runtime
        self._export = export

    def handle(self, command: AnyCommand) -> AnyAnswer:
        """Carry out one command; every error is an answer."""
        try:
            if isinstance(command, DownloadCommand):
                return self._download(command)
            if isinstance(command, DeleteCommand):
                return self._delete(command)
            if isinstance(command, CopyCommand):
                return self._copy(command)
            if isinstance(command, CreateEntityDownloadURLCommand):
                return self._publish(command)
            raise InvalidParameter(f"{type(command).__name__} is not for the secondary storage role")
        except Error as error:
            return Answer(result=False, details=str(error), error_class=error.error_class)

    def _download(self, command: DownloadCommand) -> DownloadAnswer:
        template = command.template
        path = check_path(template.path or f"template/tmpl/{template.id}/{template.uuid}.{template.format.qemu}")
        self._runtime.point("effect-begin", "secondary: download")
        content = self._export.served.get(command.url)
        if content is None:
            raise NotFound(f"{command.url} answers 404 Not Found; check the template's URL")
        _check_sum(content, command)
        try:
            image = read_image(content, template.format.lower())
        except ImageError as error:
            raise InvalidParameter(f"{command.url} is not a {template.format} image: {error}") from error
        self._check_export(path)
        self._export.files[path] = content
        self._runtime.point("effect-end", "secondary: download")
        return DownloadAnswer(result=True, install_path=path, virtual_size=image.size, physical_size=len(content))

    def _copy(self, command: CopyCommand) -> CopyCmdAnswer:
        source, path = check_path(command.source.path or ""), check_path(command.destination.path or "")
        self._runtime.point("effect-begin", "secondary: copy")
        self._check_export(path)
        content = self._export.files.get(source)
        if content is None:
            raise NotFound(f"{source} is not on the image store any more")
        self._export.files.setdefault(path, content)
        self._runtime.point("effect-end", "secondary: copy")
        image = read_image(self._export.files[path], "qcow2")
        return CopyCmdAnswer(result=True, path=path, size=image.size, physical_size=len(content))

    def _publish(self, command: CreateEntityDownloadURLCommand) -> CreateEntityDownloadURLAnswer:
        path, link = check_path(command.path), published(command.token)
        self._runtime.point("effect-begin", "secondary: publish")
        self._check_export(path)
        if path not in self._export.files:
            raise NotFound(f"{path} is not on the image store, so it cannot be downloaded")
        self._export.files[link] = self._export.files[path]
        self._runtime.point("effect-end", "secondary: publish")
        return CreateEntityDownloadURLAnswer(result=True, url=f"{WEB}/{link}")

    def _check_export(self, path: str) -> None:
        if self._export.stalls or self._export.full:
            said = "No space left on device" if self._export.full else "the export does not answer"
            raise Unavailable(f"{path} was not written: {said}")

    def _delete(self, command: DeleteCommand) -> Answer:
        path = check_path(command.path)
        self._runtime.point("effect-begin", "secondary: delete")
        if self._export.stalls:
            raise Unavailable(f"{path} was not deleted: the export does not answer")
        self._export.files.pop(path, None)
        return Answer(result=True)


def _check_sum(content: bytes, command: DownloadCommand) -> None:
    if not command.checksum:
        return
    method, _, wanted = command.checksum.rpartition("}")
    kind = method.removeprefix("{").replace("-", "").lower() or {32: "md5", 64: "sha256"}.get(len(wanted), "sha1")
    try:
        seen = hashlib.new(kind, content, usedforsecurity=False).hexdigest()
    except ValueError:
        raise InvalidParameter(f"checksum {command.checksum} is of an unknown kind") from None
    if seen != wanted.lower():
        raise InvalidParameter(f"{command.url} has {kind} {seen}, expected {wanted}; was the image changed?")


def check_path(path: str) -> str:
    """The path in its plain form; raises `InvalidParameter` when it is absolute or leaves the export."""
    plain = normpath(path)
    if not path or "\0" in path or plain.startswith(("/", "../")) or plain in (".", ".."):
        raise InvalidParameter(f"path {path!r} leaves the image store or names nothing in it")
    return plain
