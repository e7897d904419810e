"""AttachIsoCommand: change what is in a running domain's CD drive."""

from __future__ import annotations

from harness.agent.deadline import Deadline
from harness.agent.domain_xml import cd_xml, read_cd
from harness.agent.handlers.start import hold_iso
from harness.agent.tools import Tools
from harness.spi.commands import Answer, AttachIsoCommand
from harness.spi.errors import Error
from harness.spi.ports import ON


def handle(tools: Tools, command: AttachIsoCommand) -> Answer:
    """A drive that has the image already is success. After an error it has what it had, unless that is `Unknown`."""
    name = command.vm_name
    deadline = Deadline(tools.runtime, command.wait)
    with tools.vm(name, command.sequence, deadline.remaining):
        if tools.hypervisor.domains().get(name) not in ON:
            return Answer(result=True, details=f"domain {name} does not run here")
        image = hold_iso(tools, name, command.iso)
        tools.hypervisor.update_device(name, cd_xml(image))
        found = read_cd(tools.hypervisor.xml(name))
        if found != image:
            raise Error(f"the CD drive of domain {name} has {found or 'nothing'}, although libvirt changed it")
        if image is None:
            tools.secondary.let_go(name)
    return Answer(result=True)
