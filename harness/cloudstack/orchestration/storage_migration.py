"""Volumes that go to another pool (spec/cloudstack-plugin.md 4.18).

CloudStack makes a second row for the copy and lets the two change their uuids at the end. Here the row stays, and what
the volume was is kept as a detail until it is deleted, so that at any time one row says where the volume is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from harness.cloudstack.orchestration import objects
from harness.cloudstack.orchestration.confirmation import confirm_stopped
from harness.cloudstack.orchestration.context import LOCK_TIMEOUT, Context
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.orchestration.storage_migration_checks import check_migratable, check_room
from harness.cloudstack.orchestration.volume import VolumeManager
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import LEFT_BEHIND, MIGRATING, DiskOffering, StoragePool, Vm, Volume
from harness.spi.errors import Conflict, Error, InvalidParameter, Unknown
from harness.spi.objects import ImageFormat, VolumeObject
from harness.spi.states import VmEvent, VmState, VolumeEvent, VolumeState

_log = logging.getLogger("harness.cloudstack.storage_migration")


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """Where a volume is to go."""

    pool_id: int
    disk_offering_id: int | None = None
    """The new offering, if it changes."""
    live: bool = False
    """Whether its VM may run meanwhile."""


class LeftBehind(msgspec.Struct, frozen=True, kw_only=True):
    """What a volume was before it was copied to another pool."""

    pool_id: int
    path: str
    format: ImageFormat


class StorageMigrationManager:
    """Ready -> Migrating -> Ready. After an error the volume is where it was, and nothing of the copy is left.

    Within a StorPool cluster it stays Migrating while it is not known on which pool it is; `finish` goes on then. A
    copy that a server left when it died is given up, as CloudStack does.
    """

    def __init__(self, context: Context, volumes: VolumeManager) -> None:
        self._context = context
        self._volumes = volumes

    def migrate(self, volume_id: int, move: Move) -> None:
        with self._held(volume_id, LOCK_TIMEOUT):
            self._migrate(volume_id, move)

    def migrate_vm(self, vm_id: int, pool_id: int) -> None:
        """Every volume of a Stopped VM that is not there yet; Stopped -> Migrating -> Stopped.

        After an error the volumes before the one that failed are on the new pool, as in CloudStack.
        """
        with self._context.vm_locks.hold(str(vm_id), LOCK_TIMEOUT):
            confirm_stopped(self._context, vm_id)
            with self._context.records.transaction("vm storage migration") as tx:
                vm = tx.get(Vm, vm_id)
                rows = check_vm(tx, vm, tx.get(StoragePool, pool_id))
                vm = tx.transition(vm, VmEvent.STORAGE_MIGRATION_REQUESTED, update_time=tx.now)
            try:
                for row in rows:
                    with self._context.volume_locks.hold(str(row.id), LOCK_TIMEOUT):
                        self._migrate(row.id, Move(pool_id=pool_id))
            finally:
                self._vm_stopped(vm_id)

    def finish(self, volume_id: int) -> None:
        """Settle what nobody works on any more; nothing while something is under way on the VM or volume."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._held(volume_id, 0.0))
            except Conflict as busy:
                _log.debug("migration of volume %s: %s", volume_id, busy)
                return
            with self._context.records.read() as tx:
                row = tx.get(Volume, volume_id)
                text = tx.details("volume_details", volume_id).get(MIGRATING)
            if text is not None:
                move = msgspec.json.decode(text, type=Move)
                item, destination = self._sides(row, move)
                if self._in_place(item, destination):
                    self._carry_out(row, move)
                else:
                    self._discard(row, destination)
                    self._not_migrated(row)
            self._remove_source(volume_id)

    def finish_vm(self, vm_id: int) -> None:
        """A VM that a server left Migrating to other storage; nothing while something is under way on it."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._context.vm_locks.hold(str(vm_id), 0.0))
            except Conflict as busy:
                _log.debug("migration of VM %s: %s", vm_id, busy)
                return
            self._vm_stopped(vm_id)

    def _vm_stopped(self, vm_id: int) -> None:
        with self._context.records.transaction("vm storage migrated") as tx:
            vm = tx.get(Vm, vm_id)
            if vm.state is VmState.MIGRATING and vm.host_id is None:
                tx.transition(vm, VmEvent.AGENT_REPORT_STOPPED, update_time=tx.now)

    def _migrate(self, volume_id: int, move: Move) -> None:
        """The caller holds the VM and the volume."""
        self._remove_source(volume_id)
        with self._context.records.read() as tx:
            row = tx.get(Volume, volume_id)
            vm = None if row.instance_id is None else tx.find(Vm, id=row.instance_id, removed=None)
        if vm is not None and vm.state is VmState.STOPPED:
            # Else its guest might still write to what is copied.
            confirm_stopped(self._context, vm.id)
        with self._context.records.transaction("volume migration") as tx:
            row, pool = tx.get(Volume, volume_id), tx.get(StoragePool, move.pool_id)
            check_migratable(tx, row, pool, move.disk_offering_id, live=move.live)
            check_room(tx, row, pool)
            row = tx.transition(row, VolumeEvent.MIGRATION_REQUESTED)
            tx.set_detail("volume_details", row.id, MIGRATING, msgspec.json.encode(move).decode())
        self._carry_out(row, move)
        try:
            self._remove_source(volume_id)
        except Error as error:
            _log.warning("volume %s was migrated, but what it was is still there: %s", row.uuid, error)

    def _carry_out(self, row: Volume, move: Move) -> None:
        item, destination = self._sides(row, move)
        with self._context.records.read() as tx:
            policy = objects.policy_of(tx, row)
        try:
            made = self._context.driver.copy(item, destination)
            if not isinstance(made, VolumeObject) or made.path is None:
                raise Error(f"the driver answered the migration of volume {row.uuid} with something else")
        except Error as error:
            text = f"Failed to migrate volume {row.name} to storage pool {_name(destination)}; {error}"
            if not self._in_place(item, destination):
                self._discard(row, destination)
            elif isinstance(error, Unknown):
                text += "; it is settled when StorPool answers"
                raise reworded(error, text) from error
            self._not_migrated(row)
            raise reworded(error, text) from error
        with self._context.records.transaction("volume migrated") as tx:
            row = self._written_down(tx, row, made, move)
            changed = objects.policy_of(tx, row) != policy
        if changed:
            # Whoever changed it since told the volume that was.
            self._volumes.tell_policy(row)

    def _written_down(self, tx: Transaction, row: Volume, made: VolumeObject, move: Move) -> Volume:
        """From here on the volume is what was made, and what it was before is to be deleted."""
        if made.path != row.path and row.path is not None and row.pool_id is not None:
            left = LeftBehind(pool_id=row.pool_id, path=row.path, format=row.format)
            tx.set_detail("volume_details", row.id, LEFT_BEHIND, msgspec.json.encode(left).decode())
        tx.set_detail("volume_details", row.id, MIGRATING, None)
        offering = tx.get(DiskOffering, move.disk_offering_id or row.disk_offering_id)
        new = move.disk_offering_id is not None
        return tx.transition(
            row,
            VolumeEvent.OPERATION_SUCCEEDED,
            path=made.path,
            pool_id=move.pool_id,
            last_pool_id=row.pool_id,
            size=made.size,
            disk_offering_id=offering.id,
            min_iops=offering.min_iops if new else row.min_iops,
            max_iops=offering.max_iops if new else row.max_iops,
            updated=tx.now,
        )

    def _discard(self, row: Volume, destination: VolumeObject) -> None:
        """A copy that was given up; what of it cannot be removed now, its driver removes later.

        Never asked for within a cluster: there is no copy then, and what the driver made for the volume is the volume.
        """
        try:
            self._context.driver.delete(destination)
        except Error as error:
            _log.warning("the copy of volume %s that was given up is removed later: %s", row.uuid, error)

    def _not_migrated(self, row: Volume) -> None:
        """Back where it was."""
        with self._context.records.transaction("volume not migrated") as tx:
            tx.set_detail("volume_details", row.id, MIGRATING, None)
            if row.state is VolumeState.MIGRATING:
                tx.transition(row, VolumeEvent.OPERATION_FAILED)

    def _remove_source(self, volume_id: int) -> None:
        """Delete what the volume was before its last migration; nothing when that is gone."""
        with self._context.records.read() as tx:
            text = tx.details("volume_details", volume_id).get(LEFT_BEHIND)
            if text is None:
                return
            left = msgspec.json.decode(text, type=LeftBehind)
            row = tx.get(Volume, volume_id)
            item = objects.volume_object(
                tx, msgspec.structs.replace(row, pool_id=left.pool_id, path=left.path, format=left.format)
            )
        self._context.driver.delete(item)
        with self._context.records.transaction("source of migration deleted") as tx:
            tx.set_detail("volume_details", volume_id, LEFT_BEHIND, None)

    def _sides(self, row: Volume, move: Move) -> tuple[VolumeObject, VolumeObject]:
        """The volume as it is, and as it is to be."""
        with self._context.records.read() as tx:
            item = objects.volume_object(tx, row)
            store = objects.pool_store(tx, move.pool_id)
            wanted = row
            if move.disk_offering_id is not None:
                offering = tx.get(DiskOffering, move.disk_offering_id)
                wanted = msgspec.structs.replace(row, disk_offering_id=offering.id, max_iops=offering.max_iops)
        return item, msgspec.structs.replace(
            item,
            store=store,
            path=None,
            format=objects.format_on(store, row),
            disk_offering_id=wanted.disk_offering_id,
            max_iops=wanted.max_iops,
        )

    @staticmethod
    def _in_place(item: VolumeObject, destination: VolumeObject) -> bool:
        """Whether the volume itself goes to the other pool."""
        one, other = item.store, destination.store
        return one is not None and other is not None and one.provider == other.provider

    @contextmanager
    def _held(self, volume_id: int, patience: float) -> Iterator[None]:
        """Hold the VM that has the volume, then the volume."""
        with ExitStack() as stack:
            with self._context.records.read() as tx:
                vm_id = tx.get(Volume, volume_id).instance_id
            if vm_id is not None:
                stack.enter_context(self._context.vm_locks.hold(str(vm_id), patience))
            stack.enter_context(self._context.volume_locks.hold(str(volume_id), patience))
            with self._context.records.read() as tx:
                if tx.get(Volume, volume_id).instance_id != vm_id:
                    raise Conflict("the volume was attached or detached meanwhile; try again")
            yield


def check_vm(tx: Transaction, vm: Vm, pool: StoragePool) -> list[Volume]:
    """The volumes that go to the pool; raises `InvalidParameter`, in CloudStack's words, when the VM may not."""
    if vm.removed is not None or vm.state is not VmState.STOPPED:
        raise InvalidParameter(
            "VM is not Stopped, unable to migrate the vm having the specified id: "
            f"{vm.display_name} is {vm.state.value}"
        )
    rows = [row for row in objects.volumes_of(tx, vm.id) if row.pool_id not in (None, pool.id)]
    if not rows:
        raise InvalidParameter(f"VM {vm.display_name} has no volume that is not on storage pool {pool.name} already")
    for row in rows:
        check_migratable(tx, row, pool, None, live=False)
    check_room(tx, rows[0], pool, sum(row.size for row in rows))
    return rows


def _name(item: VolumeObject) -> str:
    return item.store.name if item.store is not None else "none"
