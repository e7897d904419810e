"""Contents of volumes and snapshots for the cluster of another process that copies them: raw bytes, not JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeVar

import msgspec

from simulator.api import errors
from simulator.api.errors import Refused
from simulator.api.paths import BRIDGE_BASE
from simulator.fetching import PIECE
from simulator.ports import Blocks, BlocksError, Reply, Request

_EXTENTS, _READ = BRIDGE_BASE + "Extents", BRIDGE_BASE + "Read"
PATHS = frozenset({_EXTENTS, _READ})
_T = TypeVar("_T")


class _Extents(msgspec.Struct, forbid_unknown_fields=True):
    globalId: str


class _Read(msgspec.Struct, forbid_unknown_fields=True):
    globalId: str
    offset: Annotated[int, msgspec.Meta(ge=0)]
    length: Annotated[int, msgspec.Meta(ge=1, le=PIECE)]


def serve(blocks: Blocks, keys: Mapping[str, int], request: Request) -> Reply:
    """Raises `Refused`."""
    try:
        if request.path == _EXTENTS:
            return Reply(200, msgspec.json.encode(blocks.extents(_key(keys, _decode(request.body, _Extents).globalId))))
        wanted = _decode(request.body, _Read)
        return Reply(200, blocks.read(_key(keys, wanted.globalId), wanted.offset, wanted.length))
    except (BlocksError, OSError) as error:
        raise Refused("internalError", str(error)) from error


def _key(keys: Mapping[str, int], global_id: str) -> int:
    key = keys.get(global_id)
    if key is None:
        raise errors.missing("Volume", f"~{global_id[:100]}")
    return key


def _decode(body: bytes, wanted: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.invalid(f"contents: {error}") from error
