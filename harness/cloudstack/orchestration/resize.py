"""Changing size and offering of volumes (spec/cloudstack-plugin.md 4.15 and 4.26)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from harness.cloudstack.orchestration import objects, placement
from harness.cloudstack.orchestration.confirmation import confirm_stopped
from harness.cloudstack.orchestration.context import LOCK_TIMEOUT, Context
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.orchestration.vm_snapshot_rules import refuse_with_vm_snapshots
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import ATTACHING, CHANGING, DETACHING, Vm, Volume
from harness.spi.driver import ResizePayload
from harness.spi.errors import Conflict, Error, InvalidParameter, Unknown
from harness.spi.states import VmState, VolumeEvent, VolumeState


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a volume is to become."""

    size: int
    """Bytes."""
    disk_offering_id: int
    min_iops: int | None
    max_iops: int | None
    new_offering: bool
    moves: bool
    """Whether the StorPool template follows the offering."""
    shrink_ok: bool

    def payload(self, vm: Vm | None) -> ResizePayload:
        runs = vm is not None and vm.state is VmState.RUNNING
        return ResizePayload(
            size=self.size,
            shrink_ok=self.shrink_ok,
            disk_offering_id=self.disk_offering_id if self.new_offering else None,
            max_iops=self.max_iops,
            moves=self.moves,
            vm_name=vm.instance_name if vm is not None and runs else "",
            host_id=vm.host_id if vm is not None and runs else None,
        )


class ResizeManager:
    """Ready -> Resizing -> Ready where the size changes; a volume that is on no pool yet is only written down anew."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def change(self, volume_id: int, change: Change) -> None:
        """After an error nothing is changed; after `Unknown` it is Resizing until `finish` has settled it."""
        with self._held(volume_id, LOCK_TIMEOUT) as vm:
            with self._context.records.transaction("volume change") as tx:
                row = tx.get(Volume, volume_id)
                check_changeable(tx, row)
                if row.state is VolumeState.ALLOCATED:
                    _written_down(tx, row, change)
                    return
                check_size_changeable(tx, row, change.size)
                placement.check_change(tx, row, change.disk_offering_id, change.size)
                tx.set_detail("volume_details", row.id, CHANGING, msgspec.json.encode(change).decode())
                if change.size != row.size:
                    tx.transition(row, VolumeEvent.RESIZE_REQUESTED)
            self._carry_out(volume_id, change, vm)

    def finish(self, volume_id: int) -> None:
        """Go on with a change that nobody works on any more. `Conflict` when something is under way on the VM."""
        with self._held(volume_id, 0.0) as vm:
            if vm is not None and vm.state in (VmState.STARTING, VmState.STOPPING, VmState.MIGRATING):
                raise Conflict(f"VM {vm.instance_name} is {vm.state.value}; the change goes on when it is not")
            with self._context.records.transaction("volume change again") as tx:
                row = tx.get(Volume, volume_id)
                text = tx.details("volume_details", volume_id).get(CHANGING)
                if row.state not in (VolumeState.RESIZING, VolumeState.READY):
                    tx.set_detail("volume_details", volume_id, CHANGING, None)
                    return
            if text is not None:
                self._carry_out(volume_id, msgspec.json.decode(text, type=Change), vm)

    def _carry_out(self, volume_id: int, change: Change, vm: Vm | None) -> None:
        with self._context.records.read() as tx:
            row = tx.get(Volume, volume_id)
            item = objects.volume_object(tx, row)
        try:
            if vm is not None and vm.state is not VmState.RUNNING:
                # Else its guest might still run, and not be told.
                confirm_stopped(self._context, vm.id)
            self._context.driver.resize(item, change.payload(vm))
        except Unknown as error:
            text = f"Failed to resize volume {row.name}; {error}; it is settled when StorPool and its host answer"
            raise reworded(error, text) from error
        except Error as error:
            with self._context.records.transaction("volume not changed") as tx:
                tx.set_detail("volume_details", row.id, CHANGING, None)
                if row.state is VolumeState.RESIZING:
                    tx.transition(row, VolumeEvent.OPERATION_FAILED)
            raise reworded(error, f"Failed to resize volume {row.name}; {error}") from error
        with self._context.records.transaction("volume changed") as tx:
            tx.set_detail("volume_details", row.id, CHANGING, None)
            if row.state is VolumeState.RESIZING:
                row = tx.transition(row, VolumeEvent.OPERATION_SUCCEEDED)
            _written_down(tx, row, change)

    @contextmanager
    def _held(self, volume_id: int, patience: float) -> Iterator[Vm | None]:
        """Hold the VM that has the volume, then the volume; the VM as it is then."""
        with ExitStack() as stack:
            with self._context.records.read() as tx:
                vm_id = tx.get(Volume, volume_id).instance_id
            if vm_id is not None:
                stack.enter_context(self._context.vm_locks.hold(str(vm_id), patience))
            stack.enter_context(self._context.volume_locks.hold(str(volume_id), patience))
            with self._context.records.read() as tx:
                if tx.get(Volume, volume_id).instance_id != vm_id:
                    raise Conflict("the volume was attached or detached meanwhile; try again")
                vm = None if vm_id is None else tx.find(Vm, id=vm_id, removed=None)
            yield vm


def check_changeable(tx: Transaction, row: Volume) -> None:
    """CloudStack's own refusals, close to its words."""
    if row.removed is not None or row.state not in (VolumeState.ALLOCATED, VolumeState.READY):
        raise InvalidParameter(
            "Volume should be in ready or allocated state before attempting a resize. "
            f"Volume {row.uuid} is in state {row.state.value}."
        )
    details = tx.details("volume_details", row.id)
    if any(name in details for name in (ATTACHING, DETACHING, CHANGING)):
        raise InvalidParameter(f"Volume {row.name} is being attached, detached or changed; try again when that is over")
    vm = None if row.instance_id is None else tx.find(Vm, id=row.instance_id, removed=None)
    if vm is not None and vm.state not in (VmState.RUNNING, VmState.STOPPED):
        raise InvalidParameter(
            f"The volume's VM should be running or stopped before a resize; {vm.display_name} is {vm.state.value}"
        )


def check_size_changeable(tx: Transaction, row: Volume, size: int) -> None:
    if size != row.size:
        refuse_with_vm_snapshots(
            tx, row.instance_id, f"Volume {row.name} is attached to a VM that has VM snapshots, so it cannot be resized"
        )


def _written_down(tx: Transaction, row: Volume, change: Change) -> None:
    row = tx.update(row, size=change.size, updated=tx.now)
    if change.new_offering:
        # Without one, another change may have brought a new one since this was asked for.
        tx.update(
            row,
            disk_offering_id=change.disk_offering_id,
            min_iops=change.min_iops,
            max_iops=change.max_iops,
        )
