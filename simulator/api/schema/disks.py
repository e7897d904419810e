"""Bodies and answers about disks and requests under way (spec storpool-api 5.6, 6.4, 6.5)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from simulator.api.schema.requests import Body


class DiskDescUpdate(Body, frozen=True, kw_only=True):
    description: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_\- ]*\Z", max_length=30)]


class PeersQuery(Body, frozen=True, kw_only=True):
    """AllPeersActiveRequestsQuery."""

    msecsTimeout: Annotated[int, Meta(ge=0, le=1 << 31)] | None = None


class DownDisk(Struct, kw_only=True):
    """A disk that is down, which a `generationLeft` other than -1 says."""

    id: int
    serverId: int
    ssd: bool
    generationLeft: int
    model: str
    serial: str
    description: str
    softEject: str


class ActiveRequest(Struct, kw_only=True):
    requestId: str
    requestIdx: int
    volume: str
    address: int
    size: int
    op: str
    state: str
    prevState: str
    drOp: str
    msecActive: int


class ClientRequests(Struct, kw_only=True):
    clientId: int
    requests: list[ActiveRequest]


class DiskRequests(Struct, kw_only=True):
    diskId: int
    requests: list[ActiveRequest]


class PeerService(Struct, kw_only=True):
    type: str
    id: str


class PeerStatus(Struct, kw_only=True):
    peerId: int
    service: PeerService
    status: str


class PeersRequests(Struct, kw_only=True):
    """AllPeersActiveRequests."""

    requests: list[PeerStatus]
