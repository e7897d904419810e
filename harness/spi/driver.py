"""What CloudStack asks of a primary storage provider (spec/cloudstack-plugin.md section 2), as blocking calls.

All methods may be called again after a crash or a lost answer and then finish, or report, what the first call began.
They raise `harness.spi.errors.Error`; after an error the driver's operation record says what is still to be undone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

from harness.spi.commands import AnyAnswer, AnyCommand
from harness.spi.inventory import (
    CacheRecord,
    Finding,
    Inventory,
    MirrorRecord,
    SnapshotCopy,
    SnapshotRecord,
    VmRecord,
    VmSnapshotRecord,
    VolumeRecord,
)
from harness.spi.objects import DataObject, DataStore, Host, SnapshotObject, VolumeObject
from harness.spi.passphrase import Passphrase
from harness.spi.ports import Endpoint
from harness.spi.vm_snapshots import VmSnapshotStrategy


class ResizePayload(msgspec.Struct, frozen=True, kw_only=True):
    """What a volume is to become."""

    size: int
    """Bytes, of the guest's disk."""
    shrink_ok: bool = False
    disk_offering_id: int | None = None
    """The new offering; without one only the size changes."""
    max_iops: int | None = None
    """The new limit, of a new offering that has neither tier nor StorPool template; None is the template's, or none."""
    moves: bool = False
    """Whether the volume goes to the StorPool template of the new offering, or back to the pool's."""
    vm_name: str = ""
    """Domain of the VM that has the volume."""
    host_id: int | None = None
    """Where that runs; None when no guest has to be told."""


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """Real space of a pool or a volume in bytes, as StorPool tells it."""

    capacity: int
    """Of a volume, its size."""
    used: int


class PrimaryDataStoreDriver(Protocol):
    """Management half of the plugin, object by object."""

    def can_copy(self, source: DataObject, destination: DataObject) -> bool: ...

    def create(self, volume: VolumeObject) -> VolumeObject:
        """Create an empty volume on `volume.store`; the answer has `path` and the real `size`.

        An encrypted one has a LUKS header then, in space of its own.
        """
        ...

    def copy(self, source: DataObject, destination: DataObject) -> DataObject:
        """Copy between stores or within one; the answer is `destination` with `path` and `size`.

        Image store template to pool template seeds the cache: the answer's path is the cached snapshot's.
        Pool template, or pool snapshot, to volume clones without copying data; a template to an encrypted volume is
        copied, and the volume of an encrypted one's snapshot is opened by the same passphrase.
        Raises `NotFound` when the source is gone from StorPool: the cache entry must be seeded again, the snapshot
        brought back from its backup.
        Pool snapshot to image store writes its backup to the new file `destination.path`, and leaves it on the pool.
        After an error part of the file may be there, and after `Unknown` it may still be written to.
        Image store snapshot to volume copies the backup onto a new volume.
        Pool snapshot to a pool in another location makes a copy there, which may still be recovering when this returns.
        Volume, or pool snapshot, to template makes a StorPool snapshot of the template's (the answer's `mirror`), and
        copies that to the new file `destination.path`; volume to volume on an image store copies to that file, too.
        Volume to volume gives it another pool, and `destination.path` only where that is a file. Within a StorPool
        cluster the volume itself goes there, and its path stays; else it is a copy, and the source must be deleted when
        the records point to it. After `Unknown` within a cluster, call again until it ends otherwise.
        """
        ...

    def delete(self, item: DataObject) -> None:
        """Delete from the pool. An object that is already gone is success; `Conflict` names who holds it open."""
        ...

    def take_snapshot(self, snapshot: SnapshotObject) -> SnapshotObject:
        """Snapshot `snapshot.volume` on its pool; the answer has `path` and `size`."""
        ...

    def revert_snapshot(self, snapshot: SnapshotObject) -> int:
        """Put `snapshot.volume` back to what it was then; the size it has now. Its path stays.

        No host may have it open: `Conflict` names one that has, or a resize that may still arrive at StorPool. After
        `Unknown` the revert may still be carried out, so the volume must not be used before another call has ended
        otherwise; after any other error it is as it was.
        """
        ...

    def provide_vm_info(self, vm_uuid: str, volume: VolumeObject) -> None:
        """After an attach: tags `cvm`, `disk`, `vc-policy`, `qc` on the volume."""
        ...

    def provide_vm_tags(self, vm_uuid: str, volume: VolumeObject, key: str) -> None:
        """After a VM tag of this key was set or removed: the same on the volume, from the records."""
        ...

    def revoke_access(self, volume: VolumeObject) -> None:
        """After a detach: clears `cvm`, `disk` and `vc-policy`, keeps `uuid` and `qc`."""
        ...

    def release_fenced(self, volume: VolumeObject, host: Host) -> None:
        """Detach the volume from a host that is known to be switched off. What is not attached there, or gone, is done.

        The only detach by force that there is. After `Unknown` it may be done later: until it can be no more, nothing
        may be started on that host.
        """
        ...

    def resize(self, volume: VolumeObject, payload: ResizePayload) -> VolumeObject:
        """Change size, tier, template and limits of a volume, all of it or nothing; the answer has the new size.

        While it is asked for the records must not call the volume steady. After `Unknown` it is done in part, or may
        be: call again with the same payload until it succeeds or ends with another error. Then nothing was changed.
        """
        ...

    def collect_pool_stats(self) -> list[str]:
        """Ask StorPool for the space of every pool; why it was not told of some. Never raises because of one cluster.

        What was known before stays known until then.
        """
        ...

    def collect_volume_stats(self) -> list[str]:
        """As `collect_pool_stats`, for volumes."""
        ...

    def pool_stats(self, pool_id: int) -> Space | None:
        """What was told last; None when it never was."""
        ...

    def volume_stats(self, path: str) -> Space | None: ...

    def recover(self) -> list[str]:
        """Finish or undo every operation a dead management server left open; one line of text for each.

        For one management server on these records: what another one is doing at this moment would be undone too.
        Called now and then, it also forgets records of operations that ended long ago.
        """
        ...

    def reconcile_volumes(self) -> list[Finding]:
        """Compare volumes and attachments with the records; mend what may be mended, and tell everything found.

        Beside everything else that goes on. Never raises because of one object or one StorPool cluster.
        """
        ...

    def reconcile_snapshots(self) -> list[Finding]:
        """As `reconcile_volumes`, for volume snapshots, cached templates and delayed deletions."""
        ...


