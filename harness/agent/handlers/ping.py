"""PingCommand: which domains does the host have?"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from harness.agent import luks
from harness.agent.secrets import take_back_left
from harness.agent.tools import Tools
from harness.spi.commands import PingAnswer, PingCommand
from harness.spi.errors import Error
from harness.spi.objects import VmPower
from harness.spi.ports import DomainState

_log = logging.getLogger("harness.agent")

POWER = {
    DomainState.RUNNING: VmPower.ON,
    DomainState.PAUSED: VmPower.PAUSED,
    DomainState.SHUT_OFF: VmPower.OFF,
    DomainState.CRASHED: VmPower.OFF,
}


def handle(tools: Tools, _command: PingCommand) -> PingAnswer:
    states = tools.hypervisor.domains()
    _take_passphrases_back(tools, states)
    return PingAnswer(
        result=True,
        host_uuid=tools.config.host_uuid,
        vms={name: POWER[state] for name, state in sorted(states.items())},
        volume_encryption=luks.available(tools.host),
    )


def _take_passphrases_back(tools: Tools, states: Mapping[str, DomainState]) -> None:
    """Of guests that were migrated here since the last ping: their QEMUs have the keys."""
    arrived = tools.arrivals.arrived([name for name, state in states.items() if state is DomainState.RUNNING])
    if not arrived:
        return
    try:
        take_back_left(tools.hypervisor, arrived)
    except Error as error:
        _log.warning("%s; it is tried again when the migration has settled", error)
