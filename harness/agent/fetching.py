"""Images that this host fetches itself, with curl. URLs may hold secrets, so they go to its standard input.

A file is named after the operation it is fetched for, so that the next agent finds it.
"""

from __future__ import annotations

import re
import signal
import struct
from urllib.parse import urlsplit

from harness.agent.checksum import Checksum, parse_checksum
from harness.agent.config import AgentConfig
from harness.agent.deadline import Deadline
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


def virtual_size(host: Host, config: AgentConfig, url: str, timeout: float) -> int:
    """Bytes of the disk in the qcow2 at the URL, from its header; raises `InvalidParameter` when it is none."""
    options = (*_options(int(timeout)), "--range", f"0-{HEADER.size - 1}", "--config", "-")
    argv = ("sh", "-c", HEAD_SCRIPT, str(HEADER.size), *options)
    result = _run(host, argv, url, timeout + 5, None, stdin=_curl_config(url))
    if len(result.stdout) < HEADER.size and result.stderr:
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


def fetch(host: Host, config: AgentConfig, url: str, checksum: str | None, operation: str, deadline: Deadline) -> str:
    """The file with the image, checked; the caller removes it. Raises `Unavailable`, `NotFound`, `InvalidParameter`."""
    wanted = parse_checksum(checksum, shown(url)) if checksum else None
    file = file_of(config, operation)
    limit = config.max_download_bytes
    # curl itself knows how long an image is only when its server says so. One that is too long leaves no core: that
    # would hold the URL.
    argv = ("prlimit", "--core=0", f"--fsize={limit}", "curl", *_options(int(deadline.remaining)))
    argv += ("--max-filesize", str(limit), "--create-dirs", "--output", file, "--config", "-")
    result = _run(host, argv, url, deadline.remaining, operation, stdin=_curl_config(url))
    if result.rc == -signal.SIGXFSZ:
        raise Unavailable(f"{shown(url)} is longer than {limit} bytes, which is all that host {config.host_name} takes")
    if result.rc != 0:
        raise _failed(result, url, config.host_name)
    if wanted is not None:
        _check(host, file, url, wanted, deadline, operation)
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


def _check(host: Host, file: str, url: str, wanted: Checksum, deadline: Deadline, operation: str) -> None:
    result = _run(host, (f"{wanted.method}sum", file), url, deadline.remaining, operation)
    if result.rc != 0:
        raise Unavailable(f"the checksum of {shown(url)} could not be made: {result.reason}")
    wanted.check(result.stdout.decode(errors="replace").partition(" ")[0], shown(url))


def _run(
    host: Host, argv: tuple[str, ...], url: str, timeout: float, operation: str | None, stdin: bytes = b""
) -> CommandResult:
    try:
        return host.run(argv, stdin=stdin, timeout=timeout, operation=operation)
    except Unknown as error:
        raise Unavailable(f"work on {shown(url)} did not end within {timeout:g} s and was killed") from error


def _options(seconds: int) -> tuple[str, ...]:
    return (
        # First, or root's own .curlrc is read.
        "--disable",
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
