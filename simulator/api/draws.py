"""Seeded draws that are the same on every Python version, which the standard library does not promise.

SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014). Not for secrets.
"""

from __future__ import annotations

import hashlib

_MASK = 0xFFFFFFFFFFFFFFFF
_GAMMA = 0x9E3779B97F4A7C15


class Draws:
    """One stream of numbers; streams of one seed are independent of each other."""

    __slots__ = ("_state",)

    def __init__(self, seed: int, stream: str) -> None:
        digest = hashlib.blake2b(f"{seed}:{stream}".encode(), digest_size=8).digest()
        self._state = int.from_bytes(digest, "big")

    def next(self) -> float:
        """In [0, 1), with 53 random bits."""
        self._state = z = (self._state + _GAMMA) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) >> 11) * 2.0**-53
