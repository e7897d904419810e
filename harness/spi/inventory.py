"""CloudStack's records as the driver's reconciler compares them with StorPool, and what it finds."""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

from harness.spi.states import SnapshotState, StoreRefState, VmSnapshotState, VmState, VolumeState

_STEADY = {VolumeState.ALLOCATED, VolumeState.READY, VolumeState.DESTROY, VolumeState.EXPUNGED}
_STEADY_SNAPSHOTS = {SnapshotState.BACKED_UP, SnapshotState.DESTROYED, SnapshotState.ERROR}
_STEADY_IN_STORE = {StoreRefState.READY, StoreRefState.DESTROYED, StoreRefState.FAILED}


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `volumes`."""

    uuid: str
    state: VolumeState
    removed: bool
    pool_id: int | None
    path: str | None
    """None too for a volume that is on another provider's pool."""
    vm_uuid: str | None
    """The VM it is attached to, in the records; that VM need not run."""
    device_id: int | None
    disk_offering_id: int | None
    max_iops: int | None
    plugging: bool
    """A host was asked to attach or detach it, and has not confirmed; or its size or offering is being changed."""
    changed_at: float
    """Unix seconds of the last change that the row tells."""

    @property
    def steady(self) -> bool:
        """Whether no operation of CloudStack is under way on it."""
        return self.state in _STEADY and not self.plugging


class SnapshotRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `snapshots`; `path` is that of its copy on primary storage."""

    uuid: str
    state: SnapshotState
    removed: bool
    pool_id: int | None
    path: str | None

    @property
    def steady(self) -> bool:
        """Whether no operation of CloudStack is under way on it."""
        return self.state in _STEADY_SNAPSHOTS


class SnapshotCopy(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `snapshot_store_ref` of a pool."""

    snapshot_uuid: str
    pool_id: int
    state: StoreRefState
    path: str | None

    @property
    def steady(self) -> bool:
        return self.state in _STEADY_IN_STORE


class VmSnapshotRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `vm_snapshots`."""

    uuid: str
    state: VmSnapshotState
    removed: bool
    pool_id: int | None
    """A pool by whose API its snapshots are reached; None before they are taken."""
    paths: tuple[str, ...]
    """Of the snapshot of each disk; none before they are taken."""


class CacheRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `template_spool_ref`."""

    template_id: int
    template_uuid: str
    pool_id: int
    state: StoreRefState
    path: str | None

    @property
    def steady(self) -> bool:
        return self.state in _STEADY_IN_STORE


class MirrorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `template_store_ref`, or a template without one; `path` is that of the StorPool snapshot."""

    uuid: str
    removed: bool
    state: StoreRefState | None
    path: str | None

    @property
    def steady(self) -> bool:
        """Whether no operation of CloudStack is under way on it."""
        return self.state is None or self.state in _STEADY_IN_STORE


class VmRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A VM that is not removed."""

    uuid: str
    state: VmState
    host_id: int | None
    unconfirmed_hosts: frozenset[int]
    """Hosts that must still confirm that it does not run there."""
    changed_at: float
    """Unix seconds of the last change of its state."""

    def may_use(self, host_id: int) -> bool:
        """Whether its volumes may have to be attached at this host."""
        if self.state is VmState.MIGRATING or host_id in self.unconfirmed_hosts:
            return True
        return self.host_id == host_id and self.state in (VmState.RUNNING, VmState.STARTING, VmState.STOPPING)


class Client(NamedTuple):
    """A StorPool client, as a list of attachments names it."""

    number: int
    cluster_id: str | None = None
    """None where StorPool does not tell it."""

    def is_same(self, other: Client) -> bool:
        """Whether both are one client: numbers are those of a cluster, whose id is compared as a whole."""
        return self.number == other.number and (
            None in (self.cluster_id, other.cluster_id) or self.cluster_id == other.cluster_id
        )

    def __str__(self) -> str:
        return str(self.number) if self.cluster_id is None else f"{self.number} of cluster {self.cluster_id}"


class HostRecord(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    name: str
    up: bool
    storpool_client_id: int | None
    storpool_cluster_id: str | None = None
    """Of which it is a client; None when that is not known."""

    def is_client(self, client: Client) -> bool:
        """Whether it is this one."""
        number = self.storpool_client_id
        return number is not None and client.is_same(Client(number, self.storpool_cluster_id))


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """One consistent view of everything that a reconciler compares; of volumes, snapshots, VM snapshots and VMs the
    rows that are not removed."""

    volumes: tuple[VolumeRecord, ...]
    snapshots: tuple[SnapshotRecord, ...]
    """Once for each pool that has it."""
    vm_snapshots: tuple[VmSnapshotRecord, ...]
    templates: tuple[CacheRecord, ...]
    vms: tuple[VmRecord, ...]
    hosts: tuple[HostRecord, ...]
    paths: frozenset[str]
    """Every StorPool path that any row or detail of what is not removed names."""
    offering_templates: frozenset[str]
    """StorPool templates that offerings name instead of the pool's."""
    tiers: frozenset[str]
    """Tiers of storpool_qos that offerings name."""
    busy: frozenset[str]
    """Subjects of open operations, and every text in their data: names, global ids and paths among them."""


class FindingKind(enum.StrEnum):
    ORPHAN = "orphan"
    """A StorPool object of ours that no record and no operation knows."""
    UNATTRIBUTED = "unattributed"
    """A StorPool object with our tags that cannot be shown to be ours; never touched."""
    TAGS = "tags"
    LIMITS = "limits"
    LEAKED_ATTACHMENT = "leaked attachment"
    MISSING_ATTACHMENT = "missing attachment"
    MISSING_OBJECT = "missing object"
    """A record names an object that StorPool does not have."""
    NOT_COMPARED = "not compared"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between CloudStack's records, StorPool and hosts."""

    kind: FindingKind
    where: str
    """The object, as a user finds it."""
    text: str
    """What is wrong, and what was done or is to be done."""
    mended: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.text}"
