"""Reverting a volume to a snapshot (spec/cloudstack-plugin.md 4.14)."""

from __future__ import annotations

from harness.cloudstack.orchestration import objects
from harness.cloudstack.orchestration.backup import on_primary
from harness.cloudstack.orchestration.context import LOCK_TIMEOUT, Context
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.orchestration.vm_snapshot_rules import refuse_with_vm_snapshots
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import REVERTING, Snapshot, Vm, Volume
from harness.spi.errors import Error, InvalidParameter, Unknown
from harness.spi.objects import SnapshotObject
from harness.spi.states import SnapshotState, StoreRefState, VmState, VolumeEvent, VolumeState


class RevertManager:
    def __init__(self, context: Context) -> None:
        self._context = context

    def revert(self, snapshot_id: int) -> Snapshot:
        """The volume Ready -> RevertSnapshotting -> Ready.

        It stays RevertSnapshotting, so that nobody can use it, while it is not known whether the revert is still to
        come; the background task goes on then.
        """
        with self._context.records.read() as tx:
            row = tx.get(Snapshot, snapshot_id)
            vm_id = tx.get(Volume, row.volume_id).instance_id
        # In this order everywhere; what is attached by now is looked at once more below.
        with (
            self._context.vm_locks.hold(str(vm_id or "none"), LOCK_TIMEOUT),
            self._context.volume_locks.hold(str(row.volume_id), LOCK_TIMEOUT),
        ):
            with self._context.records.transaction("volume revert") as tx:
                check_revertable(tx, tx.get(Snapshot, snapshot_id))
                volume = tx.transition(tx.get(Volume, row.volume_id), VolumeEvent.REVERT_SNAPSHOT_REQUESTED)
                tx.set_detail("volume_details", volume.id, REVERTING, str(snapshot_id))
                item = _item(tx, row)
            self._revert(row, volume, item)
        return row

    def finish(self, volume_id: int) -> None:
        """Once more, for a volume that was left RevertSnapshotting."""
        with self._context.volume_locks.hold(str(volume_id), 0):
            with self._context.records.read() as tx:
                volume = tx.get(Volume, volume_id)
                intent = tx.details("volume_details", volume_id).get(REVERTING)
                if volume.state is not VolumeState.REVERT_SNAPSHOTTING or intent is None:
                    return
                row = tx.get(Snapshot, int(intent))
                item = _item(tx, row)
            self._revert(row, volume, item)

    def _revert(self, row: Snapshot, volume: Volume, item: SnapshotObject) -> None:
        try:
            size = self._context.driver.revert_snapshot(item)
        except Unknown as error:
            raise Unknown(
                f"Volume {volume.name} may be reverted to snapshot {row.name} already; it cannot be used before that is"
                f" known, and is looked after: {error}"
            ) from error
        except Error as error:
            with self._context.records.transaction("volume not reverted") as tx:
                tx.transition(volume, VolumeEvent.OPERATION_FAILED)
                tx.set_detail("volume_details", volume.id, REVERTING, None)
            raise reworded(error, f"Failed to revert volume {volume.name} to snapshot {row.name}; {error}") from error
        with self._context.records.transaction("volume reverted") as tx:
            tx.transition(volume, VolumeEvent.OPERATION_SUCCEEDED, size=size, updated=tx.now)
            tx.set_detail("volume_details", volume.id, REVERTING, None)


def check_revertable(tx: Transaction, row: Snapshot) -> None:
    """Raises `InvalidParameter`, in CloudStack's words, for what cannot be reverted."""
    volume = tx.get(Volume, row.volume_id)
    if row.state is not SnapshotState.BACKED_UP:
        raise InvalidParameter(f"Snapshot {row.name} is {row.state.value}, not BackedUp, so it cannot be reverted to")
    if volume.removed is not None:
        raise InvalidParameter(f"The volume {volume.name} of snapshot {row.name} does not exist any more")
    if volume.state is not VolumeState.READY:
        raise InvalidParameter(f"Volume {volume.name} is not in Ready state but {volume.state.value}")
    vm = None if volume.instance_id is None else tx.find(Vm, id=volume.instance_id)
    if vm is not None and vm.state is not VmState.STOPPED:
        raise InvalidParameter("The VM the specified disk attached to is not in the shutdown state.")
    refuse_with_vm_snapshots(
        tx,
        volume.instance_id,
        f"Unable to revert volume {volume.name} to a snapshot: its VM has VM snapshots; delete them first",
    )
    ref = on_primary(tx, row.id)
    if ref is None or ref.state is not StoreRefState.READY:
        raise InvalidParameter(
            f"Snapshot {row.name} is not on primary storage, so its volume cannot be reverted to it; make a volume of"
            " the snapshot instead"
        )


def _item(tx: Transaction, row: Snapshot) -> SnapshotObject:
    ref = on_primary(tx, row.id)
    if ref is None:
        raise InvalidParameter(f"Snapshot {row.name} is not on primary storage any more")
    return objects.snapshot_object(tx, row, ref)
