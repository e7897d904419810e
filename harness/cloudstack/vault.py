"""Encrypts what the records must not hold in the clear, as CloudStack's database encryption does.

CloudStack's table `passphrase` holds AES-GCM under a key of its configuration; so does this one. Whoever has the
database without the key learns nothing of a passphrase; a text that was changed, or put into another row, is refused.
"""

from __future__ import annotations

import base64

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from harness.spi.errors import InvalidParameter
from harness.spi.runtime import Runtime

NONCE_BYTES = 12
KEY_BYTES = 32


class Vault:
    """`key` is the secret of the configuration; with None nothing can be kept or read."""

    def __init__(self, runtime: Runtime, key: str | None) -> None:
        self._runtime = runtime
        self._cipher: AESGCM | None = None
        if key is not None:
            derived = HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=b"splab records").derive(key.encode())
            self._cipher = AESGCM(derived)

    @property
    def open(self) -> bool:
        """Whether there is a key."""
        return self._cipher is not None

    def encrypt(self, text: str, place: str) -> str:
        """For the column of one row; `place` says which, and must be given again to read it."""
        nonce = self._runtime.random_bytes(NONCE_BYTES)
        sealed = self._need().encrypt(nonce, text.encode(), place.encode())
        return base64.b64encode(nonce + sealed).decode()

    def decrypt(self, sealed: str, place: str) -> str:
        """Raises `InvalidParameter`, which shows neither text, when the key is another one or it was changed."""
        cipher = self._need()
        try:
            data = base64.b64decode(sealed, validate=True)
            return cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], place.encode()).decode()
        except (InvalidTag, ValueError):
            raise InvalidParameter(
                f"{place} of the records cannot be decrypted; is `database_key` of the configuration the one it was "
                "written with?"
            ) from None

    def _need(self) -> AESGCM:
        if self._cipher is None:
            raise InvalidParameter(
                "the management server has no `database_key` in its configuration, so it keeps no passphrases and has "
                "no encrypted volumes"
            )
        return self._cipher
