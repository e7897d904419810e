"""Stops that no host has confirmed: until it does the VM may run on there, so nothing that it has goes elsewhere."""

from __future__ import annotations

from harness.cloudstack.orchestration import objects
from harness.cloudstack.orchestration.context import Context
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import HaWork, HostRow, Vm
from harness.spi.commands import StopCommand
from harness.spi.errors import Error

STOP_WAIT = 180.0


def expect_stop(tx: Transaction, vm: Vm, host_id: int) -> None:
    """From now on the VM starts nowhere, and lets no volume go, until this host confirmed that it does not run it."""
    if tx.find(HaWork, instance_id=vm.id, host_id=host_id) is None:
        tx.insert(HaWork(instance_id=vm.id, host_id=host_id, tried=0, created=tx.now))


def confirm_stopped(context: Context, vm_id: int) -> None:
    """Have every host that may still run the VM confirm that it does not; raises while one cannot.

    The caller holds the VM.
    """
    with context.records.read() as tx:
        vm = tx.get(Vm, vm_id)
        works = tx.all(HaWork, instance_id=vm_id)
        command = StopCommand(
            vm_name=vm.instance_name,
            force=True,
            volumes_to_disconnect=objects.paths_of(tx, vm_id),
            wait=STOP_WAIT,
        )
    for work in works:
        try:
            context.agents.send(work.host_id, command)
        except Error as error:
            with context.records.transaction("stop not confirmed") as tx:
                tx.update(work, tried=work.tried + 1)
                host = tx.find(HostRow, id=work.host_id)
            name = host.name if host else work.host_id
            raise reworded(
                error, f"host {name} has not confirmed that VM {vm.instance_name} is stopped there; {error}"
            ) from error
        with context.records.transaction("stop confirmed") as tx:
            tx.delete(work)
