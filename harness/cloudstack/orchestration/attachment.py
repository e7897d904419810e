"""Attaching volumes to VMs and detaching them (spec/cloudstack-plugin.md 4.4 and 4.5)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from harness.cloudstack import settings
from harness.cloudstack.orchestration import objects, placement
from harness.cloudstack.orchestration.confirmation import confirm_stopped
from harness.cloudstack.orchestration.context import LOCK_TIMEOUT, Context
from harness.cloudstack.orchestration.encryption import why_not_on_host
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.orchestration.vm_snapshot_rules import refuse_with_vm_snapshots
from harness.cloudstack.orchestration.volume import VolumeManager
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import ATTACHING, CHANGING, DETACHING, HostRow, Vm, Volume
from harness.spi.commands import GUEST_WAIT, AttachCommand, DettachCommand
from harness.spi.errors import Error, InvalidParameter, Unknown
from harness.spi.objects import VolumeType
from harness.spi.states import VmState, VolumeEvent, VolumeState

_log = logging.getLogger("harness.cloudstack.attachment")

MAX_DATA_VOLUMES = 64
CDROM = 3
"""Device id that CloudStack keeps for ISOs."""
ATTACH_WAIT = 120.0
TRIES = 3
PAUSE = 5.0


class AttachmentManager:
    def __init__(self, context: Context, volumes: VolumeManager) -> None:
        self._context = context
        self._volumes = volumes

    def attach(self, volume_id: int, vm_id: int, device_id: int | None = None) -> Volume:
        """Attach to a Running VM through its agent, to a Stopped one in the records. Raises when nothing is attached.

        A volume that was never used is created first, if the VM's ROOT volume is on a pool.
        """
        with self._context.vm_locks.hold(str(vm_id), LOCK_TIMEOUT):
            with self._context.records.read() as tx:
                vm, row = tx.get(Vm, vm_id), tx.get(Volume, volume_id)
                check_attachable(tx, vm, row, device_id)
                root_ready = any(
                    volume.volume_type is VolumeType.ROOT and volume.path for volume in objects.volumes_of(tx, vm_id)
                )
            if row.state is VolumeState.ALLOCATED and root_ready:
                row = self._volumes.ensure_ready(volume_id, vm.host_id)
            if vm.state is VmState.RUNNING:
                row = self._plug(vm, row, device_id)
            else:
                with self._context.records.transaction("volume assign") as tx:
                    row = _recheck(tx, vm, volume_id, device_id)
                    row = _assign(tx, row, vm, device_id)
            if row.path is not None:
                self._volumes.tell_attached(vm.uuid, row)
            return row

    def detach(self, volume_id: int) -> Volume:
        """Take the volume from its VM: through the agent when the VM runs. After an error it is still attached."""
        with self._context.records.read() as tx:
            row = tx.get(Volume, volume_id)
            vm_id = check_detachable(tx, row).id
        with self._context.vm_locks.hold(str(vm_id), LOCK_TIMEOUT):
            with self._context.records.read() as tx:
                row = tx.get(Volume, volume_id)
                vm = check_detachable(tx, row)
            if vm.state is VmState.RUNNING and vm.host_id is not None:
                self._unplug(vm, row)
            else:
                # Else its guest might still write to what the user was told is free.
                confirm_stopped(self._context, vm_id)
            return self.release(row)

    def release(self, row: Volume) -> Volume:
        """The records and tags of a volume that no VM has any more."""
        with self._context.records.transaction("volume detached") as tx:
            tx.set_detail("volume_details", row.id, DETACHING, None)
            row = tx.update(row, instance_id=None, device_id=None, attached=None, updated=tx.now)
        self._volumes.tell_detached(row)
        return row

    def release_detaching(self, vm_id: int) -> None:
        """Of a VM that is confirmed to be off: disks that it was asked to let go are its no more.

        Else a later start would give them to it again, and a late word of the old host would free them then. The caller
        holds the VM.
        """
        with self._context.records.read() as tx:
            rows = [
                row
                for row in objects.volumes_of(tx, vm_id)
                if DETACHING in tx.details("volume_details", row.id) and row.volume_type is VolumeType.DATADISK
            ]
        for row in rows:
            self.release(row)

    def settle(self, volume_id: int) -> None:
        """End an attach or detach that nobody works on any more: either way the volume ends detached.

        Raises while the host does not answer. `Conflict` when an operation is under way on the VM.
        """
        with self._context.records.read() as tx:
            intent = _intent(tx, volume_id)
        with self._context.vm_locks.hold(str(intent[0] if intent else 0), 0.0):
            with self._context.records.read() as tx:
                row, now = tx.get(Volume, volume_id), _intent(tx, volume_id)
            if row.state is VolumeState.ATTACHING:
                self._take_back(row)
            elif now is not None and now == intent:
                self._ask_to_detach(row, now)
                self.release(row)

    def _unplug(self, vm: Vm, row: Volume) -> None:
        """Have the agent detach. Where its answer is lost it is asked again, for asking twice does no harm."""
        intent = (vm.id, vm.host_id or 0, row.device_id or 0)
        with self._context.records.transaction("volume detach") as tx:
            tx.set_detail("volume_details", row.id, DETACHING, ":".join(map(str, intent)))
        try:
            self._insist(lambda: self._ask_to_detach(row, intent))
        except Error as error:
            text = f"Failed to detach volume {row.name} from VM {vm.display_name}; {error}"
            if isinstance(error, Unknown):
                text += "; it will be detached when its host answers"
            else:
                with self._context.records.transaction("volume not detached") as tx:
                    tx.set_detail("volume_details", row.id, DETACHING, None)
            raise reworded(error, text) from error

    def _ask_to_detach(self, row: Volume, intent: tuple[int, int, int]) -> None:
        vm_id, host_id, device_id = intent
        with self._context.records.read() as tx:
            vm = tx.find(Vm, id=vm_id)
            disk = None if vm is None else objects.disk(tx, msgspec.structs.replace(row, device_id=device_id))
            seconds = settings.seconds(tx, settings.WAIT_DETACH_DEVICE) / 1000
        if vm is not None and disk is not None:
            wait = ATTACH_WAIT + max(0.0, seconds - GUEST_WAIT)
            command = DettachCommand(vm_name=vm.instance_name, disk=disk, guest_wait=seconds, wait=wait)
            self._context.agents.send(host_id, command)

    def _insist(self, ask: Callable[[], None]) -> None:
        """Ask again after an answer that was lost. Once one was, no later refusal says that nothing was done."""
        lost: Unknown | None = None
        for _ in range(TRIES):
            if lost is not None:
                self._context.runtime.sleep(PAUSE)
            try:
                ask()
                return
            except Unknown as error:
                lost = error
            except Error:
                if lost is None:
                    raise
        if lost is not None:
            raise lost

    def _plug(self, vm: Vm, row: Volume, device_id: int | None) -> Volume:
        with self._context.records.transaction("volume attach") as tx:
            row = _recheck(tx, vm, row.id, device_id)
            device_id = _device_id(tx, vm, row, device_id)
            row = tx.transition(row, VolumeEvent.ATTACH_REQUESTED)
            tx.set_detail("volume_details", row.id, ATTACHING, f"{vm.id}:{vm.host_id}:{device_id}")
            disk = objects.disk(tx, msgspec.structs.replace(row, device_id=device_id))
        try:
            if vm.host_id is None:
                raise InvalidParameter(f"VM {vm.instance_name} is Running on no host")
            self._context.agents.send(vm.host_id, AttachCommand(vm_name=vm.instance_name, disk=disk, wait=ATTACH_WAIT))
        except Error as error:
            text = f"Failed to attach volume {row.name} to VM {vm.display_name}; {error}"
            if isinstance(error, Unknown):
                text += self._undo(row)
            else:
                self._not_plugged(row)
            raise reworded(error, text) from error
        with self._context.records.transaction("volume attached") as tx:
            tx.set_detail("volume_details", row.id, ATTACHING, None)
            return tx.transition(
                row,
                VolumeEvent.OPERATION_SUCCEEDED,
                instance_id=vm.id,
                device_id=device_id,
                attached=tx.now,
                updated=tx.now,
            )

    def _undo(self, row: Volume) -> str:
        """After an attach without an answer; what to tell the caller of the outcome."""
        for attempt in range(TRIES):
            if attempt:
                self._context.runtime.sleep(PAUSE)
            try:
                self._take_back(row)
            except Error as error:
                _log.warning("attach of volume %s cannot be undone yet: %s", row.uuid, error)
            else:
                return "; it was detached again"
        return "; whether it is attached is not known, it stays Attaching until its host answers"

    def _take_back(self, row: Volume) -> None:
        """Attaching -> Ready, once the host has detached it."""
        with self._context.records.read() as tx:
            intent = _intent(tx, row.id)
        if intent is not None:
            self._ask_to_detach(row, intent)
        self._not_plugged(row)

    def _not_plugged(self, row: Volume) -> None:
        with self._context.records.transaction("volume not attached") as tx:
            tx.set_detail("volume_details", row.id, ATTACHING, None)
            tx.transition(row, VolumeEvent.OPERATION_FAILED)


def check_attachable(tx: Transaction, vm: Vm, row: Volume, device_id: int | None) -> None:
    """CloudStack's own refusals, in its order and close to its words."""
    if row.removed is not None or row.state not in (VolumeState.ALLOCATED, VolumeState.READY):
        raise InvalidParameter(
            f"Volume state must be in Allocated, Ready or in Uploaded state; {row.name} is {row.state.value}"
        )
    placement.check_pool(tx, row)
    if CHANGING in tx.details("volume_details", row.id):
        raise InvalidParameter(f"Volume {row.name} is being changed; attach it when that is over")
    if row.instance_id is not None:
        raise InvalidParameter(f"Please specify a volume that is not attached to any VM; {row.name} has one")
    if vm.removed is not None or vm.state not in (VmState.RUNNING, VmState.STOPPED):
        raise InvalidParameter(f"Please specify a VM that is either running or stopped; it is {vm.state.value}")
    refuse_with_vm_snapshots(tx, vm.id, "Unable to attach volume, please specify a VM that does not have VM snapshots")
    if row.data_center_id != vm.data_center_id:
        raise InvalidParameter("Please specify a volume that is in the same zone as the VM")
    if (device_id == 0) != (row.volume_type is VolumeType.ROOT):
        raise InvalidParameter(f"Only a ROOT volume goes to device id 0, and {row.name} is {row.volume_type.value}")
    if device_id == 0 and vm.state is not VmState.STOPPED:
        raise InvalidParameter("A ROOT volume can be attached only to a VM that is stopped")
    data = [volume for volume in objects.volumes_of(tx, vm.id) if volume.volume_type is VolumeType.DATADISK]
    if len(data) >= MAX_DATA_VOLUMES:
        raise InvalidParameter(f"The specified VM already has the maximum number of data disks ({MAX_DATA_VOLUMES})")
    _device_id(tx, vm, row, device_id)
    if vm.state is VmState.RUNNING and vm.host_id is not None:
        host = tx.get(HostRow, vm.host_id)
        reason = why_not_on_host(tx, row, host)
        if reason is not None:
            raise InvalidParameter(f"Volume {row.name} cannot be attached on host {host.name}: {reason}")


