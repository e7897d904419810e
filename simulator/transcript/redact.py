"""What a transcript may not hold, and what stands for it."""

from __future__ import annotations

from typing import Any

SECRET_FIELDS = frozenset({"secret", "password", "passphrase", "token", "authToken"})
"""Fields whose strings are secrets wherever they are; iSCSI's initiators have `secret` (spec storpool-api 5.7)."""
CUT = "<token>"


class Redaction:
    """One recording's. A stand-in is a word that the API takes for a value, and the same for the same value, so that a
    replay sends what it compares with."""

    def __init__(self, *, values: bool = False) -> None:
        """`values`: those of the key-value store are stood in for too."""
        self._values = values
        self._stand_ins: dict[str, str] = {}

    def clean(self, path: str, json: Any, tokens: tuple[str, ...] = ()) -> Any:
        """JSON of a request or an answer, without its secrets and without these tokens."""
        return self._clean(json, self._values and path.rpartition("MultiCluster/")[2].startswith("KV"), tokens)

    def _clean(self, value: Any, store: bool, tokens: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [self._clean(inner, store, tokens) for inner in value]
        if isinstance(value, str):
            return without(value, tokens)
        if not isinstance(value, dict):
            return value
        cleaned: dict[str, Any] = {}
        for key, inner in value.items():
            if key in SECRET_FIELDS:
                cleaned[key] = self._hide(inner)
            elif store and key in ("set", "pairs") and isinstance(inner, dict):
                cleaned[key] = {without(name, tokens): self._hide(found) for name, found in inner.items()}
            else:
                cleaned[without(key, tokens)] = self._clean(inner, store, tokens)
        return cleaned

    def _hide(self, value: Any) -> Any:
        """An empty value stays: it has a meaning of its own."""
        if value is None or value == "":
            return value
        return self._stand_ins.setdefault(str(value), f"redacted{len(self._stand_ins) + 1:08}")


def without(text: str, tokens: tuple[str, ...]) -> str:
    for token in tokens:
        text = text.replace(token, CUT)
    return text
