"""Bodies and answers of what brings volumes and snapshots to other clusters (spec storpool-api 5.2, 5.3, 6.1, 6.6)."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from simulator.api.scalars import (
    ClusterId,
    GlobalId,
    GroupName,
    NewVolumeName,
    OnAttached,
    OptionalTemplateName,
    Replication,
    Seconds,
    SnapshotRef,
    Tags,
    UnixTime,
    VolumeRef,
)
from simulator.api.schema.answers import Ok
from simulator.api.schema.remote import RemoteName
from simulator.api.schema.requests import Body, ReassignItem


class FromRemoteDesc(Body, frozen=True, kw_only=True):
    """SnapshotFromRemoteDesc, and the base of VolumeFromRemoteDesc."""

    remoteLocation: RemoteName
    remoteId: GlobalId
    name: NewVolumeName | None = None
    placeAll: GroupName | None = None
    placeTail: GroupName | None = None
    placeHead: GroupName | None = None
    replication: Replication | None = None
    template: OptionalTemplateName | None = None
    export: bool | None = None
    tags: Tags | None = None


class VolumeFromRemoteDesc(FromRemoteDesc, frozen=True, kw_only=True):
    name: NewVolumeName


class SnapshotExportDesc(Body, frozen=True, kw_only=True):
    snapshot: SnapshotRef
    location: RemoteName


class SnapshotUnexportDesc(Body, frozen=True, kw_only=True):
    snapshot: SnapshotRef
    location: RemoteName | None = None
    all: bool | None = None
    force: bool | None = None


class RemoteUnexport(Body, frozen=True, kw_only=True):
    """SnapshotRemoteUnexportDesc."""

    location: RemoteName
    globalSnapshotId: GlobalId
    targetDeleteDate: UnixTime | None = None
    deleteAfter: Seconds | None = None


class SnapshotsRemoteUnexportDesc(Body, frozen=True, kw_only=True):
    remoteSnapshots: Annotated[list[RemoteUnexport], Meta(max_length=1024)]


class VolumeBackupDesc(Body, frozen=True, kw_only=True):
    volume: VolumeRef
    location: RemoteName
    tags: Tags | None = None


class VolumesGroupBackupDesc(Body, frozen=True, kw_only=True):
    location: RemoteName
    volumes: Annotated[list[VolumeRef], Meta(min_length=1, max_length=1024)]
    tags: Tags | None = None


class ClusterChoice(Body, frozen=True, kw_only=True):
    """VolumeExportDesc, and the base of the moves: exactly one of the two."""

    cluster: RemoteName | None = None
    clusterId: ClusterId | None = None


class MoveToRemoteDesc(ClusterChoice, frozen=True, kw_only=True):
    onAttached: OnAttached | None = None


class VolumeAcquireDesc(Body, frozen=True, kw_only=True):
    onRemoteAttached: OnAttached | None = None


class Export(Struct, kw_only=True):
    snapshot: str
    location: str
    globalId: str
    backingUp: bool | UnsetType = UNSET
    volumeId: int
    visibleVolumeId: int


class Exports(Struct, kw_only=True):
    exports: list[Export]


class RemoteObject(Struct, kw_only=True):
    """RemoteSnapshot, also of volumes."""

    name: str
    location: str
    creationTimestamp: int
    size: int
    remoteId: str
    onVolume: str | UnsetType = UNSET
    localSnapshot: str | UnsetType = UNSET
    tags: dict[str, str]
    createdFromGlobalId: str
    createdFromVisibleVolumeId: int


class RemoteSnapshots(Struct, kw_only=True):
    snapshots: list[RemoteObject]


class RemoteVolumes(Struct, kw_only=True):
    volumes: list[RemoteObject]


class Backup(Struct, kw_only=True):
    """VolumesGroupBackupSingle."""

    remoteId: str
    snapshotGlobalId: str


class VolumeBackedUp(Ok, kw_only=True):
    """ApiOkVolumeBackup."""

    globalId: str
    remoteId: str


class VolumesBackedUp(Ok, kw_only=True):
    backups: dict[str, Backup]


# What clusters ask each other.


class Locate(Body, frozen=True, kw_only=True):
    object: str
    """Name, or `~` and a global id."""


class Located(Struct, kw_only=True):
    """Fields of an object that is there; none when there is no such object."""

    globalId: str | UnsetType = UNSET
    snapshot: bool = False
    owner: bool = False
    copy: bool = False
    """Its owner is another cluster of the location."""
    attached: bool = False


class OffersAsked(Body, frozen=True, kw_only=True):
    cluster: ClusterId
    """Who asks."""
    globalId: GlobalId | None = None
    """Only this one."""


class Offer(Struct, kw_only=True):
    """An object that the asking cluster may read, or takes over."""

    globalId: str
    snapshot: bool
    name: str
    """Empty when unnamed."""
    autoName: bool
    size: int
    created: int
    visibleId: int
    takenOn: int
    """Visible id of the volume that the snapshot was taken on."""
    takenOnName: str
    tags: dict[str, str]
    template: str
    placeAll: str
    placeTail: str
    placeHead: str
    replication: int
    bw: int
    iops: int
    limitType: str
    ancestors: list[str]
    """Global ids, nearest first."""
    bound: bool = False
    deleteDate: int = 0
    backupOf: str = ""
    backupOfVisible: int = 0
    moves: bool = False
    """It is taken over; else only read, because others there need it too."""


class Offers(Struct, kw_only=True):
    offers: list[Offer]


class FetchDesc(Body, frozen=True, kw_only=True):
    """A local copy of `offer`, as a snapshot or a volume."""

    source: ClusterId
    offer: Offer
    wanted: FromRemoteDesc
    volume: bool = False
    backup: bool = False


class ReconcileDesc(Body, frozen=True, kw_only=True):
    snapshot: SnapshotRef
    owner: bool
    """Whether nobody else in this location owns it."""


class Recovering(Body, frozen=True, kw_only=True):
    globalId: GlobalId


class Answered(Ok, kw_only=True):
    yes: bool = False
    until: float = 0.0
    """Unix seconds."""


class TakeOver(Body, frozen=True, kw_only=True):
    """`acquire`: take an object over from `source`."""

    object: str
    source: ClusterId
    onAttached: OnAttached | None = None


class DepartDesc(Body, frozen=True, kw_only=True):
    object: str
    move: int
    """Number of the attempt, which only grows: what comes late of an earlier one does no harm to this."""
    to: ClusterId
    onAttached: OnAttached | None = None


class BeginDesc(Body, frozen=True, kw_only=True):
    source: ClusterId


class Begun(Ok, kw_only=True):
    move: int


class Departure(Ok, kw_only=True):
    members: list[Offer]
    """The oldest ancestor first, the object itself last."""


class ArriveDesc(Body, frozen=True, kw_only=True):
    source: ClusterId
    move: int
    members: list[Offer]


class Moved(Body, frozen=True, kw_only=True):
    """An attempt to move something, and the other cluster of it."""

    cluster: ClusterId
    move: int


class BackupDone(Body, frozen=True, kw_only=True):
    globalId: GlobalId
    until: float


class TakeBackupDesc(Body, frozen=True, kw_only=True):
    source: ClusterId
    globalId: GlobalId
    tags: Tags


class DoneDesc(Body, frozen=True, kw_only=True):
    """A location needs an exported snapshot no more."""

    cluster: ClusterId
    globalId: GlobalId
    targetDeleteDate: UnixTime | None = None
    deleteAfter: Seconds | None = None


class ForeignReassign(Body, frozen=True, kw_only=True):
    """Attachments of clients of `cluster`."""

    cluster: ClusterId
    reassign: list[ReassignItem]
