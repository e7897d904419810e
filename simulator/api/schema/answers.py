"""Answers of the implemented calls (spec storpool-api section 6). Fields that are UNSET are left out."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

IntOrDash = int | str
"""A number, or `-` for unlimited or not set."""


class Ok(Struct, kw_only=True):
    """ApiOk. The generation is filled in when the change is committed."""

    ok: bool = True
    generation: int = 0
    info: str | UnsetType = UNSET


class VolumeCreated(Ok, kw_only=True):
    autoName: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    globalId: str


class SnapshotCreated(Ok, kw_only=True):
    autoName: str | UnsetType = UNSET
    snapshotGlobalId: str
    snapshotVisibleVolumeId: int


class GroupSnapshot(Struct, kw_only=True):
    """Of one volume; `remoteId` and `snapshotGlobalId` are the same."""

    volume: str
    volumeGlobalId: str
    snapshot: str | UnsetType = UNSET
    remoteId: str
    snapshotGlobalId: str


class GroupSnapshots(Ok, kw_only=True):
    """GroupSnapshotsResult, with the `ok` that clients look for (spec 2.15)."""

    snapshots: list[GroupSnapshot]


class Summary(Struct, kw_only=True, gc=False):
    """VolumeSummary, and SnapshotSummary with the fields below `snapshot`."""

    id: int
    name: str
    globalId: str
    size: int
    replication: int
    placeAll: str
    placeTail: str
    placeHead: str
    parentName: str
    templateName: str
    bw: IntOrDash
    iops: IntOrDash
    limitType: str | UnsetType = UNSET
    creationTimestamp: int
    objectsCount: int
    visibleVolumeId: int
    parentVolumeId: int
    originalParentVolumeId: int
    templateId: int
    flags: int = 0
    firstNotParentObjectId: int = 0
    tags: dict[str, str]
    reuseServer: bool | UnsetType = UNSET
    clusterName: str | UnsetType = UNSET
    clusterId: str | UnsetType = UNSET
    snapshot: bool
    onVolume: str | UnsetType = UNSET
    autoName: bool | UnsetType = UNSET
    bound: bool | UnsetType = UNSET
    deleted: bool | UnsetType = UNSET
    transient: bool | UnsetType = UNSET
    targetDeleteDate: int | UnsetType = UNSET
    recoveringFromRemote: bool | UnsetType = UNSET
    deleteBlocked: str | UnsetType = UNSET
    mcState: str | UnsetType = UNSET
    backup: bool | UnsetType = UNSET
    backupOfGlobalId: str | UnsetType = UNSET
    backupOfVisibleVolumeId: int | UnsetType = UNSET
    volumeMoveSource: bool | UnsetType = UNSET
    createdFromVisibleVolumeId: int | UnsetType = UNSET


class Space(Summary, kw_only=True, gc=False):
    """VolumeSpace or SnapshotSpace."""

    storedSize: int
    spaceUsed: int


class QuickStatus(Summary, kw_only=True, gc=False):
    """VolumeStatusQuick or SnapshotStatusQuick."""

    status: str = "up"
    migrating: bool = False
    decreasedRedundancy: bool = False
    balancerBlocked: bool = False
    syncingDataBytes: int = 0
    syncingMetaObjects: int = 0
    downBytes: int = 0
    upSoonChainsCount: int = 0
    downDrives: list[int] = []
    missingDrives: list[int] = []
    missingTargetDrives: list[int] = []
    softEjectingDrives: list[int] = []


class Status(QuickStatus, kw_only=True, gc=False):
    """VolumeStatus or SnapshotStatus."""

    storedSize: int
    onDiskSize: int


class ChainCount(Struct, kw_only=True):
    disks: list[int]
    count: int


class Info(Summary, kw_only=True):
    """VolumeInfo or SnapshotInfo."""

    disksCount: int
    objectsPerDisk: dict[int, int]
    objectsPerChain: list[ChainCount]
    objectsPerDiskSet: list[ChainCount]


class Description(Summary, kw_only=True):
    """Volume or Snapshot, as the Describe calls answer."""

    targetDiskSets: list[list[int]]
    objects: list[list[int]]


class VolumesAndSnapshots(Struct, kw_only=True):
    ok: bool = True
    volumes: list[Space]


class AttachmentDesc(Struct, kw_only=True, gc=False):
    volume: str
    globalId: str
    snapshot: bool
    client: int
    rights: str
    pos: int
    cluster: str | UnsetType = UNSET
    clusterId: str | UnsetType = UNSET


class TemplateDesc(Struct, kw_only=True):
    id: int
    name: str
    parentName: str
    placeAll: str
    placeTail: str
    placeHead: str
    size: IntOrDash
    replication: IntOrDash
    bw: IntOrDash
    iops: IntOrDash
    limitType: str | UnsetType = UNSET
    reuseServer: bool | UnsetType = UNSET


class SpaceInternal(Struct, kw_only=True):
    u1: int
    u2: int
    u3: int


class SpaceEstimate(Struct, kw_only=True):
    capacity: int
    free: int
    internal: SpaceInternal


class TemplateSpace(SpaceEstimate, kw_only=True):
    placeAll: SpaceEstimate
    placeTail: SpaceEstimate
    placeHead: SpaceEstimate


class TemplateStatus(Struct, kw_only=True):
    id: int
    name: str
    placeAll: str
    placeTail: str
    placeHead: str
    replication: IntOrDash
    volumesCount: int
    snapshotsCount: int
    removingSnapshotsCount: int
    size: int
    totalSize: int
    storedSize: int
    onDiskSize: int
    volumesSize: int
    snapshotsWithoutChildrenSize: int
    snapshotsWithChildrenSize: int
    availablePlaceAll: int
    availablePlaceTail: int
    availablePlaceHead: int
    capacityPlaceAll: int
    capacityPlaceTail: int
    capacityPlaceHead: int
    stored: TemplateSpace


class GroupDesc(Struct, kw_only=True):
    id: int
    name: str
    disks: list[int]


class FaultSet(Struct, kw_only=True):
    name: str
    servers: list[int]


class AggregateScore(Struct, frozen=True, kw_only=True):
    entries: int = 0
    space: int = 0
    total: int = 0


class DiskSummary(Struct, kw_only=True):
    """A disk that is up, which `generationLeft` -1 says."""

    id: int
    serverId: int
    ssd: bool
    generationLeft: int = -1
    model: str
    serial: str
    description: str
    softEject: str = "off"
    device: str
    sectorsCount: int
    empty: bool
    noFua: bool = False
    noFlush: bool = False
    noTrim: bool = False
    isWbc: bool = False
    journaled: bool = False
    entriesCount: int
    entriesAllocated: int
    entriesFree: int
    objectsCount: int
    objectsAllocated: int
    objectsFree: int
    objectsOnDiskSize: int
    scrubbingStartedBefore: int = 0
    scrubbedBytes: int = 0
    scrubbingBW: int = 0
    scrubbingFinishAfter: int = 0
    scrubbingPausedFor: int = 0
    scrubbingPaused: bool = False
    lastScrubCompleted: int = 0
    agCount: int
    agAllocated: int
    agFree: int
    agFull: int = 0
    agPartial: int = 0
    agFreeing: int = 0
    agMaxSizeFull: int = 0
    agMaxSizePartial: int = 0
    wbc: None = None
    aggregateScore: AggregateScore = AggregateScore()


class DiskObject(Struct, kw_only=True):
    objectId: int
    generation: int
    version: int
    volume: str
    parentVolume: str
    onDiskSize: int
    storedSize: int
    state: int
    volumeId: int


class DiskDescription(DiskSummary, kw_only=True):
    objects: dict[int, DiskObject]


class Service(Struct, kw_only=True):
    id: int
    nodeId: int
    version: str
    startTime: int | None
    status: str


class ServerService(Service, kw_only=True):
    missingDisks: list[int]
    pendingDisks: list[int]


class MgmtService(Service, kw_only=True):
    active: bool
    prio: int


class ClusterStatus(Struct, kw_only=True):
    clusterStatus: str
    mgmt: dict[int, MgmtService]
    clients: dict[int, Service]
    servers: dict[int, ServerService]
    bridges: dict[int, Service]
    iscsiTargets: dict[int, Service]


class ClientConfigStatus(Struct, kw_only=True):
    id: int
    generation: int
    clientGeneration: int
    configStatus: str
    delay: int


class NetDesc(Struct, kw_only=True):
    mac: str


class PeerDesc(Struct, kw_only=True):
    beaconStatus: str
    clusterStatus: str
    joined: bool
    nonVoting: bool
    networks: dict[int, NetDesc]
    rdma: dict[int, str]


class Task(Struct, kw_only=True):
    diskId: int
    transactionId: int
    allObjects: int
    completedObjects: int
    dispatchedObjects: int
    unresolvedObjects: int
