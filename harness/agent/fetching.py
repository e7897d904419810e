"""Images that this host fetches itself, with curl. URLs may hold secrets, so they go to its standard input.

A file is named after the operation it is fetched for, so that the next agent finds it.
"""

from __future__ import annotations

import re
import signal
import struct
from urllib.parse import urlsplit

from harness.agent.config import AgentConfig
from harness.spi.commands import shown
from harness.spi.errors import InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.ports import CommandResult, Host

CONNECT_SECONDS = 15
STALL_SECONDS = 60
"""After which a server that sends nothing is given up."""
HEADER = struct.Struct(">4sIQIIQ")
"""Of a qcow2: magic, version, offset and size of the backing file's name, cluster bits, bytes of the disk."""
MAGIC = b"QFI\xfb"
_MISSING = re.compile(r"\(22\) .* error: 4\d\d")
"""What curl says of an HTTP status that is no use to try again; one from 500 on may be gone next time."""
HEAD_SCRIPT = 'curl "$@" | head -c "$0"'
"""A server that knows no ranges would send all of it."""
_DIGESTS = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}
_NAMED = re.compile(r"\{([A-Za-z0-9-]+)\}([0-9a-fA-F]+)")


def virtual_size(host: Host, config: AgentConfig, url: str, timeout: float) -> int:
    """Bytes of the disk in the qcow2 at the URL, from its header; raises `InvalidParameter` when it is none."""
    options = (*_options(int(timeout)), "--range", f"0-{HEADER.size - 1}", "--config", "-")
    argv = ("sh", "-c", HEAD_SCRIPT, str(HEADER.size), *options)
    result = _run(host, argv, url, timeout + 5, None, stdin=_curl_config(url))
    if not result.stdout:
        raise _failed(result, url, config.host_name)
    if len(result.stdout) < HEADER.size or result.stdout[:4] != MAGIC:
        raise InvalidParameter(f"{shown(url)} is not a QCOW2 image")
    _, _, backing, _, _, size = HEADER.unpack(result.stdout[: HEADER.size])
    if backing:
        raise InvalidParameter(f"{shown(url)} has a backing file; flatten it with qemu-img convert first")
    if size <= 0 or size % 512:
        raise InvalidParameter(f"{shown(url)} is a disk of {size} bytes, which is no size of a disk")
    return int(size)


def file_of(config: AgentConfig, operation: str) -> str:
    """Where the image of this operation is while it is worked on."""
    return f"{config.download_directory}/{operation}.image"


def fetch(host: Host, config: AgentConfig, url: str, checksum: str | None, operation: str, timeout: float) -> str:
    """The file with the image, checked; the caller removes it. Raises `Unavailable`, `NotFound`, `InvalidParameter`."""
    file = file_of(config, operation)
    limit = config.max_download_bytes
    # curl itself knows how long an image is only when its server says so.
    argv = ("prlimit", f"--fsize={limit}", "curl", *_options(int(timeout)), "--max-filesize", str(limit))
    argv += ("--create-dirs", "--output", file, "--config", "-")
    result = _run(host, argv, url, timeout, operation, stdin=_curl_config(url))
    if result.rc == -signal.SIGXFSZ:
        raise Unavailable(f"{shown(url)} is longer than {limit} bytes, which is all that host {config.host_name} takes")
    if result.rc != 0:
        raise _failed(result, url, config.host_name)
    if checksum:
        _check(host, file, url, checksum, timeout, operation)
    return file


def check_url(url: str) -> None:
    """Raises `InvalidParameter` for what no host fetches."""
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise InvalidParameter(f"{shown(url)}: hosts fetch http and https URLs only") from None
    if not named or parts.scheme.lower() not in ("http", "https") or not url.isprintable() or '"' in url or "\\" in url:
        raise InvalidParameter(f"{shown(url)}: hosts fetch http and https URLs only")


def _check(host: Host, file: str, url: str, checksum: str, timeout: float, operation: str) -> None:
    named = _NAMED.fullmatch(checksum)
    wanted = (named[2] if named else checksum).lower()
    method = named[1].lower().replace("-", "") if named else _DIGESTS.get(len(wanted), "")
    if method not in _DIGESTS.values():
        raise InvalidParameter(f"checksum of {shown(url)}: give {{SHA-256}} and 64 hexadecimal digits")
    result = _run(host, (f"{method}sum", file), url, timeout, operation)
    found = result.stdout.decode(errors="replace").partition(" ")[0]
    if result.rc != 0:
        raise Unavailable(f"the checksum of {shown(url)} could not be made: {result.reason}")
    if found != wanted:
        raise InvalidParameter(f"{shown(url)} has {method} {found}, expected {wanted}; was the image changed?")


def _run(
    host: Host, argv: tuple[str, ...], url: str, timeout: float, operation: str | None, stdin: bytes = b""
) -> CommandResult:
    try:
        return host.run(argv, stdin=stdin, timeout=timeout, operation=operation)
    except Unknown as error:
        raise Unavailable(f"work on {shown(url)} did not end within {timeout:g} s and was killed") from error


def _options(seconds: int) -> tuple[str, ...]:
    return (
        "--silent",
        "--show-error",
        "--fail",
        "--location",
        "--globoff",
        "--proto",
        "=http,https",
        "--connect-timeout",
        str(CONNECT_SECONDS),
        "--speed-time",
        str(STALL_SECONDS),
        "--speed-limit",
        "1",
        "--max-time",
        str(max(1, seconds)),
    )


def _curl_config(url: str) -> bytes:
    check_url(url)
    return f'url = "{url}"\n'.encode()


def _failed(result: CommandResult, url: str, host_name: str) -> NotFound | Unavailable:
    reason = result.reason
    if _MISSING.search(reason):
        return NotFound(f"{shown(url)} cannot be fetched: {reason}; check the template's URL")
    return Unavailable(f"host {host_name} cannot fetch {shown(url)}: {reason}")