class PoolRequest(msgspec.Struct, frozen=True, kw_only=True):
    """createStoragePool, as the provider gets it."""

    name: str
    url: str
    """May hold a secret; never log it."""
    scope: str
    capacity_bytes: int | None
    capacity_iops: int | None = None
    """Kept, and used for nothing: StorPool's limits are those of volumes."""
    tags: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"PoolRequest(name={self.name!r}, scope={self.scope!r}, tags={self.tags!r})"


class PoolDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What the records keep of a new pool."""

    uuid: str
    path: str
    tags: tuple[str, ...]
    details: dict[str, str]
    """Connection details, `SP_AUTH_TOKEN` among them; never shown by an API."""

    def __repr__(self) -> str:
        return f"PoolDescription(uuid={self.uuid!r}, tags={self.tags!r}, details of {', '.join(sorted(self.details))})"


class PoolLifeCycle(Protocol):
    def initialize(self, request: PoolRequest) -> PoolDescription:
        """Check the request against StorPool; raises `InvalidParameter` or `Unavailable` and makes nothing then."""
        ...

    def change_connection(self, pool_id: int, url: str) -> dict[str, str]:
        """Details of the pool with the connection of this URL, which may hold a secret, once StorPool was asked by it.

        Only token and addresses may differ. Raises `InvalidParameter` or `Unavailable`; then nothing has changed.
        """
        ...

    def remove(self, pool_id: int) -> None:
        """Remove what the provider itself made on a pool that nothing uses any more; what is gone already is done.

        `Conflict` while a host has it open, or an operation of the driver on this pool is not over.
        """
        ...


class HostListener(Protocol):
    def host_connected(self, host: Host, pool: DataStore) -> Host:
        """Make the pool usable on the host; the answer carries the host's StorPool client id.

        Raises when the host cannot use the pool; the text says why.
        """
        ...


class DataStoreProvider(Protocol):
    """`StorPool` as CloudStack's provider list knows it."""

    @property
    def name(self) -> str: ...

    @property
    def driver(self) -> PrimaryDataStoreDriver: ...

    @property
    def life_cycle(self) -> PoolLifeCycle: ...

    @property
    def host_listener(self) -> HostListener: ...

    @property
    def vm_snapshots(self) -> VmSnapshotStrategy: ...


class OperationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One mutating operation of the driver, durable before its first effect (design section 4)."""

    id: str
    """A uuid; names of StorPool objects are derived from it, so that a create can be found again by name."""
    kind: str
    subject: str
    """What it works on, for example `volume:<uuid>`; at most one open operation of a kind and subject exists."""
    step: str
    """The step whose intent was recorded last."""
    data: dict[str, str]
    """What later steps and recovery need: names, global ids."""
    created_at: float


class DriverRecords(Protocol):
    """The part of CloudStack's records that a storage driver reads and writes. Every call is one transaction."""

    def begin_operation(self, operation: OperationRecord) -> OperationRecord:
        """Store the operation, or give back the open one of the same kind and subject."""
        ...

    def step_operation(self, operation_id: str, from_step: str, to_step: str, data: Mapping[str, str]) -> None:
        """Compare-and-set of the step, merging `data`; raises `Conflict` when the record is not at `from_step`."""
        ...

    def end_operation(self, operation_id: str, outcome: str) -> None:
        """Close it; `outcome` is "done" or "undone"."""
        ...

    def open_operations(self) -> list[OperationRecord]: ...

    def open_operation(self, kind: str, subject: str) -> OperationRecord | None:
        """The open one of this kind and subject; costs the same however many are open."""
        ...

    def is_worked_on(self, subjects: Collection[str]) -> bool:
        """Whether an operation of one of these subjects is open; costs the same however many are open."""
        ...

    def operation_known(self, operation_id: str) -> bool:
        """Whether the operation was begun on these records, and not purged since."""
        ...

    def purge_operations(self, ended_before: float, limit: int) -> int:
        """Forget at most `limit` operations that ended before that time; how many it were."""
        ...

    def setting(self, name: str, *, pool_id: int | None = None, cluster_id: int | None = None) -> str | None:
        """Value of a configuration key: the narrowest scope that has one, else its default."""
        ...

    def pool_ids(self) -> list[int]:
        """Row ids of the StorPool pools that are not removed."""
        ...

    def pool_details(self, pool_id: int) -> dict[str, str]: ...

    def set_pool_detail(self, pool_id: int, key: str, value: str | None) -> None:
        """Set, or with None remove, one detail."""
        ...

    def disk_offering_details(self, disk_offering_id: int) -> dict[str, str]: ...

    def compute_offering_details(self, disk_offering_id: int) -> dict[str, str]:
        """Of the compute offering that the disk offering belongs to; empty when it is no such."""
        ...

    def vm_tag(self, vm_uuid: str, key: str) -> str | None: ...

    def inventory(self) -> Inventory:
        """Everything on StorPool pools; for the reconciler only, because it grows with the cloud."""
        ...

    def passphrase(self, volume_uuid: str) -> Passphrase:
        """Of an encrypted volume; raises `NotFound` when the records have none."""
        ...

    def volume(self, uuid: str) -> VolumeRecord | None:
        """The volume, removed or not; None when these records never had it."""
        ...

    def snapshot(self, uuid: str) -> SnapshotRecord | None:
        """The snapshot, removed or not; None when these records never had it."""
        ...

    def vm_snapshot(self, uuid: str) -> VmSnapshotRecord | None:
        """The VM snapshot, removed or not; None when these records never had it."""
        ...

    def snapshot_copy(self, uuid: str, pool_id: int) -> SnapshotCopy | None:
        """What the pool has of a snapshot, in whatever state; None when it has no row."""
        ...

    def cluster_of(self, storpool_cluster_id: str) -> int | None:
        """Row id of the CloudStack cluster whose `sp.cluster.id` is exactly this."""
        ...

    def vm(self, uuid: str) -> VmRecord | None: ...

    def template_mirror(self, uuid: str) -> MirrorRecord | None:
        """The template on its image store; None when these records never had it."""
        ...

    def template_cache(self, template_id: int, pool_id: int) -> CacheRecord | None:
        """The cache entry in whatever state."""
        ...

    def names_object(self, paths: Collection[str]) -> bool:
        """Whether any row or detail of what is not removed names one of these StorPool paths."""
        ...


class HostEndpoints(Protocol):
    """Agents, chosen as the framework's endpoint selector does: Up and Enabled hosts only."""

    def select(
        self,
        pool: DataStore,
        storpool_cluster_id: str | None = None,
        *,
        encrypting: bool = False,
        also: DataStore | None = None,
    ) -> Endpoint:
        """An agent whose host has the pool, and `also` that one, connected, and can encrypt volumes when that is asked
        for; `InsufficientCapacity` when there is none.

        One in a CloudStack cluster with exactly this `sp.cluster.id`, if there is one: what is in another StorPool
        cluster can be attached there too, but its data has a longer way.
        """
        ...

    def host(self, host_id: int) -> Endpoint: ...

    def named(self, name: str) -> Endpoint:
        """The agent of the host with this name, which is Up, be it Enabled or not; else `Unavailable`."""
        ...

    def tell(self, host_id: int, command: AnyCommand) -> AnyAnswer:
        """Send a command for a VM, with its place among all that are sent for it; the answer's result is true.

        Raises the error that another answer stands for.
        """
        ...
