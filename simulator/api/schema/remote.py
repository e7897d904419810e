"""Bodies and answers about locations, clusters and bridges (spec storpool-api 5.8, 6.6). Buffer sizes are bytes."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from simulator.api.schema.requests import Body

RemoteName = Annotated[str, Meta(pattern=r"^(?!list\Z)\#?[A-Za-z0-9_\-.:]+\Z", max_length=63)]
IdPart = Annotated[str, Meta(pattern=r"^[a-z0-9]+\Z", max_length=63)]
BufferSize = Annotated[int, Meta(ge=0, le=1 << 40)]
Address = Annotated[str, Meta(min_length=1, max_length=45)]
PublicKey = Annotated[str, Meta(pattern=r"^[0-9a-z]+(?:\.[0-9a-z]+){3}\Z", max_length=255)]
DeleteDelay = Annotated[int, Meta(ge=0, le=1 << 40)]


class LocationAddDesc(Body, frozen=True, kw_only=True):
    """RemoteLocationBase."""

    id: IdPart
    name: RemoteName


class LocationRemoveDesc(Body, frozen=True, kw_only=True):
    location: RemoteName


class LocationUpdateDesc(Body, frozen=True, kw_only=True):
    location: RemoteName
    sendBufferSize: BufferSize | None = None
    recvBufferSize: BufferSize | None = None


class LocationRenameDesc(Body, frozen=True, kw_only=True):
    location: RemoteName
    name: RemoteName


class ClusterAddDesc(Body, frozen=True, kw_only=True):
    id: IdPart
    location: RemoteName
    name: RemoteName | None = None


class ClusterRemoveDesc(Body, frozen=True, kw_only=True):
    """By name, or by location and id."""

    name: RemoteName | None = None
    location: RemoteName | None = None
    id: IdPart | None = None
    clusterWillNotBeComingBack: bool = False


class ClusterRenameDesc(Body, frozen=True, kw_only=True):
    cluster: RemoteName
    name: RemoteName


class BridgeAddDesc(Body, frozen=True, kw_only=True):
    """For a location, or with `remote` for a cluster."""

    ip: Address
    publicKey: PublicKey
    location: RemoteName | None = None
    remote: RemoteName | None = None
    minimumDeleteDelay: DeleteDelay | None = None
    noCrypto: bool | None = None


class BridgeRemoveDesc(Body, frozen=True, kw_only=True):
    ip: Address


class LocationDesc(Struct, kw_only=True):
    id: str
    name: str
    sendBufferSize: int
    recvBufferSize: int


class Locations(Struct, kw_only=True):
    locations: list[LocationDesc]


class ClusterDesc(Struct, kw_only=True):
    id: str
    location: str
    name: str


class Clusters(Struct, kw_only=True):
    clusters: list[ClusterDesc]


class BridgeDesc(Struct, kw_only=True):
    ip: str
    publicKey: str
    minimumDeleteDelay: int | UnsetType = UNSET
    noCrypto: bool | UnsetType = UNSET
    location: str
    cluster: str | UnsetType = UNSET
    remote: str


class Bridges(Struct, kw_only=True):
    remoteBridges: list[BridgeDesc]
