"""What the storage driver's reconciler compares: rows as `harness.spi.inventory` wants them."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from harness.cloudstack.records.rows import (
    ATTACHING,
    CHANGING,
    DETACHING,
    DETAIL_TABLES,
    MIGRATING,
    HaWork,
    HostRow,
    ItWork,
    Operation,
    Snapshot,
    SnapshotStore,
    Template,
    TemplatePool,
    TemplateStore,
    Vm,
    VmSnapshot,
    Volume,
)
from harness.cloudstack.records.store import Transaction
from harness.spi.inventory import (
    CacheRecord,
    HostRecord,
    Inventory,
    MirrorRecord,
    SnapshotCopy,
    SnapshotRecord,
    VmRecord,
    VmSnapshotRecord,
    VolumeRecord,
)
from harness.spi.objects import NAME_PREFIX, PATH_PREFIX, StoreRole, is_storpool_path
from harness.spi.states import StoreRefState

_PATHS = " UNION ALL ".join(
    (
        "SELECT path FROM volumes WHERE removed IS NULL",
        "SELECT install_path FROM snapshot_store_ref",
        "SELECT local_path FROM template_spool_ref",
        "SELECT install_path FROM template_spool_ref",
        "SELECT install_path FROM template_store_ref",
        "SELECT local_path FROM template_store_ref",
        *(f"SELECT value FROM {table}" for table in DETAIL_TABLES),
    )
)
"""One column `path`: whatever may name a StorPool object, among other texts."""
_OFFERING_TEMPLATES = " UNION ".join(
    f"SELECT value FROM {table} WHERE name = 'SP_TEMPLATE'"
    for table in ("disk_offering_details", "service_offering_details")
)
CLUSTER_ID, NOT_SET = "sp.cluster.id", "n/a"
"""The setting of a cluster that its hosts report, and what it is until then."""
_PREFIXES = (PATH_PREFIX, NAME_PREFIX)
POOL_DETAIL = "spStoragePoolId"
"""Detail of snapshots, VM snapshots and templates: row id of a pool by whose API StorPool's snapshots are reached."""


def inventory(tx: Transaction) -> Inventory:
    """All of it, in one consistent view."""
    return Inventory(
        volumes=tuple(
            volume(tx, row)
            for row in tx.select(Volume, "removed IS NULL AND path IS NOT NULL ORDER BY id")
            if is_storpool_path(row.path or "")
        ),
        snapshots=tuple(copy for row in tx.all(Snapshot, removed=None) for copy in _snapshots(tx, row)),
        templates=tuple(cache(tx, row) for row in tx.all(TemplatePool)),
        vms=tuple(vm(tx, row) for row in tx.all(Vm, removed=None)),
        hosts=tuple(_host(tx, row) for row in tx.all(HostRow)),
        paths=frozenset(path for path in tx.texts(_PATHS) if path.startswith(_PREFIXES)),
        offering_templates=frozenset(tx.texts(_OFFERING_TEMPLATES)),
        tiers=frozenset(tx.texts("SELECT value FROM disk_offering_details WHERE name = 'SP_QOSCLASS'")),
        busy=_busy(tx),
        vm_snapshots=tuple(vm_snapshot(tx, row) for row in tx.all(VmSnapshot, removed=None)),
    )


def names_object(tx: Transaction, paths: Collection[str]) -> bool:
    """Whether one of the paths stands where `inventory` looks for them."""
    marks = ", ".join("?" * len(paths))
    return tx.scalar(f"SELECT 1 FROM ({_PATHS}) WHERE path IN ({marks}) LIMIT 1", tuple(paths)) is not None


def volume(tx: Transaction, row: Volume) -> VolumeRecord:
    owner = None if row.instance_id is None else tx.find(Vm, id=row.instance_id)
    details = tx.details("volume_details", row.id)
    return VolumeRecord(
        uuid=row.uuid,
        state=row.state,
        removed=row.removed is not None,
        pool_id=row.last_pool_id if row.pool_id is None else row.pool_id,
        path=row.path if is_storpool_path(row.path or "") else None,
        vm_uuid=None if owner is None else owner.uuid,
        device_id=row.device_id,
        disk_offering_id=row.disk_offering_id,
        max_iops=row.max_iops,
        plugging=any(name in details for name in (ATTACHING, DETACHING, CHANGING, MIGRATING)),
        changed_at=max(row.created, row.updated or 0.0, row.attached or 0.0),
    )


