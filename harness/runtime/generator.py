"""A small seeded generator whose draws are the same on every Python version.

SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014). Not for secrets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_MASK = 0xFFFFFFFFFFFFFFFF
_GAMMA = 0x9E3779B97F4A7C15


class Generator:
    """A stream of 64-bit numbers; `state` is all there is to it."""

    __slots__ = ("state",)

    def __init__(self, state: int) -> None:
        self.state = state & _MASK

    @classmethod
    def of(cls, seed: int, stream: str) -> Generator:
        """The stream of this name that belongs to `seed`; streams of one seed are independent of each other."""
        digest = hashlib.blake2b(f"{seed}:{stream}".encode(), digest_size=8).digest()
        return cls(int.from_bytes(digest, "big"))

    def next(self) -> int:
        """A number in [0, 2**64)."""
        self.state = z = (self.state + _GAMMA) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def below(self, bound: int) -> int:
        """A number in [0, bound); the bias for bounds far below 2**64 is far below anything seen."""
        # As `next`, spelled out: the scheduler draws at every step.
        self.state = z = (self.state + _GAMMA) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) * bound) >> 64

    def random(self) -> float:
        """A number in [0, 1) with 53 random bits."""
        return (self.next() >> 11) * 2.0**-53

    def bytes(self, count: int) -> bytes:
        words = (count + 7) // 8
        return b"".join(self.next().to_bytes(8, "big") for _ in range(words))[:count]

    def choice(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def uuid(self) -> str:
        """A version 4 UUID in its usual lower-case form."""
        value = (self.next() << 64) | self.next()
        value = value & ~(0xF << 76) | (4 << 76)
        value = value & ~(0x3 << 62) | (2 << 62)
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
