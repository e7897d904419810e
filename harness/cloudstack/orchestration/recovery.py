"""What a dead management server left half done: taken up again, object by object, when the next one starts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.cloudstack import settings
from harness.cloudstack.orchestration.attachment import AttachmentManager
from harness.cloudstack.orchestration.backup import BackupManager
from harness.cloudstack.orchestration.context import Context
from harness.cloudstack.orchestration.extraction import ExtractionManager
from harness.cloudstack.orchestration.iso import IsoManager
from harness.cloudstack.orchestration.migration import MigrationManager
from harness.cloudstack.orchestration.pool import PoolManager
from harness.cloudstack.orchestration.replication import ReplicationManager
from harness.cloudstack.orchestration.resize import ResizeManager
from harness.cloudstack.orchestration.revert import RevertManager
from harness.cloudstack.orchestration.snapshot import SnapshotManager
from harness.cloudstack.orchestration.storage_migration import StorageMigrationManager
from harness.cloudstack.orchestration.template import TemplateManager
from harness.cloudstack.orchestration.template_removal import TemplateRemoval
from harness.cloudstack.orchestration.vm import VmManager
from harness.cloudstack.orchestration.vm_snapshot import VmSnapshotManager
from harness.cloudstack.orchestration.volume import VolumeManager
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import (
    CHANGING,
    DETACHING,
    LEFT_BEHIND,
    MIGRATING,
    HaWork,
    ItWork,
    Snapshot,
    TemplatePool,
    TemplateStore,
    Vm,
    VmSnapshot,
    Volume,
)
from harness.spi.errors import Conflict, Error, Unavailable, Unknown
from harness.spi.states import SnapshotState, StoreRefEvent, StoreRefState, VmSnapshotState, VmState, VolumeState

_log = logging.getLogger("harness.cloudstack.recovery")


@dataclass(frozen=True, slots=True)
class Recovery:
    context: Context
    volumes: VolumeManager
    attachments: AttachmentManager
    vms: VmManager
    templates: TemplateManager
    template_removal: TemplateRemoval
    extractions: ExtractionManager
    snapshots: SnapshotManager
    backups: BackupManager
    reverts: RevertManager
    resizes: ResizeManager
    vm_snapshots: VmSnapshotManager
    replications: ReplicationManager
    isos: IsoManager
    pools: PoolManager
    migrations: MigrationManager
    storage_migrations: StorageMigrationManager
    unfinished: list[tuple[str, Callable[[int], object], int]] = field(default_factory=list)
    """What the server before left and this one could not finish yet; only the background task works on it."""

    def reset(self) -> None:
        """Before anything runs: cache entries that were being seeded are Allocated again, so the next clone seeds;
        backups begin anew; copies, templates and downloads that were being made are given up, for their jobs failed."""
        with self.context.records.transaction("template seeds interrupted") as tx:
            for entry in tx.all(TemplatePool, state=StoreRefState.CREATING):
                tx.transition(entry, StoreRefEvent.OPERATION_FAILED)
        self.backups.resume()
        self.context.files.resume()
        self.replications.reset()
        self.template_removal.abandon_interrupted()
        self.extractions.abandon_interrupted()

    def resume(self) -> None:
        """Once hosts are connected, and only at the start: nobody else works on what is in transition then.

        What cannot be finished yet is tried again by `settle`.
        """
        with self.context.records.read() as tx:
            volumes = tx.select(Volume, "removed IS NULL AND state IN ('Creating', 'Expunging') ORDER BY id")
            vms = tx.select(Vm, "removed IS NULL AND state IN ('Starting', 'Stopping', 'Expunging') ORDER BY id")
            snapshots = tx.select(
                Snapshot, "removed IS NULL AND state IN ('Allocated', 'Creating', 'Destroying') ORDER BY id"
            )
            groups = tx.select(
                VmSnapshot, "removed IS NULL AND state IN ('Allocated', 'Creating', 'Expunging') ORDER BY id"
            )
            refs = tx.select(TemplateStore, "state IN ('Allocated', 'Creating') ORDER BY id")
        take_up = {
            SnapshotState.ALLOCATED: self.snapshots.fail_unbegun,
            SnapshotState.CREATING: self.snapshots.finish_take,
            SnapshotState.DESTROYING: self.snapshots.delete,
        }
        take_up_group = {
            VmSnapshotState.ALLOCATED: self.vm_snapshots.fail_unbegun,
            VmSnapshotState.CREATING: self.vm_snapshots.finish_take,
            VmSnapshotState.EXPUNGING: self.vm_snapshots.delete,
        }
        for volume in volumes:
            finish = self.volumes.finish_create if volume.state is VolumeState.CREATING else self.volumes.expunge
            self.unfinished.append((f"volume {volume.uuid}", finish, volume.id))
        for vm in vms:
            repair = self.vms.expunge if vm.state is VmState.EXPUNGING else self.vms.reset_interrupted
            self.unfinished.append((f"VM {vm.instance_name}", repair, vm.id))
        for snapshot in snapshots:
            self.unfinished.append((f"snapshot {snapshot.uuid}", take_up[snapshot.state], snapshot.id))
        for group in groups:
            self.unfinished.append((f"VM snapshot {group.uuid}", take_up_group[group.state], group.id))
        for ref in refs:
            self.unfinished.append((f"template {ref.template_id}", self.templates.fetch, ref.template_id))
        self.settle()

    def settle(self) -> None:
        """Now and then: what is left of the start, then migrations, stops, attaches and detaches that no host has
        confirmed, changes and migrations of volumes whose outcome is not known, and expunges that failed."""
        self.unfinished[:] = [work for work in self.unfinished if not _try(*work)]
        with self.context.records.read() as tx:
            migrating = tx.all(ItWork)
        for work in migrating:
            _try(f"migration of VM {work.instance_id}", self.migrations.settle, work.instance_id)
        with self.context.records.read() as tx:
            waiting = {work.instance_id for work in tx.all(HaWork)}
            rows = tx.select(
                Volume,
                "removed IS NULL AND (state = 'Attaching' OR id IN"
                " (SELECT resource_id FROM volume_details WHERE name = ?)) ORDER BY id",
                (DETACHING,),
            )
            reverting = tx.all(Volume, state=VolumeState.REVERT_SNAPSHOTTING, removed=None)
            reverting_vms = tx.all(VmSnapshot, state=VmSnapshotState.REVERTING, removed=None)
            changing = tx.select(
                Volume, "id IN (SELECT resource_id FROM volume_details WHERE name = ?) ORDER BY id", (CHANGING,)
            )
            drives = tx.select(Vm, "removed IS NULL AND iso_changing AND state IN ('Running', 'Stopped') ORDER BY id")
            expunging = tx.select(Vm, "removed IS NULL AND state = 'Expunging' ORDER BY id")
            moving = tx.select(
                Volume,
                "id IN (SELECT resource_id FROM volume_details WHERE name IN (?, ?)) ORDER BY id",
                (MIGRATING, LEFT_BEHIND),
            )
            moving_vms = tx.select(Vm, "removed IS NULL AND state = 'Migrating' AND host_id IS NULL ORDER BY id")
        for row in moving:
            _try(f"migration of volume {row.uuid}", self.storage_migrations.finish, row.id)
        for vm in moving_vms:
            _try(f"migration of VM {vm.instance_name}", self.storage_migrations.finish_vm, vm.id)
        for row in rows:
            _try(f"attachment of volume {row.uuid}", self.attachments.settle, row.id)
        for row in reverting:
            _try(f"revert of volume {row.uuid}", self.reverts.finish, row.id)
        for group in reverting_vms:
            _try(f"revert to VM snapshot {group.uuid}", self.vm_snapshots.finish_revert, group.id)
        for row in changing:
            _try(f"change of volume {row.uuid}", self.resizes.finish, row.id)
        self.pools.settle()
        for vm in drives:
            _try(f"CD drive of VM {vm.instance_name}", self.isos.settle, vm.id)
        for vm in expunging:
            _try(f"expunge of VM {vm.instance_name}", self.vms.expunge_again, vm.id)
        for vm_id in sorted(waiting):
            _try(f"stop of VM {vm_id}", self.vms.confirm_stopped, vm_id)

    def clean_up(self) -> None:
        """The expunge task, for VMs destroyed `expunge.delay` seconds ago and those whose expunge failed, and the
        storage cleanup task, for volumes destroyed `storage.cleanup.delay` seconds ago."""
        with self.context.records.read() as tx:
            limit = tx.now - settings.seconds(tx, "expunge.delay")
            vms = tx.select(
                Vm,
                "removed IS NULL AND (state = 'Expunging' OR state IN ('Destroyed', 'Error') AND update_time < ?)"
                " ORDER BY id",
                (limit,),
            )
            volumes = self._expired_volumes(tx)
        for vm in vms:
            _try(f"VM {vm.instance_name}", self.vms.expunge, vm.id)
        for volume in volumes:
            _try(f"volume {volume.uuid}", self.volumes.expunge, volume.id)

    @staticmethod
    def _expired_volumes(tx: Transaction) -> list[Volume]:
        """Not those of destroyed VMs, which may still be recovered."""
        if not settings.flag(tx, "storage.cleanup.enabled"):
            return []
        limit = tx.now - settings.seconds(tx, "storage.cleanup.delay")
        return tx.select(
            Volume,
            "removed IS NULL AND state = 'Destroy' AND updated < ? AND (instance_id IS NULL OR instance_id NOT IN"
            " (SELECT id FROM vm_instance WHERE removed IS NULL AND state = 'Destroyed')) ORDER BY id",
            (limit,),
        )


def _try(what: str, work: Callable[[int], object], id: int) -> bool:
    """Whether there is nothing more to do: not while the other side is away."""
    try:
        work(id)
    except Error as error:
        _log.warning("%s is left as it was: %s", what, error)
        return not isinstance(error, Unavailable | Unknown | Conflict)
    return True
