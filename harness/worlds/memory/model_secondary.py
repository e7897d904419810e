"""The secondary storage machine: an NFS export in memory, the web server templates come from, and its role."""

from __future__ import annotations

import hashlib
from posixpath import normpath

from harness.spi.commands import Answer, AnyAnswer, AnyCommand, DeleteCommand, DownloadAnswer, DownloadCommand
from harness.spi.errors import Error, InvalidParameter, NotFound, Unavailable
from harness.spi.runtime import Runtime
from harness.worlds.memory.image import ImageError, read_image


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

    def write(self, name: str, content: bytes, *, new: bool) -> None:
        """What qemu-img writes; a file that was deleted since it began is not made again, as with NFS's handles."""
        if self.stalls:
            raise Unavailable(f"{name}: Failed to mount NFS share: timed out")
        path = name.removeprefix(self.url + "/")
        if not name.startswith(self.url + "/"):
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
        if self._export.stalls or self._export.full:
            said = "No space left on device" if self._export.full else "the export does not answer"
            raise Unavailable(f"{path} was not written: {said}")
        self._export.files[path] = content
        self._runtime.point("effect-end", "secondary: download")
        return DownloadAnswer(result=True, install_path=path, virtual_size=image.size, physical_size=len(content))

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