def snapshot(tx: Transaction, row: Snapshot) -> SnapshotRecord:
    ref = tx.find(SnapshotStore, snapshot_id=row.id, store_role=StoreRole.PRIMARY)
    return SnapshotRecord(
        uuid=row.uuid,
        state=row.state,
        removed=row.removed is not None,
        pool_id=None if ref is None else ref.store_id,
        path=None if ref is None else ref.install_path,
    )


def vm_snapshot(tx: Transaction, row: VmSnapshot) -> VmSnapshotRecord:
    details = tx.details("vm_snapshot_details", row.id)
    pool_id = details.pop(POOL_DETAIL, None)
    return VmSnapshotRecord(
        uuid=row.uuid,
        state=row.state,
        removed=row.removed is not None,
        pool_id=None if pool_id is None else int(pool_id),
        paths=tuple(details.values()),
    )


def _snapshots(tx: Transaction, row: Snapshot) -> list[SnapshotRecord]:
    """Once for each pool; once without a pool when none has it."""
    first = snapshot(tx, row)
    others = tx.all(SnapshotStore, snapshot_id=row.id, store_role=StoreRole.PRIMARY)[1:]
    return [
        first,
        *(
            msgspec.structs.replace(first, pool_id=ref.store_id, path=ref.install_path)
            for ref in others
            if ref.state is StoreRefState.READY
        ),
    ]


def snapshot_copy(tx: Transaction, row: Snapshot, pool_id: int) -> SnapshotCopy | None:
    ref = tx.find(SnapshotStore, snapshot_id=row.id, store_role=StoreRole.PRIMARY, store_id=pool_id)
    if ref is None:
        return None
    return SnapshotCopy(snapshot_uuid=row.uuid, pool_id=pool_id, state=ref.state, path=ref.install_path)


def cache(tx: Transaction, row: TemplatePool) -> CacheRecord:
    return CacheRecord(
        template_id=row.template_id,
        template_uuid=tx.get(Template, row.template_id).uuid,
        pool_id=row.pool_id,
        state=row.state,
        path=row.local_path or row.install_path,
    )


def mirror(tx: Transaction, row: Template) -> MirrorRecord:
    ref = tx.find(TemplateStore, template_id=row.id)
    return MirrorRecord(
        uuid=row.uuid,
        removed=row.removed is not None,
        state=None if ref is None else ref.state,
        path=None if ref is None else ref.local_path,
    )


def vm(tx: Transaction, row: Vm) -> VmRecord:
    return VmRecord(
        uuid=row.uuid,
        state=row.state,
        host_id=row.host_id,
        unconfirmed_hosts=frozenset(work.host_id for work in tx.all(HaWork, instance_id=row.id)) | _migrating(tx, row),
        changed_at=row.update_time,
    )


def _migrating(tx: Transaction, row: Vm) -> frozenset[int]:
    """Hosts that a migration of the VM concerns, also before and after it is called Migrating."""
    work = tx.find(ItWork, instance_id=row.id)
    return frozenset() if work is None else frozenset((work.source_id, work.resource_id))


def _host(tx: Transaction, row: HostRow) -> HostRecord:
    client = int(row.parent) if row.parent and row.parent.isdigit() else None
    cluster = tx.details("cluster_details", row.cluster_id).get(CLUSTER_ID)
    return HostRecord(
        id=row.id,
        name=row.name,
        up=row.status == "Up",
        storpool_client_id=client,
        storpool_cluster_id=None if cluster in ("", NOT_SET) else cluster,
    )


def _busy(tx: Transaction) -> frozenset[str]:
    busy: set[str] = set()
    for row in tx.all(Operation, outcome=None):
        busy |= {row.uuid, row.subject, *msgspec.json.decode(row.data, type=dict[str, str]).values()}
    return frozenset(busy)
