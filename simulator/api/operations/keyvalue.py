"""Operations on the key-value store (spec storpool-api 2.14)."""

from __future__ import annotations

from simulator.api.operation import get, post
from simulator.api.schema import answers
from simulator.api.schema.keyvalue import BucketDesc, BucketSetDesc, BucketsList
from simulator.cluster import keyvalue

OPERATIONS = (
    get("kvsBuckets", "KV", handler=keyvalue.buckets, answer=BucketsList),
    get(
        "kvsList",
        "KV/List/{bucketName}",
        handler=keyvalue.bucket_list,
        answer=BucketDesc,
        errors=("objectDoesNotExist",),
    ),
    get(
        "kvsGet",
        "KV/Get/{bucketName}/{keyName}",
        handler=keyvalue.bucket_get,
        answer=BucketDesc,
        errors=("objectDoesNotExist",),
    ),
    post(
        "kvsCreate",
        "KV/Create/{bucketName}",
        handler=keyvalue.bucket_create,
        answer=answers.Ok,
        errors=("objectExists",),
    ),
    post(
        "kvsDelete",
        "KV/Delete/{bucketName}",
        handler=keyvalue.bucket_delete,
        answer=answers.Ok,
        errors=("objectDoesNotExist",),
    ),
    post(
        "kvsUpdate",
        "KV/Set/{bucketName}",
        handler=keyvalue.bucket_set,
        request=BucketSetDesc,
        answer=answers.Ok,
        errors=("objectDoesNotExist", "runIfVersionIsMismatch"),
    ),
)
