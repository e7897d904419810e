"""AttachIsoCommand: change what is in a running domain's CD drive."""

from __future__ import annotations

from harness.agent.deadline import Deadline
from harness.agent.domain_xml import cd_xml, read_cd
from harness.agent.tools import Tools
from harness.spi.commands import Answer, AttachIsoCommand
from harness.spi.errors import Error, NotFound
from harness.spi.ports import DomainState

ON = (DomainState.RUNNING, DomainState.PAUSED)


def handle(tools: Tools, command: AttachIsoCommand) -> Answer:
    """A drive that has the image already is success. After an error it has what it had, unless that is `Unknown`."""
    name = command.vm_name
    deadline = Deadline(tools.runtime, command.wait)
    with tools.vm(name, command.sequence, deadline.remaining):
        if tools.hypervisor.domains().get(name) not in ON:
            return Answer(result=True, details=f"domain {name} does not run here")
        image = _hold(tools, command)
        tools.hypervisor.update_device(name, cd_xml(image))
        found = read_cd(tools.hypervisor.xml(name))
        if found != image:
            raise Error(f"the CD drive of domain {name} has {found or 'nothing'}, although libvirt changed it")
        if image is None:
            tools.secondary.let_go(name)
    return Answer(result=True)


def _hold(tools: Tools, command: AttachIsoCommand) -> str | None:
    if command.iso is None:
        return None
    if command.iso.path is None:
        raise NotFound(f"ISO {command.iso.name} is on no image store")
    return tools.secondary.hold(command.iso.store, command.iso.path, command.vm_name)
