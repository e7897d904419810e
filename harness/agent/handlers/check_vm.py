"""CheckVirtualMachineCommand: does the domain run here?"""

from __future__ import annotations

from harness.agent.handlers.ping import POWER
from harness.agent.tools import Tools
from harness.spi.commands import CheckVirtualMachineAnswer, CheckVirtualMachineCommand
from harness.spi.objects import VmPower


def handle(tools: Tools, command: CheckVirtualMachineCommand) -> CheckVirtualMachineAnswer:
    state = tools.hypervisor.domains().get(command.vm_name)
    return CheckVirtualMachineAnswer(result=True, power=VmPower.OFF if state is None else POWER[state])
