"""ISOs in the CD drives of VMs: attached and detached, with the VM running or not.

The record comes first. When the host's answer is lost, the record is what the drive will have: the host is asked again
until it says so, and until then neither the old nor the new ISO can be deleted.
"""

from __future__ import annotations

from harness.cloudstack.orchestration import objects
from harness.cloudstack.orchestration.context import LOCK_TIMEOUT, Context
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import Template, Vm
from harness.spi.commands import AttachIsoCommand
from harness.spi.errors import Error, InvalidParameter, Unknown
from harness.spi.states import VmState

CHANGE_WAIT = 60.0


class IsoManager:
    def __init__(self, context: Context) -> None:
        self._context = context

    def change(self, vm_id: int, iso_id: int | None) -> Vm:
        """Put the ISO into the VM's drive, None: empty it. After an error that is not `Unknown` nothing has changed."""
        with self._context.vm_locks.hold(str(vm_id), LOCK_TIMEOUT):
            with self._context.records.transaction("iso change") as tx:
                vm = tx.get(Vm, vm_id)
                check_changeable(vm)
                if iso_id is not None:
                    # It may have been deleted while the VM was waited for.
                    objects.template_on_image_store(tx, iso_id)
                if vm.state is not VmState.RUNNING:
                    return tx.update(vm, iso_id=iso_id, iso_before=None, iso_changing=False)
                before = vm.iso_before if vm.iso_changing else vm.iso_id
                vm = tx.update(vm, iso_id=iso_id, iso_before=before, iso_changing=True)
            try:
                self._tell(vm)
            except Unknown as error:
                text = "the CD drive is changed when its host answers"
                raise reworded(error, f"VM {vm.display_name}: {error}; {text}") from error
            except Error as error:
                with self._context.records.transaction("iso not changed") as tx:
                    tx.update(vm, iso_id=before, iso_before=None, iso_changing=False)
                what = "detach the ISO from" if iso_id is None else "attach the ISO to"
                raise reworded(error, f"Failed to {what} VM {vm.display_name}; {error}") from error
            return self._changed(vm)

    def settle(self, vm_id: int) -> None:
        """For background tasks: have the host do what the records say. `Conflict` when the VM is being worked on."""
        with self._context.vm_locks.hold(str(vm_id), 0.0):
            with self._context.records.read() as tx:
                vm = tx.get(Vm, vm_id)
            if not vm.iso_changing:
                return
            if vm.state is VmState.RUNNING:
                self._tell(vm)
            self._changed(vm)

    def _tell(self, vm: Vm) -> None:
        with self._context.records.read() as tx:
            iso = None if vm.iso_id is None else objects.template_on_image_store(tx, vm.iso_id)
        if vm.host_id is None:
            raise InvalidParameter(f"VM {vm.instance_name} is Running on no host")
        command = AttachIsoCommand(vm_name=vm.instance_name, iso=iso, wait=CHANGE_WAIT)
        self._context.agents.send(vm.host_id, command)

    def _changed(self, vm: Vm) -> Vm:
        with self._context.records.transaction("iso changed") as tx:
            return tx.update(tx.get(Vm, vm.id), iso_before=None, iso_changing=False)


def check_changeable(vm: Vm) -> None:
    if vm.removed is not None or vm.state not in (VmState.RUNNING, VmState.STOPPED):
        raise InvalidParameter(f"Please specify a VM that is either Stopped or Running; it is {vm.state.value}")


def check_in_no_drive(tx: Transaction, template: Template) -> None:
    """Refuses, in CloudStack's words, to delete an ISO that a VM has."""
    users = users_of(tx, template.id)
    if users:
        names = ", ".join(vm.instance_name for vm in users[:10])
        raise InvalidParameter(f"Unable to delete ISO, as it's used by other Instances: [{names}]")


def users_of(tx: Transaction, iso_id: int) -> list[Vm]:
    """VMs that have the ISO in their drive, or may have."""
    return tx.select(
        Vm, "removed IS NULL AND (iso_id = ? OR iso_changing AND iso_before = ?) ORDER BY id", (iso_id, iso_id)
    )
