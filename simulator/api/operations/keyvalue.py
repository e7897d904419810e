"""Operations on the key-value store (spec storpool-api 2.14)."""

from __future__ import annotations

from simulator.api.operation import get, post

OPERATIONS = (
    get("kvsBuckets", "KV"),
    get("kvsList", "KV/List/{bucketName}"),
    get("kvsGet", "KV/Get/{bucketName}/{keyName}"),
    post("kvsCreate", "KV/Create/{bucketName}"),
    post("kvsDelete", "KV/Delete/{bucketName}"),
    post("kvsUpdate", "KV/Set/{bucketName}"),
)
