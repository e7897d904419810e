"""CancelMigrationCommand: where a domain stands whose migration nobody answers for any more."""

from __future__ import annotations

from harness.agent.deadline import Deadline
from harness.agent.handlers.ping import POWER
from harness.agent.tools import Tools
from harness.spi.commands import CancelMigrationCommand, CheckVirtualMachineAnswer
from harness.spi.objects import VmPower
from harness.spi.ports import DomainState


def handle(tools: Tools, command: CancelMigrationCommand) -> CheckVirtualMachineAnswer:
    """No migration of the domain is under way after it, and none that was asked for before begins any more."""
    deadline = Deadline(tools.runtime, command.wait)
    name = command.vm_name
    tools.order.arrived(name, command.sequence)
    tools.order.check(name, command.sequence)
    # Without the VM: a command that migrates it holds it until that is over.
    tools.hypervisor.cancel_migration(name, timeout=deadline.remaining)
    with tools.vm(name, command.sequence, deadline.remaining):
        tools.hypervisor.cancel_migration(name, timeout=deadline.remaining)
        state = tools.hypervisor.domains().get(name)
        if command.resume and state is DomainState.PAUSED:
            tools.hypervisor.resume(name)
            state = tools.hypervisor.domains().get(name)
    return CheckVirtualMachineAnswer(result=True, power=VmPower.OFF if state is None else POWER[state])
