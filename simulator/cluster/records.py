"""What the cluster remembers: immutable records, and the two events that change them.

Every record has an integer id within its table. A change is `Put` (the record as it is from now on) or `Drop`.
"""

from __future__ import annotations

import msgspec

UNLIMITED = -1
"""Of bw and iops; `-` on the wire."""
NOT_SET = -2
"""Of a template's size, replication and limits."""
NO_PARENT = 0
OWNER = "owner"
COPY = "slaveCopy"


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: int


class Attachment(msgspec.Struct, frozen=True):
    pos: int
    """0..1023, unique on its client."""
    rights: str
    """rw or ro."""
    cluster: str = ""
    """Id of the client's cluster when that is another one."""


class Object(Record, frozen=True, kw_only=True, tag="object"):
    """A volume or a snapshot. The id is its serial, under which the blocks know it."""

    name: str = ""
    """Empty when unnamed; starts with `~` when a revert kept the old global id as the name."""
    global_id: str
    snapshot: bool = False
    size: int
    created: int
    """Unix seconds."""
    visible_id: int
    """Survives a revert."""
    parent: int = NO_PARENT
    original_parent: int = NO_PARENT
    template: int = 0
    place_all: int
    place_tail: int
    place_head: int
    replication: int
    bw: int = UNLIMITED
    iops: int = UNLIMITED
    limit_type: str = ""
    reuse_server: bool | None = None
    tags: dict[str, str] = {}
    attachments: dict[int, Attachment] = {}
    """By client."""
    taken_on: int = 0
    """Snapshots: visible id of the volume it was taken on."""
    auto_name: bool = False
    bound: bool = False
    transient: bool = False
    delete_date: int = 0
    """Unix seconds; 0 is never."""
    gone_at: float = 0.0
    """Unix seconds at which a deleted snapshot's data is merged; 0 while it is not deleted."""
    vag: int = 0
    """Its allocation group; 0 is one of its own, with its serial as the id."""
    abandoned: tuple[int, ...] = ()
    """Disks on which it gave up its copies."""

    state: str = OWNER
    """In the multicluster: owner, clusterLocal, clusterLocalAutoReconcile or slaveCopy."""
    recovering_until: float = 0.0
    """Unix seconds until which a copy of a remote object shows that its data is still arriving."""
    backup_of: str = ""
    """Global id of what this is a backup of."""
    backup_of_visible: int = 0
    leaving_to: str = ""
    """Id of the cluster that takes it over; until that is settled nothing here may change it."""
    move: int = 0
    """That cluster's number of this attempt."""

    @property
    def shown_name(self) -> str:
        return self.name or "~" + self.global_id

    @property
    def allocation_group(self) -> int:
        return self.vag or self.id

    @property
    def placement(self) -> tuple[int, int, int, int]:
        """What says on which disks its copies may be."""
        return self.place_head, self.place_all, self.place_tail, self.replication


class Template(Record, frozen=True, kw_only=True, tag="template"):
    name: str
    parent: str = ""
    size: int = NOT_SET
    replication: int = NOT_SET
    place_all: int
    place_tail: int
    place_head: int
    bw: int = NOT_SET
    iops: int = NOT_SET
    limit_type: str = ""
    reuse_server: bool | None = None
    tags: dict[str, str] = {}


class Group(Record, frozen=True, kw_only=True, tag="group"):
    """A placement group."""

    name: str
    disks: tuple[int, ...]


class Vag(Record, frozen=True, kw_only=True, tag="vag"):
    """What was chosen for an allocation group; it is forgotten with the last volume or snapshot of the group."""

    sets: int | None = None
    """How many disk sets it has; None for as many as any other."""
    overrides: dict[int, tuple[int, ...]] = {}
    """By number of the disk set: disks that the balancer chose, that of the tail last."""


class Relocation(Record, frozen=True, kw_only=True, tag="relocation"):
    """The volume or snapshot of this id is where it was until the relocator has moved it."""

    since: float
    """Unix seconds."""
    sets: tuple[tuple[int, ...], ...]
    """Disk sets that hold its copies: object number n is on set n modulo their count."""


class Balancer(Record, frozen=True, kw_only=True, tag="balancer"):
    """The run of the balancer, of which there is at most one."""

    since: float
    """Unix seconds."""
    overrides: dict[int, dict[int, tuple[int, ...]]]
    """What it found, by allocation group."""
    committed: bool = False


class Disk(Record, frozen=True, kw_only=True, tag="disk"):
    """Times are Unix seconds, 0 for never."""

    server: int
    ssd: bool
    description: str = ""
    left_generation: int = -1
    """Generation in which it went down by itself; -1 while it has not."""
    back_since: float = 0.0
    ejected: bool = False
    """Not used any more, whatever it holds."""
    ignored: bool = False
    """A cluster that starts does not wait for it."""
    soft_eject: str = "off"
    """on, off or paused."""
    drained_since: float = 0.0
    drained_seconds: float = 0.0
    """Before that."""
    scrub_started: float = 0.0
    scrub_paused_since: float = 0.0
    scrub_paused_seconds: float = 0.0
    """Before that, since the scrub was started."""
    last_scrub: int = 0
    """When the one before was completed."""


