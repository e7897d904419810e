"""CheckVirtualMachineCommand: does the domain run here? If it was awaited, its migration ends with that."""

from __future__ import annotations

import logging

from harness.agent.handlers.ping import POWER
from harness.agent.secrets import take_back
from harness.agent.tools import Tools
from harness.spi.commands import CheckVirtualMachineAnswer, CheckVirtualMachineCommand
from harness.spi.objects import VmPower
from harness.spi.ports import DomainState

_log = logging.getLogger("harness.agent")


def handle(tools: Tools, command: CheckVirtualMachineCommand) -> CheckVirtualMachineAnswer:
    state = tools.hypervisor.domains().get(command.vm_name)
    if state is DomainState.RUNNING:
        # Its QEMU has opened the disks. What cannot be taken back is, when the preparation has settled.
        for problem in take_back(tools.hypervisor, sorted(tools.arrivals.arrived(command.vm_name))):
            _log.warning("a passphrase stays with libvirt for now: %s", problem)
    return CheckVirtualMachineAnswer(result=True, power=VmPower.OFF if state is None else POWER[state])
