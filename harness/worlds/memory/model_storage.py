"""What one model host stores on: devices of StorPool objects, files on NFS, and the disks that its QEMUs open of both.

Kinder than the real thing in that a read or write never fails and takes no time, and an NFS file is written whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from harness.spi.errors import Error, NotFound
from harness.spi.objects import PATH_PREFIX
from harness.worlds.memory.image import Image, ImageError, read_image
from harness.worlds.memory.model_domain import ModelDisk, ModelDomain, ModelDrive
from harness.worlds.memory.model_luks import HEADER_BYTES, Luks, LuksError, unlock

BY_NAME = "/dev/storpool/"
NFS = "nfs://"
STALE_BYTES = 512
"""What a device shows whose new size, or new object, the kernel has not taken note of."""


class Devices(Protocol):
    """Blocks whose devices and links a model can look at, open, read and write, and close."""

    def touch(self, key: int) -> None:
        """What has it open may have changed, so it is looked at again."""
        ...

    def size(self, key: int) -> int: ...

    def stored(self, key: int) -> int: ...

    def read(self, key: int, offset: int, length: int) -> bytes: ...

    def extents(self, key: int) -> Iterable[tuple[int, int]]: ...

    def write(self, key: int, offset: int, data: bytes) -> None: ...

    def links(self, client: int) -> dict[str, int]: ...

    def links_by_id(self, client: int) -> dict[str, int]: ...

    def read_only(self, key: int, client: int) -> bool: ...

    def open(self, key: int, client: int | None = None) -> None: ...

    def release(self, key: int, client: int | None = None) -> None: ...


class NfsFiles(Protocol):
    """Files on secondary storage and NFS pools, by the names that QEMU opens them by."""

    def read(self, name: str) -> bytes:
        """Raises `NotFound`."""
        ...

    def write(self, name: str, content: bytes, *, new: bool) -> None:
        """Raises `Unavailable`. Unless it is `new`, the file must be there: whoever deletes it ends the writing."""
        ...


class ModelStorage:
    """`client_id` is the host's in its StorPool cluster. Without `nfs` no file is there."""

    def __init__(self, blocks: Devices, client_id: int, nfs: NfsFiles | None) -> None:
        self.blocks = blocks
        self.secrets: dict[str, bytes] = {}
        """What libvirtd keeps in memory, by usage."""
        self._client_id = client_id
        self._nfs = nfs
        self._late: set[str] | None = None
        """While devices come late: names of those that were there before; others are not there yet."""
        self._stale: set[str] | None = None
        """While devices have a wrong size: names of those that were there before; others show an old size."""

    def devices(self) -> dict[str, int]:
        """Objects of all devices, also of those that are late, by StorPool's id."""
        return self.blocks.links_by_id(self._client_id)

    def key(self, path: str) -> int | None:
        """The object that a device path of this host leads to."""
        if path.startswith(PATH_PREFIX):
            name = path.removeprefix(PATH_PREFIX)
            if self._late is not None and name not in self._late:
                return None
            return self.devices().get(name)
        if path.startswith(BY_NAME):
            return self.blocks.links(self._client_id).get(path.removeprefix(BY_NAME))
        return None

    def device_size(self, path: str) -> int | None:
        """Bytes that the device shows, which are those of the object unless it is stale; None without a device."""
        key = self.key(path)
        if key is None:
            return None
        stale = self._stale is not None and path.removeprefix(PATH_PREFIX) not in self._stale
        return STALE_BYTES if stale else self.blocks.size(key)

    def devices_late(self) -> Callable[[], None]:
        """New devices do not come before what is returned is called, or the same befalls the host again."""
        there = self._late = set(self.devices())

        def show() -> None:
            if self._late is there:
                self._late = None

        return show

    def devices_stale(self) -> Callable[[], None]:
        """As `devices_late`, of devices that come with a wrong size."""
        there = self._stale = set(self.devices())

        def refresh() -> None:
            if self._stale is there:
                self._stale = None

        return refresh

    def header(self, key: int) -> bytes:
        """The beginning of an object, as far as a LUKS header goes."""
        return self.blocks.read(key, 0, min(HEADER_BYTES, self.blocks.size(key)))

    @contextmanager
    def opened(self, key: int) -> Iterator[None]:
        """A program of this host has the object open meanwhile."""
        self.blocks.open(key, self._client_id)
        try:
            yield
        finally:
            self.blocks.release(key, self._client_id)

    def medium(self, drive: ModelDrive | None) -> bytes:
        """What QEMU reads in the CD drive when it is given its image; nothing when it is empty."""
        if drive is None or drive.image is None:
            return b""
        try:
            return self._nfs_file(drive.image)
        except NotFound as error:
            raise Error(f"internal error: qemu unexpectedly closed the monitor: {error}") from error

    def open(self, disk: ModelDisk) -> None:
        """QEMU opens the disk's device, or file, for writing."""
        if disk.source.startswith(NFS):
            disk.size = self._file_image(disk).size
            disk.file_open = True
            return
        key = self.key(disk.source)
        if key is None:
            raise Error(f"Cannot access storage file '{disk.source}': No such file or directory")
        if self.blocks.read_only(key, self._client_id):
            raise Error(f"Could not open '{disk.source}': Read-only file system")
        if disk.secret is not None:
            disk.luks = self._unlock(disk, key)
        self.blocks.open(key, self._client_id)
        disk.key = key
        disk.size = self.guest_size(disk)

    def open_all(self, domain: ModelDomain) -> None:
        """Every disk of the domain, or none."""
        opened: list[ModelDisk] = []
        try:
            for disk in domain.disks:
                self.open(disk)
                opened.append(disk)
        except Error:
            for disk in opened:
                self.close(disk)
            raise

    def close(self, disk: ModelDisk) -> None:
        disk.file_open = False
        if disk.key is not None:
            self.blocks.release(disk.key, self._client_id)
            disk.key = disk.luks = None

    def guest_size(self, disk: ModelDisk) -> int:
        """Bytes of the disk's device, at this moment, that are the guest's."""
        return (self.device_size(disk.source) or 0) - disk.overhead

    def touch(self, domain: ModelDomain) -> None:
        """Another of its QEMUs may write to its disks now."""
        for disk in domain.disks:
            if disk.key is not None:
                self.blocks.touch(disk.key)

    def read(self, disk: ModelDisk, offset: int, length: int) -> bytes:
        """What the guest reads of a disk that is open."""
        if disk.file_open:
            return self._file_image(disk).read(offset, length)
        assert disk.key is not None, "it is open"
        data = self.blocks.read(disk.key, offset + disk.overhead, length)
        return data if disk.luks is None else disk.luks.crypt(offset, data)

    def write(self, disk: ModelDisk, offset: int, data: bytes) -> None:
        if disk.file_open and self._nfs is not None:
            self._nfs.write(disk.source, self._file_image(disk).written(offset, data).qcow2(), new=False)
            return
        assert disk.key is not None, "it is open"
        stored = data if disk.luks is None else disk.luks.crypt(offset, data)
        self.blocks.write(disk.key, offset + disk.overhead, stored)

    def _nfs_file(self, name: str) -> bytes:
        """Raises `NotFound`."""
        if self._nfs is None:
            raise NotFound(f"{name}: No such file or directory")
        return self._nfs.read(name)

    def _file_image(self, disk: ModelDisk) -> Image:
        """What is in the file of a disk on an NFS pool, in the format that the domain says."""
        try:
            return read_image(self._nfs_file(disk.source), disk.format)
        except (NotFound, ImageError) as error:
            raise Error(f"internal error: process exited while connecting to monitor: {error}") from error

    def _unlock(self, disk: ModelDisk, key: int) -> Luks:
        passphrase = self.secrets.get(disk.secret or "")
        if passphrase is None:
            raise Error(f"Secret not found: no secret with matching usage '{disk.secret}'")
        try:
            return unlock(self.header(key), passphrase)
        except LuksError as error:
            raise Error(f"internal error: unable to open '{disk.source}': {error}") from error
