"""qemu-img command lines and answers. Formats are always given; nothing is probed (weakness 7)."""

from __future__ import annotations

import msgspec

from harness.spi.errors import InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.objects import ImageFormat
from harness.spi.ports import CommandResult, Host, Output

INFO_SECONDS = 60.0
"""How long a look at an image's header may take at most."""


class ImageInfo(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """What `qemu-img info --output=json` says of an image; sizes are bytes."""

    virtual_size: int
    format: str
    actual_size: int = 0
    backing_filename: str | None = None
    full_backing_filename: str | None = None
    encrypted: bool = False
    format_specific: FormatSpecific | None = None


class FormatData(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    data_file: str | None = None


class FormatSpecific(msgspec.Struct, frozen=True, kw_only=True):
    data: FormatData | None = None


def info(host: Host, file: str, image_format: ImageFormat, timeout: float) -> ImageInfo:
    """Read an image's header, within `timeout` seconds and `INFO_SECONDS`. Raises `InvalidParameter` when it is not
    what it was said to be, `NotFound` when there is none, `Unavailable` when that cannot be told.
    """
    argv = ("qemu-img", "info", "--output=json", "-f", image_format.qemu, file)
    result = _run(host, argv, min(INFO_SECONDS, timeout))
    if result.rc != 0:
        reason = result.reason
        if "not in" in reason and "format" in reason:
            raise InvalidParameter(f"{reason} ({file}); register the template with its real format")
        if "No such file" in reason or "NFS3ERR_NOENT" in reason or "NFS4ERR_NOENT" in reason:
            raise NotFound(f"{file} is missing on the image store: {reason}")
        raise Unavailable(f"{file} cannot be read: {reason}; is the image store reachable from this host?")
    try:
        return msgspec.json.decode(result.stdout, type=ImageInfo)
    except msgspec.DecodeError as error:
        raise Unavailable(f"qemu-img info of {file} did not print what it should: {error}") from error


def check_guest_image(image: ImageInfo, file: str) -> None:
    """Refuse an image that would make this host open other files: it could be any file of the host."""
    if image.backing_filename or image.full_backing_filename:
        raise InvalidParameter(f"{file} has a backing file; flatten it with qemu-img convert before registering it")
    if image.format_specific and image.format_specific.data and image.format_specific.data.data_file:
        raise InvalidParameter(f"{file} has an external data file; flatten it with qemu-img convert first")
    if image.encrypted:
        raise InvalidParameter(f"{file} is encrypted; decrypt it before registering it as a template")


def convert_to_device(
    host: Host,
    file: str,
    image_format: ImageFormat,
    device: str,
    timeout: float,
    operation: str,
    output: Output | None = None,
) -> None:
    """Write the guest's disk onto an existing block device, past the page cache, and flush it.

    `output` hears how far it is (`harness.agent.progress`).

    -t none: with qemu-img's default cache mode a flush does nothing. Raises `Unavailable` when it failed or was killed
    after `timeout` seconds; the device then holds part of the image.
    """
    argv = ("qemu-img", "convert", "-p", "-n", "-f", image_format.qemu, "-O", "raw", "-t", "none", file, device)
    result = _run(host, argv, timeout, operation, output)
    if result.rc != 0:
        raise Unavailable(f"qemu-img could not copy {file} to {device}: {result.reason}")


def convert_from_device(
    host: Host,
    device: str,
    file: str,
    image_format: ImageFormat,
    timeout: float,
    operation: str,
    output: Output | None = None,
) -> None:
    """Write what is on a block device into a new image, and flush it. What a guest wrote is never taken for a header.

    `output` hears how far it is.

    -T none: past the page cache, which may hold what another object had at that device. -t writeback: qemu-img's
    default cache mode never flushes. Raises `Unavailable`; the file then holds part of the disk.
    """
    options = ("-f", "raw", "-O", image_format.qemu, "-T", "none", "-t", "writeback")
    argv = ("qemu-img", "convert", "-p", *options, device, file)
    result = _run(host, argv, timeout, operation, output)
    if result.rc != 0:
        raise Unavailable(f"qemu-img could not copy {device} to {file}: {result.reason}")


def create(host: Host, file: str, image_format: ImageFormat, size: int, timeout: float) -> None:
    """Make a new image of this virtual size. A file of the name is overwritten: look first. Raises `Unavailable`."""
    argv = ("qemu-img", "create", "-q", "-f", image_format.qemu, file, str(size))
    result = _run(host, argv, timeout)
    if result.rc != 0:
        raise Unavailable(f"qemu-img could not make {file}: {result.reason}")


def is_missing(host: Host, file: str, image_format: ImageFormat, timeout: float) -> bool:
    """Whether there is no file of this name. Raises `Unavailable` when the image store does not tell."""
    try:
        info(host, file, image_format, timeout)
    except NotFound:
        return True
    except InvalidParameter:
        pass
    return False


def _run(
    host: Host,
    argv: tuple[str, ...],
    timeout: float,
    operation: str | None = None,
    output: Output | None = None,
) -> CommandResult:
    try:
        return host.run(argv, timeout=timeout, operation=operation, output=output)
    except Unknown as error:
        raise Unavailable(
            f"{' '.join(argv[:2])} of {argv[-1]} did not end within {timeout:g} s and was killed; "
            "is the image store reachable, or is the time allowed too short?"
        ) from error
