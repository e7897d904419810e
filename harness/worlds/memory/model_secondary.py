"""Image stores in memory, the web server that templates come from, and how a KVM host reaches a store's files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from posixpath import normpath

from harness.spi.errors import InvalidParameter, NotFound, Unavailable
from harness.spi.objects import DataStore
from harness.spi.runtime import Runtime

SCHEME = "nfs://"


class ModelExport:
    """An NFS export and a web server beside it. They outlive every process."""

    def __init__(self, url: str) -> None:
        self.url = url
        """`nfs://host/export`."""
        self.files: dict[str, bytes] = {}
        """Contents by path relative to the export."""
        self.served: dict[str, bytes] = {}
        """Contents by URL, for registration."""
        self.reachable = True

    def read(self, name: str) -> bytes:
        """Contents of the file with this NFS name; `NotFound` when there is none."""
        path = name.removeprefix(self.url + "/")
        if not name.startswith(self.url + "/") or path not in self.files:
            raise NotFound(f"{name}: No such file or directory")
        return self.files[path]


class ModelSecondary:
    """`harness.spi.ports.Secondary` of one agent, over exports by their URL."""

    def __init__(self, runtime: Runtime, *exports: ModelExport) -> None:
        self._runtime = runtime
        self._exports = {export.url: export for export in exports}

    @contextmanager
    def file(self, store: DataStore, path: str) -> Iterator[str]:
        if store.provider != "NFS" or not store.url.startswith(SCHEME):
            raise InvalidParameter(f"image store {store.name} is {store.provider} at {store.url}, not NFS")
        if check_path(path) != path:
            raise InvalidParameter(f"path {path!r} of image store {store.name} is not in its plain form")
        self._runtime.point("effect-begin", f"open {store.url}")
        export = self._exports.get(store.url.rstrip("/"))
        if export is None or not export.reachable:
            raise Unavailable(f"image store {store.name} at {store.url} cannot be reached; is its NFS server up?")
        yield f"{export.url}/{path}"


def check_path(path: str) -> str:
    """The path in its plain form; raises `InvalidParameter` when it is absolute or leaves the export."""
    plain = normpath(path)
    if not path or "\0" in path or plain.startswith(("/", "../")) or plain in (".", ".."):
        raise InvalidParameter(f"path {path!r} leaves the image store or names nothing in it")
    return plain
