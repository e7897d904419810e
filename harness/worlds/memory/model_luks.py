"""LUKS1 of the model machine: a header with the real one's first fields, and data that no key but the right one reads.

The cipher is a stand-in, a stream of bytes that follows from master key and place: enough for what was never encrypted,
or encrypted with another key, to show. As with the real one, what was never written reads as noise.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import struct
from dataclasses import dataclass

from harness.spi.objects import LUKS_HEADER

MAGIC = b"LUKS\xba\xbe"
_FIELDS = struct.Struct(">6sH32s32s32sII")
"""Magic, version, cipher, mode, hash, sector of the data, bytes of a key: as in the LUKS1 format."""
_SLOT = 4096
"""Where this model keeps the salt of the passphrase, the wrapped master key and its digest."""
KEY = 32
RANDOM_BYTES = 2 * KEY
HEADER_BYTES = _SLOT + 3 * KEY
SECTOR = 512
_PAGE = 4096


class LuksError(Exception):
    """QEMU's words for a volume that cannot be opened."""


@dataclass(frozen=True, slots=True)
class Luks:
    """An opened volume. Offsets are the guest's."""

    master: bytes

    def crypt(self, offset: int, data: bytes) -> bytes:
        """Encrypt, or decrypt, what stands at `offset`."""
        if not data:
            return b""
        first, start = divmod(offset, _PAGE)
        last = (offset + len(data) - 1) // _PAGE
        stream = b"".join(_stream(self.master, page) for page in range(first, last + 1))[start : start + len(data)]
        return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(data), "big")


def new_header(passphrase: bytes, random: bytes) -> bytes:
    """The beginning of a volume that this passphrase opens; `random` has `RANDOM_BYTES`."""
    salt, master = random[:KEY], random[KEY:]
    fields = _FIELDS.pack(MAGIC, 1, b"aes", b"xts-plain64", b"sha256", LUKS_HEADER // SECTOR, 64)
    return fields.ljust(_SLOT, b"\0") + salt + _wrap(passphrase, salt, master) + hashlib.sha256(master).digest()


def unlock(header: bytes, passphrase: bytes) -> Luks:
    """Open a volume by its first `HEADER_BYTES`; raises `LuksError`."""
    if not header.startswith(MAGIC):
        raise LuksError("Volume is not in LUKS format")
    salt, wrapped, digest = (header[_SLOT + n * KEY : _SLOT + (n + 1) * KEY] for n in range(3))
    master = _wrap(passphrase, salt, wrapped)
    if not hmac.compare_digest(hashlib.sha256(master).digest(), digest):
        raise LuksError("Invalid password, cannot unlock any keyslot")
    return Luks(master)


def _wrap(passphrase: bytes, salt: bytes, key: bytes) -> bytes:
    mask = hashlib.sha256(salt + passphrase).digest()
    return bytes(one ^ other for one, other in zip(key, mask, strict=True))


@functools.lru_cache(4096)
def _stream(master: bytes, page: int) -> bytes:
    return hashlib.shake_256(master + page.to_bytes(8, "big")).digest(_PAGE)
