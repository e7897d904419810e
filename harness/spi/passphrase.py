"""The passphrase of an encrypted volume, which nothing may show."""

from __future__ import annotations

from typing import Any

import msgspec


class Passphrase(msgspec.Struct, frozen=True):
    """Opens a LUKS volume. It is in commands as they are sent, and in no text that is made of one.

    `value` is what QEMU and cryptsetup take, byte for byte, without a line end.
    """

    value: str

    def __repr__(self) -> str:
        return "Passphrase(...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # Any: msgspec's signature
        return []

    def reveal(self) -> bytes:
        """For a program's standard input, or libvirt."""
        return self.value.encode()
