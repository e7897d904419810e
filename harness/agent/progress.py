"""How far a qemu-img is that runs with -p, from what it prints."""

from __future__ import annotations

import re
from collections.abc import Callable

_SHARE = re.compile(rb"\((\d{1,3}(?:\.\d{1,3})?)/100%\)")
"""As in `    (12.50/100%)`, with a carriage return after it."""
LONGEST = 16
"""Bytes that such a piece has at most; the beginning of one may be kept until the rest is read."""


class Progress:
    """Takes the output in whatever pieces it is read, tells whole percents that have grown, and nothing of the rest."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._rest = b""
        self._percent = -1

    def heard(self, piece: bytes) -> None:
        """Never raises `Error`."""
        text = self._rest + piece
        end = 0
        for found in _SHARE.finditer(text):
            end = found.end()
            percent = int(float(found[1]))
            if self._percent < percent <= 100:
                self._percent = percent
                self._tell(percent)
        self._rest = text[end:][-LONGEST:]
