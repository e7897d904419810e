"""The management half of the StorPool plugin, object by object (`harness.spi.driver.PrimaryDataStoreDriver`)."""

from __future__ import annotations

from typing import Protocol

from harness.driver import tags
from harness.driver.backup import SnapshotBackup
from harness.driver.check_volume import CheckVolumes
from harness.driver.cloning import VolumeCloning
from harness.driver.deletion import Deletion
from harness.driver.discard import Discards
from harness.driver.encryption import VolumeEncryption
from harness.driver.exporting import VolumeExport
from harness.driver.fenced import release_fenced
from harness.driver.leaks import Leaks
from harness.driver.motion import Motion
from harness.driver.moving import VolumeMoving
from harness.driver.operations import Operation, Operations, log
from harness.driver.orphans import Orphans
from harness.driver.pools import Connect, Pools
from harness.driver.reconciler import Reconciler
from harness.driver.replicating import SnapshotReplication
from harness.driver.resizing import Resizing
from harness.driver.restoring import SnapshotRestoring
from harness.driver.retention import Retention
from harness.driver.reverting import SnapshotReverting
from harness.driver.seeding import TemplateSeeding
from harness.driver.settling import Settler
from harness.driver.snapshots import SnapshotTaking
from harness.driver.stats import SpaceStats
from harness.driver.templating import TemplateMaking
from harness.driver.vm_reverting import VmReverting
from harness.driver.vm_snapshots import VmSnapshotDeletion, VmSnapshotTaking
from harness.driver.vm_strategy import StorPoolVmSnapshots
from harness.driver.volumes import VolumeCreation
from harness.spi.driver import DriverRecords, HostEndpoints, ResizePayload, Space
from harness.spi.errors import Conflict, Error, MisuseError, NotFound, Unavailable, Unknown
from harness.spi.inventory import Finding
from harness.spi.objects import DataObject, Host, SnapshotObject, VolumeObject


class _Work(Protocol):
    """One kind of operation."""

    @property
    def kind(self) -> str: ...

    def recover(self, operation: Operation) -> str: ...


