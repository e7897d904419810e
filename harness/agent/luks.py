"""Encrypted volumes: what cryptsetup and qemu-img are asked (spec/cloudstack-plugin.md 4.24).

A passphrase goes to a program on its standard input, a file in memory that only the two know: never as an argument,
which every user of the host could read, and never as a file with a name.
"""

from __future__ import annotations

from harness.spi.errors import Conflict, Unavailable, Unknown
from harness.spi.objects import LUKS_HEADER
from harness.spi.passphrase import Passphrase
from harness.spi.ports import Host, Output

SECTOR = 512
LOOK_SECONDS = 30.0
# LUKS1, as QEMU's block driver and older hosts read it. The place of the data is given, so that a volume has exactly
# `LUKS_HEADER` bytes more than its guest sees, whatever the device's own alignment is. A passphrase has 256 random bits
# already: rounds that make guessing slow would add nothing to it, and slow each start.
_FORMAT = tuple(
    "cryptsetup luksFormat --batch-mode --type luks1 --cipher aes-xts-plain64 --key-size 512 --hash sha256"
    f" --offset {LUKS_HEADER // SECTOR} --pbkdf-force-iterations 10000 --key-file -".split()
)
_OPEN = ("cryptsetup", "open", "--test-passphrase", "--type", "luks1", "--key-file", "-")
_OPTIONS = ("-n", "-f", "raw", "-T", "none", "-t", "none", "--object", "secret,id=volume,file=/dev/stdin")
_WRITE = ("qemu-img", "convert", "-p", *_OPTIONS, "--target-image-opts")


def available(host: Host) -> bool:
    """Whether this host has the programs; never raises `Error`."""
    try:
        return host.run(("cryptsetup", "--version"), timeout=LOOK_SECONDS).rc == 0
    except (Unavailable, Unknown):
        return False


def format_device(host: Host, device: str, passphrase: Passphrase, timeout: float, operation: str) -> None:
    """Write a new LUKS header; what was on the device before cannot be read any more. Raises `Unavailable`."""
    _run(host, (*_FORMAT, device), passphrase, timeout, operation, f"{device} could not be made a LUKS volume")


def write(
    host: Host,
    source: str,
    device: str,
    passphrase: Passphrase,
    timeout: float,
    operation: str,
    output: Output | None = None,
) -> None:
    """Write what is on the block device `source` onto a LUKS volume, encrypted and flushed. Raises `Unavailable`.

    `output` hears how far it is.
    """
    target = f"driver=luks,key-secret=volume,file.driver=host_device,file.filename={device}"
    _run(
        host,
        (*_WRITE, source, target),
        passphrase,
        timeout,
        operation,
        f"qemu-img could not copy {source} onto the LUKS volume {device}",
        output,
    )


def check(host: Host, device: str, passphrase: Passphrase, timeout: float, operation: str) -> None:
    """Raises `Conflict` unless there is a LUKS header that the passphrase opens, `Unavailable` when that is not told
    within `timeout` seconds and `LOOK_SECONDS`."""
    limit = min(LOOK_SECONDS, timeout)
    try:
        # It has the device open: one that hangs when the agent dies must be found, or the volume stays attached.
        result = host.run((*_OPEN, device), stdin=passphrase.reveal(), timeout=limit, operation=operation)
    except Unknown as error:
        raise Unavailable(f"whether {device} is encrypted could not be read within {limit:g} s") from error
    if result.rc != 0:
        raise Conflict(f"{device} is no LUKS volume that its passphrase opens: {result.reason}")


def _run(
    host: Host,
    argv: tuple[str, ...],
    passphrase: Passphrase,
    timeout: float,
    operation: str,
    failed: str,
    output: Output | None = None,
) -> None:
    try:
        result = host.run(argv, stdin=passphrase.reveal(), timeout=timeout, operation=operation, output=output)
    except Unknown as error:
        raise Unavailable(f"{failed}: {argv[0]} did not end within {timeout:g} s and was killed") from error
    if result.rc != 0:
        raise Unavailable(f"{failed}: {result.reason}")
