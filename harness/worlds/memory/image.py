"""Disk images of the model machine: qcow2 with a real header and a simple body, and raw. Sizes are bytes.

A body of extents instead of QEMU's cluster tables keeps images small and quick; the header is enough for a wrong
explicit format to be noticed as qemu-img notices it.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from dataclasses import dataclass

from harness.runtime.generator import Generator

_HEADER = struct.Struct(">4sIQIIQ")
"""Magic, version, offset and size of the backing file's name, cluster bits, virtual size: as in the qcow2 format."""
_EXTENT = struct.Struct(">QQ")
_MAGIC = b"QFI\xfb"

BOOT_MAGIC = b"splab model guest, boot sector\n"
"""What the first disk of a guest must begin with, or the guest does not boot."""

IDLE_MAGIC = b"splab idle guest, boot sector\n"
"""What the first disk of a VM with an idle guest begins with."""

ISO_MAGIC = b"splab model ISO 9660\n"
"""What an image in a CD drive must begin with, or no guest boots from it."""

MIB = 1 << 20


class ImageError(Exception):
    """The bytes are no image of the format they were said to be; qemu-img's words."""


@dataclass(frozen=True, slots=True)
class Image:
    """A guest's disk: its size and the parts that are not zero."""

    size: int
    extents: tuple[tuple[int, bytes], ...]

    def qcow2(self) -> bytes:
        parts = [_HEADER.pack(_MAGIC, 3, 0, 0, 16, self.size)]
        for offset, data in self.extents:
            parts += [_EXTENT.pack(offset, len(data)), data]
        return b"".join(parts)

    def read(self, offset: int, length: int) -> bytes:
        found = bytearray(length)
        for start, data in self.extents:
            first, last = max(start, offset), min(start + len(data), offset + length)
            if first < last:
                found[first - offset : last - offset] = data[first - start : last - start]
        return bytes(found)

    def written(self, offset: int, data: bytes) -> Image:
        """The disk after a write."""
        end = offset + len(data)
        kept = [(offset, data)]
        for start, before in self.extents:
            if start < offset:
                kept.append((start, before[: offset - start]))
            if start + len(before) > end:
                kept.append((max(start, end), before[max(0, end - start) :]))
        return Image(self.size, tuple(sorted(kept)))

    def raw(self) -> bytes:
        disk = bytearray(self.size)
        for offset, data in self.extents:
            disk[offset : offset + len(data)] = data
        return bytes(disk)


def read_image(content: bytes, image_format: str) -> Image:
    """The disk in a file, read as `image_format` and as nothing else."""
    if image_format == "iso":
        if not content.startswith(ISO_MAGIC):
            raise ImageError("the file is no ISO 9660 image")
        image_format = "raw"
    if image_format == "raw":
        padded = -len(content) % 512
        return Image(len(content) + padded, ((0, content),) if content else ())
    if image_format != "qcow2":
        raise ImageError(f"Unknown driver '{image_format}'")
    if len(content) < _HEADER.size or content[:4] != _MAGIC:
        raise ImageError("Image is not in qcow2 format")
    size = int(_HEADER.unpack_from(content)[5])
    extents = []
    position = _HEADER.size
    while position < len(content):
        if position + _EXTENT.size > len(content):
            raise ImageError("Could not read qcow2 body: it ends too early")
        offset, length = _EXTENT.unpack_from(content, position)
        position += _EXTENT.size
        data = content[position : position + length]
        if len(data) != length or offset + length > size:
            raise ImageError("Could not read qcow2 body: an extent is cut off or leaves the disk")
        extents.append((offset, data))
        position += length
    return Image(size, tuple(extents))


@functools.cache
def guest_image() -> Image:
    """The image that the model guest boots: a boot sector, something in the middle, and the last bytes of the disk."""
    generator = Generator.of(0, "guest image")
    size = 4 * MIB
    return Image(
        size,
        (
            (0, BOOT_MAGIC.ljust(512, b"\0") + generator.bytes(3584)),
            (MIB + 512, generator.bytes(10_000)),
            (size - 4096, generator.bytes(4096)),
        ),
    )


@functools.cache
def idle_image() -> Image:
    """The boot sector of an idle guest, and a pattern at the end of each half of a disk of the guest image's size."""
    generator, size = Generator.of(0, "idle image"), guest_image().size
    pattern = tuple((end - 8192, generator.bytes(8192)) for end in (size // 2, size))
    return Image(size, ((0, IDLE_MAGIC.ljust(512, b"\0")), *pattern))


@functools.cache
def guest_iso() -> bytes:
    """An ISO that the model guest boots."""
    return ISO_MAGIC.ljust(2048, b"\0") + Generator.of(0, "guest ISO").bytes(6144)


@functools.cache
def guest_image_sha256() -> str:
    """Of the guest disk's bytes."""
    return hashlib.sha256(guest_image().raw()).hexdigest()


@functools.cache
def idle_image_sha256() -> str:
    """Of the idle guest's disk's bytes."""
    return hashlib.sha256(idle_image().raw()).hexdigest()
