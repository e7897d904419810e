"""The key-value store: buckets of texts, each with a version that grows with every change of it (spec 2.14, 5.6)."""

from __future__ import annotations

import msgspec

from simulator.api import errors
from simulator.api.errors import Refused
from simulator.api.schema.answers import Ok
from simulator.api.schema.keyvalue import BucketDesc, BucketSetDesc, BucketsList
from simulator.cluster.plan import Call, Plan
from simulator.cluster.records import Bucket, Drop, Put

LONGEST_VALUE = 1 << 20
"""Bytes of a value's UTF-8. StorPool's limit is not known."""
MOST_KEYS = 100_000
"""Of a bucket. StorPool's limit is not known."""


def buckets(call: Call) -> BucketsList:
    return BucketsList(buckets={found.name: found.version for found in call.state.table(Bucket).values()})


def bucket_list(call: Call) -> BucketDesc:
    found = call.state.bucket(call.args[0])
    return BucketDesc(name=found.name, version=found.version, pairs=dict(found.pairs))


def bucket_get(call: Call) -> BucketDesc:
    name, key = call.args
    found = call.state.bucket(name)
    if key not in found.pairs:
        raise errors.missing("Key", key)
    return BucketDesc(name=found.name, version=found.version, pairs={key: found.pairs[key]})


def bucket_create(call: Call) -> Plan:
    """An empty bucket of version 0."""
    state, name = call.state, call.args[0]
    if name in state.buckets_by_name:
        raise errors.exists(name)
    return Plan(Ok(), [Put(Bucket(id=state.next_id["bucket"], name=name))], touches=(f"bucket {name}",))


def bucket_delete(call: Call) -> Plan:
    """With everything in it."""
    found = call.state.bucket(call.args[0])
    return Plan(Ok(), [Drop("bucket", found.id)], touches=(f"bucket {found.name}",))


def bucket_set(call: Call, body: BucketSetDesc) -> Plan:
    """All keys or none; the version grows by one when anything is different from before."""
    found = call.state.bucket(call.args[0])
    if body.runIfVersionIs is not None and body.runIfVersionIs != found.version:
        text = f"Bucket '{found.name}' has version {found.version}, not {body.runIfVersionIs}"
        raise Refused("runIfVersionIsMismatch", text)
    for key, value in body.set.items():
        if len(value.encode(errors="replace")) > LONGEST_VALUE:
            raise errors.invalid(f"The value of key '{key[:100]}' is longer than {LONGEST_VALUE} bytes")
    pairs = {key: value for key, value in {**found.pairs, **body.set}.items() if value}
    if len(pairs) > MOST_KEYS:
        raise errors.invalid(f"Bucket '{found.name}' would have {len(pairs)} keys, at most {MOST_KEYS}")
    if pairs == found.pairs:
        return Plan(Ok())
    new = msgspec.structs.replace(found, pairs=pairs, version=found.version + 1)
    return Plan(Ok(), [Put(new)], touches=(f"bucket {found.name}",))
