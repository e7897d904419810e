"""Signatures of API requests, version 1 and 3, in every variant that real clients send (spec/cloudstack-api.md 6)."""

from __future__ import annotations

import base64
import hmac
import itertools
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from urllib.parse import quote

Query = Sequence[tuple[str, str]]
_PLAIN = re.compile(r"[A-Za-z0-9_.~\-]*")
"""What quoting leaves as it is: most names and values."""


def is_signed(query: Query, signature: str, secret: str) -> bool:
    """Whether `signature` is the query's with this secret, in any of the variants."""
    given = signature.encode()
    return any(hmac.compare_digest(given, candidate) for candidate in _candidates(query, secret))


def sign(query: Query, secret: str) -> str:
    """The signature as `cs` and the Java server make it: names sorted as sent."""
    return next(_candidates(query, secret)).decode()


def expired(query: Query, now: float) -> str | None:
    """Why the request's time limit refuses it, or None. Only signature version 3 has one."""
    values = {name.lower(): value for name, value in query}
    if values.get("signatureversion") != "3":
        return None
    try:
        limit = datetime.strptime(values.get("expires", ""), "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except ValueError:
        return "expires must look like 2026-01-31T12:00:00+0000 with signatureversion 3"
    return "the request's expires has passed" if limit < now else None


def _candidates(query: Query, secret: str) -> Iterator[bytes]:
    pairs = [(name, value) for name, value in query if name.lower() != "signature"]
    # Java escapes "~", Python does not; libcloud leaves brackets alone, and names may or may not be escaped.
    for order, safe, tilde, names in itertools.product((_name, _lower_name), ("*", "*[]"), ("~", "%7E"), (False, True)):
        text = "&".join(
            [
                f"{_quoted(name, safe) if names else name}={_quoted(value, safe).replace('~', tilde)}"
                for name, value in sorted(pairs, key=order)
            ]
        )
        yield base64.b64encode(hmac.digest(secret.encode(), text.lower().encode(), "sha1"))


def _name(pair: tuple[str, str]) -> str:
    return pair[0]


def _lower_name(pair: tuple[str, str]) -> str:
    return pair[0].lower()


def _quoted(text: str, safe: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe=safe)
