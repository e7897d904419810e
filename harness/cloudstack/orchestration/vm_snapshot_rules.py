"""What CloudStack refuses because of VM snapshots, close to its words (spec/cloudstack-plugin.md 4.19 to 4.21)."""

from __future__ import annotations

from harness.cloudstack import settings
from harness.cloudstack.orchestration import objects
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import ATTACHING, CHANGING, DETACHING, Vm, VmSnapshot, Volume
from harness.spi.errors import Conflict, InvalidParameter
from harness.spi.states import VmSnapshotState, VmState, VolumeState

LARGEST = "vmsnapshot.max"
BUSY = "There is other active vm snapshot tasks on the instance, please try again later"
_ACTIVE = (
    VmSnapshotState.ALLOCATED,
    VmSnapshotState.CREATING,
    VmSnapshotState.REVERTING,
    VmSnapshotState.EXPUNGING,
)


def vm_snapshots_of(tx: Transaction, vm_id: int) -> list[VmSnapshot]:
    """Those that are not removed, in whatever state, the oldest first."""
    return tx.all(VmSnapshot, vm_id=vm_id, removed=None)


def refuse_with_vm_snapshots(tx: Transaction, vm_id: int | None, text: str) -> None:
    """Raises `InvalidParameter` with this text when the VM has a VM snapshot."""
    if vm_id is not None and vm_snapshots_of(tx, vm_id):
        raise InvalidParameter(text)


def check_idle(tx: Transaction, vm_id: int | None, but: int | None = None) -> None:
    """Raises `Conflict` while one of the VM's snapshots, other than `but`, is being taken, reverted to or deleted."""
    if vm_id is not None and any(row.state in _ACTIVE and row.id != but for row in vm_snapshots_of(tx, vm_id)):
        raise Conflict(BUSY)


def check_startable(tx: Transaction, vm: Vm) -> None:
    """Raises `Conflict` while some of the VM's disks may be reverted and others not."""
    for row in vm_snapshots_of(tx, vm.id):
        if row.state is VmSnapshotState.REVERTING:
            raise Conflict(
                f"Unable to start VM {vm.display_name}: its disks are being reverted to VM snapshot {row.display_name};"
                " it can be started when that is over"
            )


def check_takeable(tx: Transaction, vm: Vm, but: int | None = None) -> None:
    """The VM and its volumes allow a snapshot now; `but` is the one that is to be taken."""
    if vm.removed is not None or vm.state not in (VmState.RUNNING, VmState.STOPPED):
        raise InvalidParameter(
            f"Creating vm snapshot failed due to VM:{vm.display_name} is not in the running or Stopped state"
        )
    check_idle(tx, vm.id, but)
    volumes = objects.volumes_of(tx, vm.id)
    busy = tx.integer(
        "SELECT COUNT(*) FROM snapshots WHERE removed IS NULL AND state IN ('Creating', 'CreatedOnPrimary',"
        " 'BackingUp') AND volume_id IN (SELECT id FROM volumes WHERE instance_id = ? AND removed IS NULL)",
        (vm.id,),
    )
    if busy or any(row.state is VolumeState.SNAPSHOTTING for row in volumes):
        raise Conflict(
            "There is other active volume snapshot tasks on the instance to which the volume is attached, please try"
            " again later."
        )
    for row in volumes:
        _check_volume(tx, row)


def check_room(tx: Transaction, vm: Vm, display_name: str) -> None:
    """One more VM snapshot of this name may be made."""
    rows = vm_snapshots_of(tx, vm.id)
    if any(row.display_name == display_name for row in rows):
        raise InvalidParameter(
            f"Creating VM snapshot failed due to VM snapshot with name{display_name}  already exists"
        )
    largest = int(settings.value(tx, LARGEST) or 0)
    if len(rows) >= largest:
        raise InvalidParameter(
            f"Creating vm snapshot failed due to a VM can just have : {largest} VM snapshots. Please delete old ones"
        )


def check_revertable(tx: Transaction, row: VmSnapshot, vm: Vm | None) -> Vm:
    """The VM that may be reverted."""
    if vm is None or vm.removed is not None:
        raise InvalidParameter(f"Revert vm to snapshot: {row.display_name} failed due to vm is not found")
    check_idle(tx, vm.id)
    if vm.state not in (VmState.RUNNING, VmState.STOPPED):
        raise InvalidParameter("VM Snapshot reverting failed due to vm is not in the state of Running or Stopped.")
    if vm.state is VmState.RUNNING:
        raise InvalidParameter(
            "VM Snapshot revert not allowed. This will result in VM state change. You can revert running VM to disk and"
            " memory type snapshot and stopped VM to disk type snapshot"
        )
    if row.state is not VmSnapshotState.READY:
        raise InvalidParameter("VM Snapshot reverting failed due to vm snapshot is not in the state of Created.")
    for volume in objects.volumes_of(tx, vm.id):
        _check_volume(tx, volume)
    return vm


def check_deletable(tx: Transaction, row: VmSnapshot) -> None:
    states = (VmSnapshotState.READY, VmSnapshotState.ERROR, VmSnapshotState.EXPUNGING, VmSnapshotState.ALLOCATED)
    if row.state not in states:
        raise InvalidParameter(
            f"Can't delete the vm snapshotshot {row.display_name} due to it is {row.state.value}, not in"
            f" {', '.join(state.value for state in states)} Status"
        )
    check_idle(tx, row.vm_id, but=row.id)


def _check_volume(tx: Transaction, row: Volume) -> None:
    if row.state is VolumeState.ALLOCATED or row.path is None:
        raise InvalidParameter(f"Volume {row.name} is not on primary storage yet; start the VM first")
    if row.state is not VolumeState.READY:
        raise InvalidParameter(f"Volume {row.name} of the VM is not in Ready state but {row.state.value}")
    details = tx.details("volume_details", row.id)
    if any(name in details for name in (ATTACHING, DETACHING, CHANGING)):
        raise Conflict(f"Volume {row.name} is being attached, detached or changed; try again when that is over")
