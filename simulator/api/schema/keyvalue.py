"""Bodies and answers of the key-value store (spec storpool-api 5.6, 6.5)."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from simulator.api.schema.requests import Body

KeyName = Annotated[str, Meta(min_length=1, max_length=1022)]
Version = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class BucketSetDesc(Body, frozen=True, kw_only=True):
    """KeyValueBucketSetDesc."""

    set: dict[KeyName, str]
    """An empty value deletes the key."""
    runIfVersionIs: Version | None = None


class BucketsList(Struct, kw_only=True):
    """KeyValueBucketsList."""

    buckets: dict[str, int]
    """Version by name."""


class BucketDesc(Struct, kw_only=True):
    """KeyValueBucket."""

    name: str
    version: int
    pairs: dict[str, str] | UnsetType = UNSET
