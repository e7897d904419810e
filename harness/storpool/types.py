"""Requests and answers of the StorPool API (spec/storpool-api.md sections 4 to 6). Sizes are bytes.

Answers tolerate members that are not declared here, because newer servers send more. Requests hold exactly what is
sent: a field that is `UNSET` is absent, and null is never sent, because servers may refuse it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

SECTOR = 512
"""Sizes are multiples of this."""

GlobalId = Annotated[str, Meta(pattern=r"^[a-z0-9]+\.[a-z0-9]+\.[a-z0-9]+$")]
"""`<location>.<subcluster>.<serial>`, without the `~` that requests put in front."""
Size = Annotated[int, Meta(ge=1, multiple_of=SECTOR)]
ClientId = Annotated[int, Meta(ge=1, le=4095)]
Limit = int | Literal["-"]
"""IOPS or bandwidth; `-` is unlimited."""


class Sent(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of requests."""


class Answered(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of answers."""


class VolumeCreateDesc(Sent, frozen=True, kw_only=True):
    name: str | UnsetType = UNSET
    size: int | UnsetType = UNSET
    parent: str | UnsetType = UNSET
    """Snapshot to start from, name or `~globalId`."""
    template: str | UnsetType = UNSET
    iops: Limit | UnsetType = UNSET
    bw: Limit | UnsetType = UNSET
    tags: dict[str, str] | UnsetType = UNSET


class VolumeUpdateDesc(Sent, frozen=True, kw_only=True):
    rename: str | UnsetType = UNSET
    """An empty name makes the volume unnamed."""
    size: int | UnsetType = UNSET
    shrink_ok: bool | UnsetType = UNSET
    template: str | UnsetType = UNSET
    iops: Limit | UnsetType = UNSET
    bw: Limit | UnsetType = UNSET
    tags: dict[str, str] | UnsetType = UNSET
    """Merged key by key; an empty value removes the key."""


class VolumeRevertDesc(Sent, frozen=True, kw_only=True):
    to_snapshot: str
    revert_size: bool | UnsetType = UNSET
    """Take the snapshot's size, too."""


class VolumeSnapshotDesc(Sent, frozen=True, kw_only=True):
    name: str | UnsetType = UNSET
    delete_after: int | UnsetType = UNSET
    """Seconds from now until StorPool deletes the snapshot by itself."""
    tags: dict[str, str] | UnsetType = UNSET


class GroupSnapshotDesc(Sent, frozen=True, kw_only=True):
    """One volume of a group."""

    volume: str
    name: str | UnsetType = UNSET


class GroupSnapshotsDesc(Sent, frozen=True, kw_only=True):
    volumes: tuple[GroupSnapshotDesc, ...]
    tags: dict[str, str] | UnsetType = UNSET
    """Of each snapshot."""


class SnapshotUpdateDesc(Sent, frozen=True, kw_only=True):
    rename: str | UnsetType = UNSET
    delete_after: int | UnsetType = UNSET
    """0 clears it."""
    tags: dict[str, str] | UnsetType = UNSET


class SnapshotExportDesc(Sent, frozen=True, kw_only=True):
    snapshot: str
    location: str


class SnapshotUnexportDesc(Sent, frozen=True, kw_only=True):
    snapshot: str
    location: str | UnsetType = UNSET
    all: bool | UnsetType = UNSET
    force: bool | UnsetType = UNSET


class SnapshotFromRemoteDesc(Sent, frozen=True, kw_only=True):
    remote_location: str
    remote_id: GlobalId
    template: str | UnsetType = UNSET
    tags: dict[str, str] | UnsetType = UNSET


class VolumeReassignDesc(Sent, frozen=True, kw_only=True):
    """Attach or detach one volume."""

    volume: str
    rw: tuple[int, ...] | UnsetType = UNSET
    ro: tuple[int, ...] | UnsetType = UNSET
    detach: tuple[int, ...] | Literal["all"] | UnsetType = UNSET
    force: bool | UnsetType = UNSET
    on_remote_attached: Literal["fail", "detach", "detachForce", "export"] | UnsetType = UNSET


class SnapshotReassignDesc(Sent, frozen=True, kw_only=True):
    """Attach or detach one snapshot, always read-only."""

    snapshot: str
    ro: tuple[int, ...] | UnsetType = UNSET
    detach: tuple[int, ...] | Literal["all"] | UnsetType = UNSET
    force: bool | UnsetType = UNSET


class VolumesReassignWaitDesc(Sent, frozen=True, kw_only=True):
    reassign: tuple[VolumeReassignDesc | SnapshotReassignDesc, ...]
    attach_timeout: int | UnsetType = UNSET


class Nothing(Sent, frozen=True, kw_only=True):
    """The empty object that calls without arguments take."""


class Done(Answered, frozen=True, kw_only=True):
    """`ApiOk`: the answer to a change."""

    ok: bool
    info: str | None = None

    def __post_init__(self) -> None:
        if not self.ok:
            raise ValueError("`ok` is not true")


class VolumeCreated(Done, frozen=True, kw_only=True):
    global_id: GlobalId
    name: str | None = None


class SnapshotCreated(Done, frozen=True, kw_only=True):
    snapshot_global_id: GlobalId


class GroupSnapshot(Answered, frozen=True, kw_only=True):
    snapshot_global_id: GlobalId
    snapshot: str | None = None
    """Its name."""


class GroupSnapshots(Answered, frozen=True, kw_only=True):
    snapshots: list[GroupSnapshot]


class VolumeSummary(Answered, frozen=True, kw_only=True):
    name: str
    """`~globalId` of the volume as it was made, when it has no name."""
    global_id: GlobalId
    """Differs after a revert: the identity of a volume is what it was addressed by."""
    size: Size
    parent_name: str = ""
    template_name: str = ""
    iops: Limit = "-"
    bw: Limit = "-"
    creation_timestamp: int | None = None
    """Unix time."""
    tags: dict[str, str] = {}
    cluster_id: str | None = None


class VolumeSpace(Answered, frozen=True, kw_only=True):
    """Bytes."""

    name: str
    global_id: GlobalId
    size: Size
    space_used: int


class SnapshotSummary(VolumeSummary, frozen=True, kw_only=True):
    deleted: bool = False
    transient: bool = False
    target_delete_date: int | None = None
    """Unix time."""
    recovering_from_remote: bool = False
    on_volume: str = "-"


class Attachment(Answered, frozen=True, kw_only=True):
    volume: str
    """Name, also of a snapshot."""
    snapshot: bool
    client: ClientId
    rights: Literal["rw", "ro"]
    pos: int
    global_id: str | None = None
    cluster_id: str | None = None
    """Of the client, where several clusters were asked."""

    def is_of(self, name: str) -> bool:
        """Whether it is of the object addressed as `name` (name or `~globalId`)."""
        return self.volume == name or (self.global_id is not None and name == f"~{self.global_id}")


class Template(Answered, frozen=True, kw_only=True):
    """`VolumeTemplateDesc`."""

    name: str
    place_all: str = ""
    place_tail: str = ""
    place_head: str = ""
    replication: Limit = "-"
    size: Limit = "-"
    iops: Limit = "-"
    bw: Limit = "-"


class Location(Answered, frozen=True, kw_only=True):
    id: str
    """The first part of the ids of its clusters."""
    name: str


class Locations(Answered, frozen=True, kw_only=True):
    locations: list[Location]


class Stored(Answered, frozen=True, kw_only=True):
    capacity: int
    free: int


class TemplateStatus(Answered, frozen=True, kw_only=True):
    """Usage of a template; bytes."""

    name: str
    stored: Stored
    volumes_count: int = 0
    snapshots_count: int = 0


class Service(Answered, frozen=True, kw_only=True):
    status: str
    node_id: int | None = None


class ClusterStatus(Answered, frozen=True, kw_only=True):
    cluster_status: str
    clients: dict[int, Service] = {}
    servers: dict[int, Service] = {}
    mgmt: dict[int, Service] = {}


class ClientConfigStatus(Answered, frozen=True, kw_only=True):
    id: int
    generation: int
    client_generation: int
    config_status: str
