"""JSON in and out: tolerant where StorPool is (numbers as strings, nulls), strict where clients would be misled."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import inspect

from simulator.api.errors import STATUS, Refused, invalid
from simulator.api.operation import Operation
from simulator.api.operations import BRIDGE, OPERATIONS
from simulator.api.schema.requests import Nothing
from simulator.ports import Reply

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    operation.method: msgspec.json.Decoder(Nothing if operation.request is None else operation.request, strict=False)
    for operation in (*OPERATIONS, *BRIDGE)
}
_encode = msgspec.json.Encoder().encode
_ERROR_NAME = re.compile(rb'"name":"([A-Za-z]+)"')
_PATTERN = re.compile(r"Expected `str` matching regex '.*'(?= - at |$)")


def decode(operation: Operation, body: bytes, *, loose: bool) -> object:
    """The request's struct, None when there is no JSON and none is needed. Raises `Refused` with invalidParam."""
    if not body or body.isspace():
        if operation.request is None or operation.optional:
            return None
        raise invalid(f"{operation.call} needs JSON and got none")
    if body.lstrip()[:1] == b'"':
        raise invalid(f"{operation.call}: the JSON is a string, not an object: it was encoded twice")
    try:
        if loose or b"null" in body:
            wanted = Nothing if operation.request is None else operation.request
            raw = without_nulls(msgspec.json.decode(body))
            if loose:
                raw = known_fields(raw, inspect.type_info(wanted))
            return msgspec.convert(raw, wanted, strict=False)
        return _DECODERS[operation.method].decode(body)
    except msgspec.ValidationError as error:
        raise invalid(f"{operation.call}: {explained(str(error))}") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise invalid(f"{operation.call}: malformed JSON: {error}") from error


def explained(text: str) -> str:
    """A text of msgspec's validation without Python's types and regular expressions, which tell no client anything."""
    text = _PATTERN.sub("Invalid characters, or a word that may not be used", text)
    return text.replace("`str`", "a string").replace("`int | null`", "a number").replace("`int`", "a number")


def without_nulls(value: Any) -> Any:
    """Any JSON, less its nulls, as the server ignores them (spec section 1)."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value if inner is not None]
    return value


def known_fields(value: Any, wanted: inspect.Type) -> Any:
    """Any JSON, less the fields that the wanted type does not declare."""
    if isinstance(wanted, inspect.UnionType):
        for one in wanted.types:
            value = known_fields(value, one)
        return value
    if isinstance(wanted, inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in wanted.fields}
        return {key: known_fields(inner, fields[key]) for key, inner in value.items() if key in fields}
    if isinstance(wanted, inspect.ListType) and isinstance(value, list):
        return [known_fields(inner, wanted.item_type) for inner in value]
    return value


class _Envelope(msgspec.Struct):
    generation: int
    data: object


class _ClusterEnvelope(msgspec.Struct):
    generation: int
    clusterId: str
    data: object


class _ErrorBody(msgspec.Struct, omit_defaults=True):
    name: str
    descr: str
    transient: bool = False


class _ErrorEnvelope(msgspec.Struct):
    error: _ErrorBody


def success(generation: int, data: object) -> bytes:
    return _encode(_Envelope(generation, data))


def cluster_success(generation: int, cluster_id: str, data: object) -> bytes:
    """A MultiCluster answer, whose top level names the cluster."""
    return _encode(_ClusterEnvelope(generation, cluster_id, data))


def failure(refused: Refused) -> bytes:
    return _encode(_error(refused))


def error_name(body: bytes) -> str:
    """Of an answer that `failure` made; `unknown` of any other."""
    found = _ERROR_NAME.search(body[:200])
    return found[1].decode() if found else "unknown"


def refusal(refused: Refused, status: int | None = None) -> Reply:
    """With the status of the error's name, unless another is given."""
    return Reply(status or STATUS.get(refused.name, 500), failure(refused))


def _error(refused: Refused) -> _ErrorEnvelope:
    # A path may hold half a surrogate pair, which no JSON can.
    descr = refused.descr.encode(errors="replace").decode()
    return _ErrorEnvelope(_ErrorBody(refused.name, descr, refused.transient))