def check_detachable(tx: Transaction, row: Volume) -> Vm:
    """The VM that has the volume; raises `InvalidParameter` when there is none or it may not be detached."""
    vm = None if row.instance_id is None else tx.find(Vm, id=row.instance_id)
    if row.removed is not None or vm is None or vm.removed is not None:
        raise InvalidParameter(f"The specified volume {row.name} is not attached to a VM")
    if vm.state not in (VmState.RUNNING, VmState.STOPPED, VmState.DESTROYED):
        raise InvalidParameter(f"Please specify a VM that is either running or stopped; it is {vm.state.value}")
    if row.volume_type is VolumeType.ROOT and vm.state is VmState.RUNNING:
        raise InvalidParameter("Please specify a VM that is stopped: ROOT volumes are not detached from a running one")
    refuse_with_vm_snapshots(tx, vm.id, "Unable to detach volume, please specify a VM that does not have VM snapshots")
    return vm


def _device_id(tx: Transaction, vm: Vm, row: Volume, wanted: int | None) -> int:
    used = {volume.device_id for volume in objects.volumes_of(tx, vm.id)}
    if wanted is not None:
        if wanted in used or wanted == CDROM or not 0 <= wanted <= MAX_DATA_VOLUMES + 1:
            raise InvalidParameter(f"deviceId {wanted} is used by VM {vm.instance_name} or cannot be used")
        return wanted
    if row.volume_type is VolumeType.ROOT:
        return 0
    return next(number for number in range(1, MAX_DATA_VOLUMES + 2) if number not in used and number != CDROM)


def _assign(tx: Transaction, row: Volume, vm: Vm, device_id: int | None) -> Volume:
    number = _device_id(tx, vm, row, device_id)
    return tx.update(row, instance_id=vm.id, device_id=number, attached=tx.now, updated=tx.now)


def _recheck(tx: Transaction, vm: Vm, volume_id: int, device_id: int | None) -> Volume:
    """The volume as it is now: another VM, whose lock is another one, may have taken it meanwhile."""
    row = tx.get(Volume, volume_id)
    check_attachable(tx, vm, row, device_id)
    return row


def _intent(tx: Transaction, volume_id: int) -> tuple[int, int, int] | None:
    details = tx.details("volume_details", volume_id)
    text = details.get(ATTACHING) or details.get(DETACHING)
    if text is None:
        return None
    vm_id, host_id, device_id = (int(part) for part in text.split(":"))
    return vm_id, host_id, device_id