class Server(Record, frozen=True, kw_only=True, tag="server"):
    node: int
    left_generation: int = -1
    """Generation in which it went down; -1 while it runs."""
    back_since: float = 0.0
    """Unix seconds, 0 for never."""


class Client(Record, frozen=True, kw_only=True, tag="client"):
    node: int
    left_generation: int = -1
    """Configuration generation at which the client went down; -1 while it runs."""

    @property
    def running(self) -> bool:
        return self.left_generation < 0


class Bucket(Record, frozen=True, kw_only=True, tag="bucket"):
    """A bucket of the key-value store."""

    name: str
    version: int = 0
    pairs: dict[str, str] = {}


class Location(Record, frozen=True, kw_only=True, tag="location"):
    """Another site, or this one. Buffer sizes are bytes, 0 for the system's default."""

    location_id: str
    name: str
    send_buffer: int = 0
    receive_buffer: int = 0


class RemoteCluster(Record, frozen=True, kw_only=True, tag="remote-cluster"):
    cluster_id: str
    """The second part of the ids of its objects; the location's id is the first."""
    location: int
    name: str
    last_move: int = 0
    """Its number of the last move from here to there that is over."""


class Bridge(Record, frozen=True, kw_only=True, tag="bridge"):
    ip: str
    public_key: str
    location: int
    cluster: int = 0
    """0: it leads to the location as a whole."""
    minimum_delete_delay: int | None = None
    """Seconds."""
    no_crypto: bool | None = None


class Exported(Record, frozen=True, kw_only=True, tag="export"):
    """An object that a location, or one cluster of it, may read."""

    object: int
    location: int
    cluster: int = 0
    """0: the whole location."""
    backing_up_until: float = 0.0
    """Unix seconds; 0 unless it is exported only for a backup, after which it goes together with the snapshot."""


class Arrival(Record, frozen=True, kw_only=True, tag="arrival"):
    """An attempt to take something over from another cluster, until that one has dropped it. Ids only grow."""

    source: str
    """Id of that cluster."""
    global_ids: tuple[str, ...] = ()
    """What has come; empty before the commit."""


class Maintenance(Record, frozen=True, kw_only=True, tag="maintenance"):
    """Of the node that the id names. Times are Unix seconds and seconds."""

    started: float
    duration: int
    description: str


class Export(msgspec.Struct, frozen=True):
    """Of one iSCSI target to one initiator."""

    portal_group: int
    target: int


class Target(msgspec.Struct, frozen=True):
    """Its name is the one that the volume had when it became a target: initiators that are logged in know it."""

    name: str
    visible_id: int
    """Of the volume, which survives a revert."""


class Initiator(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    username: str
    secret: str
    networks: tuple[str, ...] = ()
    exports: tuple[Export, ...] = ()


class Portal(msgspec.Struct, frozen=True):
    controller: int
    ip: str
    port: int


class PortalGroup(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    networks: tuple[tuple[str, int], ...] = ()
    """Address and prefix length."""
    portals: tuple[Portal, ...] = ()


class ISCSI(Record, frozen=True, kw_only=True, tag="iscsi"):
    """The whole iSCSI configuration, of which there is one; its parts have ids of their own."""

    base_name: str = ""
    next_part: int = 1
    initiators: dict[int, Initiator] = {}
    portal_groups: dict[int, PortalGroup] = {}
    targets: dict[int, Target] = {}


AnyRecord = (
    Object
    | Template
    | Group
    | Vag
    | Relocation
    | Balancer
    | Disk
    | Server
    | Client
    | Bucket
    | Location
    | RemoteCluster
    | Bridge
    | ISCSI
    | Maintenance
    | Exported
    | Arrival
)


class Put(msgspec.Struct, frozen=True, tag="put"):
    record: AnyRecord


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    table: str
    """Tag of the record."""
    id: int


Event = Put | Drop


class Applied(msgspec.Struct, frozen=True, tag="applied"):
    """A change without a fallible effect, committed at once."""

    events: list[Event]


class Prepared(msgspec.Struct, frozen=True, tag="prepared"):
    """The intent of a change whose effects may fail. Not visible before its `Committed`."""

    change: int
    events: list[Event]
    next_serial: int
    """Serials below are taken, also when the change is aborted."""
    forward: bool = False
    """An interrupted change is completed at start instead of discarded, because its effect cannot be undone."""


class Committed(msgspec.Struct, frozen=True, tag="committed"):
    change: int


class Aborted(msgspec.Struct, frozen=True, tag="aborted"):
    change: int


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    """The whole state, in place of every record before it."""

    generation: int
    next_serial: int
    next_id: dict[str, int]
    """Next id of templates and groups."""
    records: list[AnyRecord]


JournalRecord = Applied | Prepared | Committed | Aborted | Snapshot
