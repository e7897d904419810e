"""PingCommand: which domains does the host have, and how far are its copies?"""

from __future__ import annotations

from harness.agent import luks
from harness.agent.tools import Tools
from harness.spi.commands import PingAnswer, PingCommand
from harness.spi.objects import VmPower
from harness.spi.ports import DomainState

POWER = {
    DomainState.RUNNING: VmPower.ON,
    DomainState.PAUSED: VmPower.PAUSED,
    DomainState.SHUT_OFF: VmPower.OFF,
    DomainState.CRASHED: VmPower.OFF,
}


def handle(tools: Tools, _command: PingCommand) -> PingAnswer:
    states = tools.hypervisor.domains()
    return PingAnswer(
        result=True,
        host_uuid=tools.config.host_uuid,
        vms={name: POWER[state] for name, state in sorted(states.items())},
        volume_encryption=luks.available(tools.host),
        copies=tools.copies.progress(),
    )
