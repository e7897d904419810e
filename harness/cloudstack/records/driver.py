"""The records as a storage driver sees them (`harness.spi.driver.DriverRecords`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from harness.cloudstack import settings
from harness.cloudstack.records import inventory
from harness.cloudstack.records.passphrases import Passphrases
from harness.cloudstack.records.rows import (
    Cluster,
    Operation,
    ResourceTag,
    ServiceOffering,
    Snapshot,
    StoragePool,
    Template,
    TemplatePool,
    Vm,
    VmSnapshot,
    Volume,
)
from harness.cloudstack.records.store import Records, Transaction
from harness.spi.driver import OperationRecord
from harness.spi.errors import Conflict, NotFound
from harness.spi.inventory import (
    CacheRecord,
    Inventory,
    MirrorRecord,
    SnapshotCopy,
    SnapshotRecord,
    VmRecord,
    VmSnapshotRecord,
    VolumeRecord,
)
from harness.spi.passphrase import Passphrase


class RecordsOfDriver:
    """Every call is one transaction."""

    def __init__(self, records: Records, passphrases: Passphrases | None = None) -> None:
        """Without `passphrases` none can be read."""
        self._records = records
        self._passphrases = passphrases

    def begin_operation(self, operation: OperationRecord) -> OperationRecord:
        with self._records.transaction(f"begin {operation.kind}") as tx:
            found = _open(tx, operation.kind, operation.subject)
            if found is None:
                found = tx.insert(
                    Operation(
                        uuid=operation.id,
                        kind=operation.kind,
                        subject=operation.subject,
                        step=operation.step,
                        data=_text(operation.data),
                        created_at=operation.created_at,
                    )
                )
        return _operation(found)

    def step_operation(self, operation_id: str, from_step: str, to_step: str, data: Mapping[str, str]) -> None:
        with self._records.transaction(f"step {to_step}") as tx:
            row = self._open(tx.find(Operation, uuid=operation_id), operation_id)
            if row.step != from_step:
                raise Conflict(f"operation {operation_id} is at {row.step}, not at {from_step}")
            tx.update(row, step=to_step, data=_text(_operation(row).data | dict(data)))

    def end_operation(self, operation_id: str, outcome: str) -> None:
        with self._records.transaction(f"end {outcome}") as tx:
            row = self._open(tx.find(Operation, uuid=operation_id), operation_id)
            tx.update(row, outcome=outcome, ended_at=tx.now)

    def open_operations(self) -> list[OperationRecord]:
        with self._records.read() as tx:
            return [_operation(row) for row in tx.all(Operation, outcome=None)]

    def open_operation(self, kind: str, subject: str) -> OperationRecord | None:
        with self._records.read() as tx:
            row = _open(tx, kind, subject)
            return None if row is None else _operation(row)

    def is_worked_on(self, subjects: Collection[str]) -> bool:
        marks = ", ".join("?" * len(subjects))
        # Left to itself SQLite reads all that are open, by the index of outcomes.
        asked = f"WHERE outcome IS NULL AND subject IN ({marks}) LIMIT 1"
        sql = f"SELECT 1 FROM operations INDEXED BY operations_open {asked}"
        with self._records.read() as tx:
            return tx.scalar(sql, tuple(subjects), Operation.TABLE) is not None

    def operation_known(self, operation_id: str) -> bool:
        with self._records.read() as tx:
            return tx.find(Operation, uuid=operation_id) is not None

    def purge_operations(self, ended_before: float, limit: int) -> int:
        with self._records.transaction("purge operations") as tx:
            return tx.execute(
                "DELETE FROM operations WHERE id IN"
                " (SELECT id FROM operations WHERE outcome IS NOT NULL AND ended_at < ? LIMIT ?)",
                (ended_before, limit),
            )

    def setting(self, name: str, *, pool_id: int | None = None, cluster_id: int | None = None) -> str | None:
        with self._records.read() as tx:
            pool = None if pool_id is None else tx.find(StoragePool, id=pool_id)
            zone_id = pool.data_center_id if pool else None
            return settings.value(tx, name, zone_id=zone_id, cluster_id=cluster_id, pool_id=pool_id)

    def pool_ids(self) -> list[int]:
        with self._records.read() as tx:
            return [row.id for row in tx.all(StoragePool, pool_type="StorPool", removed=None)]

    def pool_details(self, pool_id: int) -> dict[str, str]:
        with self._records.read() as tx:
            return tx.details("storage_pool_details", pool_id)

    def set_pool_detail(self, pool_id: int, key: str, value: str | None) -> None:
        with self._records.transaction("pool detail") as tx:
            tx.set_detail("storage_pool_details", pool_id, key, value)

    def disk_offering_details(self, disk_offering_id: int) -> dict[str, str]:
        with self._records.read() as tx:
            return tx.details("disk_offering_details", disk_offering_id)

    def compute_offering_details(self, disk_offering_id: int) -> dict[str, str]:
        with self._records.read() as tx:
            found = tx.find(ServiceOffering, disk_offering_id=disk_offering_id)
            return {} if found is None else tx.details("service_offering_details", found.id)

    def vm_tag(self, vm_uuid: str, key: str) -> str | None:
        with self._records.read() as tx:
            tag = tx.find(ResourceTag, resource_type="UserVm", resource_uuid=vm_uuid, key=key)
            return tag.value if tag else None

    def inventory(self) -> Inventory:
        with self._records.read() as tx:
            return inventory.inventory(tx)

    def passphrase(self, volume_uuid: str) -> Passphrase:
        with self._records.read() as tx:
            row = tx.find(Volume, uuid=volume_uuid)
            if row is None or self._passphrases is None:
                raise NotFound(f"the records have no passphrase of volume {volume_uuid}")
            return self._passphrases.of_volume(tx, row)

    def volume(self, uuid: str) -> VolumeRecord | None:
        with self._records.read() as tx:
            row = tx.find(Volume, uuid=uuid)
            return None if row is None else inventory.volume(tx, row)

    def snapshot(self, uuid: str) -> SnapshotRecord | None:
        with self._records.read() as tx:
            row = tx.find(Snapshot, uuid=uuid)
            return None if row is None else inventory.snapshot(tx, row)

    def vm_snapshot(self, uuid: str) -> VmSnapshotRecord | None:
        with self._records.read() as tx:
            row = tx.find(VmSnapshot, uuid=uuid)
            return None if row is None else inventory.vm_snapshot(tx, row)

    def snapshot_copy(self, uuid: str, pool_id: int) -> SnapshotCopy | None:
        with self._records.read() as tx:
            row = tx.find(Snapshot, uuid=uuid)
            return None if row is None else inventory.snapshot_copy(tx, row, pool_id)

    def cluster_of(self, storpool_cluster_id: str) -> int | None:
        with self._records.read() as tx:
            found = (
                row.id
                for row in tx.all(Cluster)
                if tx.details("cluster_details", row.id).get(inventory.CLUSTER_ID) == storpool_cluster_id
            )
            return next(found, None)

    def vm(self, uuid: str) -> VmRecord | None:
        with self._records.read() as tx:
            row = tx.find(Vm, uuid=uuid, removed=None)
            return None if row is None else inventory.vm(tx, row)

    def template_mirror(self, uuid: str) -> MirrorRecord | None:
        with self._records.read() as tx:
            row = tx.find(Template, uuid=uuid)
            return None if row is None else inventory.mirror(tx, row)

    def template_cache(self, template_id: int, pool_id: int) -> CacheRecord | None:
        with self._records.read() as tx:
            row = tx.find(TemplatePool, pool_id=pool_id, template_id=template_id)
            return None if row is None else inventory.cache(tx, row)

    def names_object(self, paths: Collection[str]) -> bool:
        with self._records.read() as tx:
            return inventory.names_object(tx, paths)

    @staticmethod
    def _open(row: Operation | None, operation_id: str) -> Operation:
        if row is None:
            raise NotFound(f"there is no operation {operation_id}")
        if row.outcome is not None:
            raise Conflict(f"operation {operation_id} was ended as {row.outcome}")
        return row


def _open(tx: Transaction, kind: str, subject: str) -> Operation | None:
    # Written out, because SQLite uses the index of open operations only where the text of a statement says NULL.
    found = tx.select(Operation, "outcome IS NULL AND subject = ? AND kind = ?", (subject, kind))
    return found[0] if found else None


def _operation(row: Operation) -> OperationRecord:
    data = msgspec.json.decode(row.data, type=dict[str, str])
    return OperationRecord(
        id=row.uuid, kind=row.kind, subject=row.subject, step=row.step, data=data, created_at=row.created_at
    )


def _text(data: Mapping[str, str]) -> str:
    return msgspec.json.encode(dict(sorted(data.items()))).decode()
