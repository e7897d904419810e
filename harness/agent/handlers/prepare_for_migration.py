"""PrepareForMigrationCommand: the destination attaches the disks beside the source (spec/cloudstack-plugin.md 4.6).

The original left them attached when a migration came to nothing (weakness 23). Here a failing command takes back what
it attached, and `rollback` what one that succeeded had attached.
"""

from __future__ import annotations

from harness.agent.deadline import Deadline
from harness.agent.domain_xml import console_path
from harness.agent.handlers.start import attached_disks, connect_all
from harness.agent.handlers.stop import take_down
from harness.agent.operations import Kind
from harness.agent.secrets import lend, take_back, take_back_left
from harness.agent.tools import Tools
from harness.spi.commands import PrepareForMigrationAnswer, PrepareForMigrationCommand, StopCommand
from harness.spi.errors import Conflict, Error
from harness.spi.ports import ON, DomainState


def handle(tools: Tools, command: PrepareForMigrationCommand) -> PrepareForMigrationAnswer:
    """Disks that are attached already are success, and so is a rollback of nothing."""
    deadline = Deadline(tools.runtime, command.wait)
    with tools.vm(command.vm.name, command.sequence, deadline.remaining):
        state = tools.hypervisor.domains().get(command.vm.name)
        if command.rollback:
            _roll_back(tools, command, state, deadline)
        else:
            _prepare(tools, command, state, deadline)
    host = tools.config.host_name
    return PrepareForMigrationAnswer(
        result=True,
        destination=tools.config.migration_uri or f"qemu+tcp://{host}/system",
        console=console_path(command.vm.name, tools.config),
    )


def _prepare(tools: Tools, command: PrepareForMigrationCommand, state: DomainState | None, deadline: Deadline) -> None:
    vm = command.vm
    if state in ON:
        raise Conflict(f"domain {vm.name} is {state} on host {tools.config.host_name} already; nothing was attached")
    disks = attached_disks(vm)
    paths = [disk.path for disk in disks]
    with tools.volumes(paths, deadline.remaining), tools.operations.begin(Kind.PREPARE, vm.name, paths) as operation:
        connect_all(tools, vm, deadline, shared=True)
        encrypted = [disk for disk in disks if disk.encrypted]
        try:
            # QEMU will open the disks when the source migrates: until the domain is here libvirt keeps the passphrases.
            lend(tools.hypervisor, encrypted)
        except Error as error:
            for problem in take_back(tools.hypervisor, [disk.path for disk in encrypted]):
                error.add_note(f"while cleaning up: {problem}")
            tools.adaptor.undo(error, reversed(paths))
            raise
        # Looked at when it has settled: the server may be gone by then, or the VM have other disks than it rolls back.
        operation.settle()
        tools.arrivals.expect(vm.name, frozenset(paths))


def _roll_back(
    tools: Tools, command: PrepareForMigrationCommand, state: DomainState | None, deadline: Deadline
) -> None:
    vm = command.vm
    if state is DomainState.RUNNING:
        raise Conflict(f"domain {vm.name} runs on host {tools.config.host_name}, so nothing was taken from it")
    paths = tuple(disk.path for disk in attached_disks(vm))
    take_down(tools, StopCommand(vm_name=vm.name, force=True, volumes_to_disconnect=paths), state, deadline)
    take_back_left(tools.hypervisor, paths)
