"""VM snapshots: taken, reverted to, deleted (spec/cloudstack-plugin.md 3.4 and 4.19 to 4.21)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from harness.cloudstack.orchestration import objects
from harness.cloudstack.orchestration.confirmation import confirm_stopped
from harness.cloudstack.orchestration.context import LOCK_TIMEOUT, Context
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.orchestration.vm_snapshot_rules import (
    check_deletable,
    check_revertable,
    check_takeable,
    vm_snapshots_of,
)
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.inventory import POOL_DETAIL
from harness.cloudstack.records.rows import Vm, VmSnapshot, Volume
from harness.spi.errors import Error, InvalidParameter, Unavailable, Unknown
from harness.spi.states import VmSnapshotEvent, VmSnapshotState, VolumeEvent, VolumeState
from harness.spi.vm_snapshots import VmSnapshotObject

DETAILS = "vm_snapshot_details"


class VmSnapshotManager:
    def __init__(self, context: Context) -> None:
        self._context = context

    def check_can(self, vm_id: int, *, memory: bool) -> None:
        """Raises `InvalidParameter` when the provider cannot snapshot the VM, with the reason."""
        with self._context.records.read() as tx:
            vm = tx.get(Vm, vm_id)
            volumes = [objects.volume_object(tx, row) for row in objects.volumes_of(tx, vm_id)]
        on_pool = [volume for volume in volumes if volume.store is not None]
        why = self._context.provider.vm_snapshots.why_not(on_pool, memory=memory) if on_pool else None
        if why is not None:
            raise InvalidParameter(f"KVM does not support the type of snapshot requested: VM {vm.display_name}: {why}")

    def take(self, snapshot_id: int) -> VmSnapshot:
        """Allocated -> Creating -> Ready, and the VM's current one; else Error, with nothing left of it."""
        with self._context.vm_locks.hold(str(self._vm_of(snapshot_id)), LOCK_TIMEOUT):
            try:
                with self._context.records.transaction("vm snapshot create") as tx:
                    row = tx.get(VmSnapshot, snapshot_id)
                    check_takeable(tx, tx.get(Vm, row.vm_id), but=row.id)
                    current = tx.find(VmSnapshot, vm_id=row.vm_id, current=True, removed=None)
                    row = tx.transition(
                        row, VmSnapshotEvent.CREATE_REQUESTED, parent=None if current is None else current.id
                    )
                    item = _object(tx, row)
            except Error as error:
                self.fail_unbegun(snapshot_id)
                raise reworded(error, f"Failed to create vm snapshot; {error}") from error
            return self._take(row, item)

    def finish_take(self, snapshot_id: int) -> None:
        """After a restart: one that was being taken is taken, so that what the driver began has an owner."""
        with self._context.vm_locks.hold(str(self._vm_of(snapshot_id)), LOCK_TIMEOUT):
            with self._context.records.read() as tx:
                row = tx.get(VmSnapshot, snapshot_id)
                item = _object(tx, row)
            if row.state is VmSnapshotState.CREATING:
                self._take(row, item)

    def fail_unbegun(self, snapshot_id: int) -> None:
        """Allocated -> Error: nothing was asked of the driver yet, and nobody will."""
        with self._context.records.transaction("vm snapshot not begun") as tx:
            row = tx.get(VmSnapshot, snapshot_id)
            if row.state is VmSnapshotState.ALLOCATED:
                row = tx.transition(row, VmSnapshotEvent.CREATE_REQUESTED)
                tx.transition(row, VmSnapshotEvent.OPERATION_FAILED)

    def revert(self, snapshot_id: int) -> int:
        """Ready -> Reverting -> Ready, the VM's volumes RevertSnapshotting meanwhile; the VM's row id.

        Both stay so, and the VM cannot be started, until every disk is known to be reverted, or every one not: the
        background task goes on then.
        """
        vm_id = self._vm_of(snapshot_id)
        with self._held(vm_id, LOCK_TIMEOUT):
            # Else its guest might still write.
            confirm_stopped(self._context, vm_id)
            with self._context.records.transaction("vm snapshot revert") as tx:
                row = tx.get(VmSnapshot, snapshot_id)
                check_revertable(tx, row, tx.find(Vm, id=vm_id))
                for volume in objects.volumes_of(tx, vm_id):
                    tx.transition(volume, VolumeEvent.REVERT_SNAPSHOT_REQUESTED)
                row = tx.transition(row, VmSnapshotEvent.REVERT_REQUESTED)
                item = _object(tx, row)
            try:
                sizes = self._context.provider.vm_snapshots.revert(item)
            except Unknown as error:
                raise Unknown(
                    f"VM snapshot {row.display_name} may be reverted to already; its VM cannot be started before that"
                    f" is known, and it is looked after: {error}"
                ) from error
            except Error as error:
                self._not_reverted(row)
                raise reworded(error, f"Failed to revert to vm snapshot {row.display_name}; {error}") from error
            self._reverted(row, sizes)
        return vm_id

    def finish_revert(self, snapshot_id: int) -> None:
        """Go on with one that was left Reverting. `Conflict` when something is under way on the VM."""
        vm_id = self._vm_of(snapshot_id)
        with self._held(vm_id, 0.0):
            with self._context.records.read() as tx:
                row = tx.get(VmSnapshot, snapshot_id)
                item = _object(tx, row)
            if row.state is not VmSnapshotState.REVERTING:
                return
            try:
                sizes = self._context.provider.vm_snapshots.revert(item)
            except (Unknown, Unavailable):
                # What an earlier call did is not recorded yet.
                raise
            except Error:
                self._not_reverted(row)
                raise
            self._reverted(row, sizes)

    def delete(self, snapshot_id: int) -> None:
        """Ready, Error or Expunging -> Expunging -> removed; after an error Error, and it can be deleted again."""
        with self._context.vm_locks.hold(str(self._vm_of(snapshot_id)), LOCK_TIMEOUT):
            self._delete(snapshot_id)

    def delete_all(self, vm_id: int) -> None:
        """All of a VM that is to be destroyed. The caller holds the VM."""
        with self._context.records.read() as tx:
            rows = vm_snapshots_of(tx, vm_id)
        for row in rows:
            try:
                self._delete(row.id)
            except Error as error:
                raise reworded(error, f"Unable to delete all snapshots of the VM; {error}") from error

    def _take(self, row: VmSnapshot, item: VmSnapshotObject) -> VmSnapshot:
        try:
            made = self._context.provider.vm_snapshots.take(item)
        except Error as error:
            with self._context.records.transaction("vm snapshot not created") as tx:
                tx.transition(row, VmSnapshotEvent.OPERATION_FAILED)
            text = f"Failed to create vm snapshot {row.display_name}; {error}"
            raise reworded(error, text) from error
        with self._context.records.transaction("vm snapshot created") as tx:
            for uuid, path in made.paths.items():
                tx.set_detail(DETAILS, row.id, uuid, path)
            tx.set_detail(DETAILS, row.id, POOL_DETAIL, str(made.pool_id))
            _make_current(tx, row)
            return tx.transition(row, VmSnapshotEvent.OPERATION_SUCCEEDED, current=True)

    def _reverted(self, row: VmSnapshot, sizes: dict[str, int]) -> None:
        with self._context.records.transaction("vm snapshot reverted") as tx:
            for volume in _reverting(tx, row.vm_id):
                size = sizes.get(volume.uuid, volume.size)
                tx.transition(volume, VolumeEvent.OPERATION_SUCCEEDED, size=size, updated=tx.now)
            _make_current(tx, row)
            tx.transition(row, VmSnapshotEvent.OPERATION_SUCCEEDED, current=True)

    def _not_reverted(self, row: VmSnapshot) -> None:
        with self._context.records.transaction("vm snapshot not reverted") as tx:
            for volume in _reverting(tx, row.vm_id):
                tx.transition(volume, VolumeEvent.OPERATION_FAILED)
            tx.transition(row, VmSnapshotEvent.OPERATION_FAILED)

    def _delete(self, snapshot_id: int) -> None:
        with self._context.records.transaction("vm snapshot expunge") as tx:
            row = tx.get(VmSnapshot, snapshot_id)
            if row.removed is not None:
                return
            check_deletable(tx, row)
            if row.state is VmSnapshotState.ALLOCATED:
                tx.update(row, removed=tx.now)
                return
            row = tx.transition(row, VmSnapshotEvent.EXPUNGE_REQUESTED)
            item = _object(tx, row)
        try:
            self._context.provider.vm_snapshots.delete(item)
        except Error as error:
            with self._context.records.transaction("vm snapshot not expunged") as tx:
                tx.transition(row, VmSnapshotEvent.OPERATION_FAILED)
            raise reworded(error, f"Failed to delete vm snapshot {row.display_name}; {error}") from error
        with self._context.records.transaction("vm snapshot expunged") as tx:
            row = tx.get(VmSnapshot, snapshot_id)
            for child in tx.all(VmSnapshot, parent=row.id, removed=None):
                tx.update(child, parent=row.parent)
            parent = None if row.parent is None else tx.find(VmSnapshot, id=row.parent, removed=None)
            if row.current and parent is not None:
                tx.update(parent, current=True)
            tx.execute(f"DELETE FROM {DETAILS} WHERE resource_id = ?", (row.id,))
            tx.transition(row, VmSnapshotEvent.OPERATION_SUCCEEDED, current=False, removed=tx.now)

    def _vm_of(self, snapshot_id: int) -> int:
        with self._context.records.read() as tx:
            return tx.get(VmSnapshot, snapshot_id).vm_id

    @contextmanager
    def _held(self, vm_id: int, patience: float) -> Iterator[None]:
        """Hold the VM, then its volumes in the order of their ids."""
        with ExitStack() as stack:
            stack.enter_context(self._context.vm_locks.hold(str(vm_id), patience))
            with self._context.records.read() as tx:
                ids = sorted(row.id for row in objects.volumes_of(tx, vm_id))
            for volume_id in ids:
                stack.enter_context(self._context.volume_locks.hold(str(volume_id), patience))
            yield


def _object(tx: Transaction, row: VmSnapshot) -> VmSnapshotObject:
    details = tx.details(DETAILS, row.id)
    pool_id = details.pop(POOL_DETAIL, None)
    return VmSnapshotObject(
        id=row.id,
        uuid=row.uuid,
        name=row.display_name,
        vm_uuid=tx.get(Vm, row.vm_id).uuid,
        volumes=tuple(objects.volume_object(tx, volume) for volume in objects.volumes_of(tx, row.vm_id)),
        pool_id=None if pool_id is None else int(pool_id),
        paths=details,
    )


def _reverting(tx: Transaction, vm_id: int) -> list[Volume]:
    return [row for row in objects.volumes_of(tx, vm_id) if row.state is VolumeState.REVERT_SNAPSHOTTING]


def _make_current(tx: Transaction, row: VmSnapshot) -> None:
    """No other is; its own mark is set with its state."""
    for other in tx.all(VmSnapshot, vm_id=row.vm_id, current=True):
        if other.id != row.id:
            tx.update(other, current=False)
