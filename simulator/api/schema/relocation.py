"""Bodies and answers of relocator, balancer and allocation groups (spec storpool-api 5.2, 5.5, 5.6, 6.3, 6.5)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from simulator.api.scalars import DiskId
from simulator.api.schema.requests import Body

VagId = Annotated[str, Meta(pattern=r"^0*[1-9][0-9]{0,19}\Z", max_length=20)]
VagRef = Annotated[int, Meta(ge=1)] | Annotated[str, Meta(pattern=r"^(?:parent|0*[1-9][0-9]{0,19})\Z", max_length=20)]


class UpdateVagDesc(Body, frozen=True, kw_only=True):
    """VolumeUpdateVagDesc and SnapshotUpdateVagDesc."""

    vagId: VagRef


class VagUpdateDesc(Body, frozen=True, kw_only=True):
    vagId: Annotated[int, Meta(ge=1)] | VagId
    targetsCount: Annotated[int, Meta(ge=1, le=32768)]


class AbandonDiskDesc(Body, frozen=True, kw_only=True):
    diskId: DiskId


class BalancerCommand(Body, frozen=True, kw_only=True):
    cmd: Literal["start", "stop", "commit"]


class VagDesc(Struct, kw_only=True):
    """Vag."""

    name: int
    vagId: int
    parentVagId: int
    templateId: int
    templateName: str
    placeAll: str
    placeTail: str
    placeHead: str
    replication: int
    reuseServer: bool | UnsetType = UNSET
    chains: list[list[int]]
    targetDiskSets: list[list[int]]
    overrides: dict[int, list[int]]
    diskSetsConstraintsViolated: bool


class RelocatorStatus(Struct, kw_only=True):
    """VolumeRelocatorStatus."""

    status: str
    volumesToRelocate: int
    recoveringFromRemote: int = 0


class BalancerStatus(Struct, kw_only=True):
    """VolumeBalancerStatus."""

    status: str
    auto: bool = False


class BalancerVolume(Struct, kw_only=True):
    """VolumeBalancerVolumeStatus."""

    name: str
    size: int
    replication: int
    placeAll: str
    placeTail: str
    placeHead: str
    objectsCount: int
    snapshot: bool
    reallocated: bool
    blocked: bool


class BalancerDiskSets(BalancerVolume, kw_only=True):
    """VolumeBalancerVolumeDiskSets."""

    currentDiskSets: list[list[int]]
    balancerDiskSets: list[list[int]]


class Change(Struct, kw_only=True):
    """TargetDesc: objects or bytes."""

    current: int = 0
    target: int = 0
    delta: int = 0
    toRecover: int = 0


class UpDiskTarget(Struct, kw_only=True):
    id: int
    serverId: int
    generationLeft: int = -1
    objectsCount: int
    objectsAllocated: Change
    storedSize: Change
    onDiskSize: Change


class DownDiskTarget(Struct, kw_only=True):
    id: int
    serverId: int
    generationLeft: int