class StorPoolDriver:
    """Every method may be called again after a crash or an error, and then goes on with what was begun."""

    def __init__(
        self,
        operations: Operations,
        pools: Pools,
        records: DriverRecords,
        endpoints: HostEndpoints,
        check_volumes: CheckVolumes,
        settler: Settler,
        connect: Connect,
    ) -> None:
        self._operations = operations
        self._pools = pools
        self._records = records
        self._discards = discards = Discards(operations, pools, endpoints)
        self._volumes = VolumeCreation(operations, pools, records, discards, settler)
        self._snapshots = SnapshotTaking(operations, pools, records, settler)
        self._deletion = Deletion(operations, pools, records, discards)
        self._reverting = SnapshotReverting(operations, pools, records, self._volumes)
        self._tags = tags.TagUpdates(operations, pools, records)
        self._resizing = Resizing(operations, pools, records, endpoints, self._tags)
        orphans = Orphans(operations, pools, records)
        leaks = Leaks(operations, records)
        self._reconciler = Reconciler(operations, pools, records, self._tags, orphans, leaks)
        seeding = TemplateSeeding(operations, pools, records, endpoints, discards, settler)
        vm_taking = VmSnapshotTaking(operations, pools, records, discards, settler)
        vm_deletion = VmSnapshotDeletion(operations, pools, vm_taking)
        vm_reverting = VmReverting(operations, pools, records, self._volumes, discards)
        self.vm_snapshots = StorPoolVmSnapshots(pools, vm_taking, vm_reverting, vm_deletion)
        replication = SnapshotReplication(operations, pools, records, connect, settler)
        backup = SnapshotBackup(operations, pools, records, endpoints)
        restoring = SnapshotRestoring(self._volumes, records, endpoints)
        self._encryption = VolumeEncryption(self._volumes, records, endpoints)
        templating = TemplateMaking(operations, pools, records, endpoints, discards, settler)
        exporting = VolumeExport(operations, pools, records, endpoints, discards)
        moving = VolumeMoving(pools, records, endpoints, self._volumes, self._resizing)
        settler.add(self._volumes, self._snapshots, seeding, vm_taking, replication, templating)
        cloning = VolumeCloning(pools, records, self._volumes, self._encryption)
        self._motion = Motion(pools, seeding, cloning, backup, restoring, replication, templating, exporting, moving)
        works: tuple[_Work, ...] = (
            seeding,
            templating,
            exporting,
            self._volumes,
            self._snapshots,
            self._deletion,
            backup,
            replication,
            self._reverting,
            self._tags,
            self._resizing,
            check_volumes,
            orphans,
            leaks,
            discards,
            vm_taking,
            vm_deletion,
            vm_reverting,
        )
        self._retention = Retention(operations, records)
        self._stats = SpaceStats(pools)
        self._works = {work.kind: work for work in works}

    def can_copy(self, source: DataObject, destination: DataObject) -> bool:
        return self._motion.can_copy(source, destination)

    def create(self, volume: VolumeObject) -> VolumeObject:
        return self._encryption.create(volume) if volume.encrypted else self._volumes.create(volume)

    def copy(self, source: DataObject, destination: DataObject) -> DataObject:
        return self._motion.copy(source, destination)

    def delete(self, item: DataObject) -> None:
        if isinstance(item, VolumeObject) and item.path is None:
            self._volumes.forget(item)
        else:
            self._deletion.delete(item)

    def take_snapshot(self, snapshot: SnapshotObject) -> SnapshotObject:
        return self._snapshots.take(snapshot)

    def revert_snapshot(self, snapshot: SnapshotObject) -> int:
        return self._reverting.revert(snapshot) - snapshot.volume.overhead

    def provide_vm_info(self, vm_uuid: str, volume: VolumeObject) -> None:
        self._tags.update(volume, tags.attached(self._records, vm_uuid, volume))

    def provide_vm_tags(self, vm_uuid: str, volume: VolumeObject, key: str) -> None:
        if key == tags.VC_POLICY:
            self._tags.update(volume, tags.policy(self._records, vm_uuid))

    def revoke_access(self, volume: VolumeObject) -> None:
        try:
            self._tags.update(volume, dict(tags.DETACHED))
        except NotFound as gone:
            log.info("%s: nothing to revoke", gone)

    def release_fenced(self, volume: VolumeObject, host: Host) -> None:
        release_fenced(self._pools, self._records, volume, host)

    def resize(self, volume: VolumeObject, payload: ResizePayload) -> VolumeObject:
        return self._resizing.resize(volume, payload)

    def reconcile_volumes(self) -> list[Finding]:
        return self._reconciler.volumes()

    def reconcile_snapshots(self) -> list[Finding]:
        return self._reconciler.snapshots()

    def collect_pool_stats(self) -> list[str]:
        return self._stats.collect_pools()

    def collect_volume_stats(self) -> list[str]:
        return self._stats.collect_volumes()

    def pool_stats(self, pool_id: int) -> Space | None:
        return self._stats.of_pool(pool_id)

    def volume_stats(self, path: str) -> Space | None:
        return self._stats.of_volume(path)

    def recover(self) -> list[str]:
        """Finish or undo every open operation that no call of this process is working on.

        An operation may stay open, because a lost request may still arrive or a host still uses a temporary volume:
        call again later, at the latest after the settle time. Now and then it also forgets ended ones that are old.
        """
        lines = []
        away: set[str] = set()
        for operation in self._open():
            pool = operation.data.get("pool", "")
            if pool in away:
                continue
            try:
                line = self._recover(operation)
            except (Unavailable, Unknown) as error:
                # Each further operation would wait as long for an API that does not answer.
                away.add(pool)
                line = f"{operation}: still open, as all of pool {pool}: {error}"
            except MisuseError:
                raise
            except Exception:
                log.exception("%s: recovery ended early", operation)
                continue
            if line is not None:
                lines.append(line)
        try:
            self._retention.purge()
        except Error as error:
            lines.append(f"ended operations are kept: {error}")
        return lines

    def conclude(self, pool_id: int) -> None:
        """Before a pool goes: finish or undo every open operation on it, as `recover` does.

        What only waits until a lost request can no longer arrive is given up with the pool. Raises `Conflict` for one
        that is being worked on, and what keeps another from being looked at.
        """
        for operation in self._open():
            work = self._works.get(operation.kind)
            if pool_id not in operation.pool_ids or work is None:
                continue
            with self._operations.recovering(operation) as current:
                if current is not None:
                    log.info("%s", work.recover(current))
                elif self._operations.find(operation.kind, operation.subject) is not None:
                    raise Conflict(f"pool {pool_id}: {operation} is being worked on; try again when it is over")

    def _open(self) -> list[Operation]:
        """What was left to be discarded comes last: the others' undoing may take it over."""
        return sorted(self._operations.open(), key=lambda found: found.kind == Discards.kind)

    def _recover(self, operation: Operation) -> str | None:
        work = self._works.get(operation.kind)
        if work is None:
            return f"{operation}: this version of the driver does not know the kind; left as it is"
        waiting = self._discards.waiting(operation) if operation.kind == Discards.kind else None
        if waiting is not None:
            return waiting
        with self._operations.recovering(operation) as current:
            if current is None:
                return None
            removed = current.pool_ids.difference(self._records.pool_ids())
            if removed:
                current.undone()
                pools = ", ".join(map(str, sorted(removed)))
                return f"{current}: given up, because pool {pools} was removed; it left {current.data}"
            try:
                return work.recover(current)
            except (Unavailable, Unknown):
                raise
            except Error as error:
                return f"{current}: still open: {error}"
