"""Checksums of images in CloudStack's forms: `{SHA-256}` and hexadecimal digits, or the digits alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.spi.errors import InvalidParameter

_METHODS = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}
"""By the number of digits."""
_FORM = re.compile(r"(?:\{([A-Za-z0-9-]+)\})?([0-9a-fA-F]+)")


@dataclass(frozen=True, slots=True)
class Checksum:
    method: str
    """As hashlib has it, and the program `<method>sum`."""
    digest: str

    def check(self, found: str, image: str) -> None:
        """Raises `InvalidParameter` when `found` is another digest; `image` is what to call the image."""
        if found != self.digest:
            raise InvalidParameter(
                f"{image} has {self.method} checksum {found}, expected {self.digest}; was the image changed?"
            )


def parse_checksum(text: str, image: str) -> Checksum:
    """Raises `InvalidParameter` for what is none."""
    form = _FORM.fullmatch(text)
    name, digest = (form[1] or "", form[2].lower()) if form else ("", "")
    method = _METHODS.get(len(digest))
    if method is None or (name and name.lower().replace("-", "") != method):
        raise InvalidParameter(
            f"checksum of {image}: give {{SHA-256}} and 64 hexadecimal digits, or another method and as many as it has"
        )
    return Checksum(method, digest)
