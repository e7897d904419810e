"""StorPoolResizeVolumeCommand: wait for the device's size, then have the guest see it (spec/cloudstack-plugin.md 4.15).

The original took a guest that was not told for a success, and found its disk by a part of the path.
"""

from __future__ import annotations

from harness.agent.deadline import Deadline
from harness.agent.domain_xml import read_disks
from harness.agent.tools import Tools
from harness.spi.commands import ResizeVolumeAnswer, StorPoolResizeVolumeCommand
from harness.spi.errors import Error, NotFound, Unknown
from harness.spi.ports import ON


class GuestNotTold(Error):
    """The guest sees what it saw before, and nothing is under way that would change it."""


def handle(tools: Tools, command: StorPoolResizeVolumeCommand) -> ResizeVolumeAnswer:
    """A guest that sees the size already is success."""
    deadline = Deadline(tools.runtime, command.wait)
    with tools.vm(command.vm_name, command.sequence, deadline.remaining):
        with tools.volumes([command.path], deadline.remaining):
            if tools.hypervisor.domains().get(command.vm_name) not in ON:
                return ResizeVolumeAnswer(result=True, details=f"domain {command.vm_name} does not run here")
            tools.adaptor.await_size(command.path, command.size, deadline.remaining)
            _tell(tools, command)
    return ResizeVolumeAnswer(result=True, size=_seen(command))


def _seen(command: StorPoolResizeVolumeCommand) -> int:
    """Bytes that the guest is to see."""
    return command.size - command.overhead


def _tell(tools: Tools, command: StorPoolResizeVolumeCommand) -> None:
    name, target, size = command.vm_name, _target(tools, command.vm_name, command.path), _seen(command)
    before = tools.hypervisor.disk_size(name, target)
    if before == size:
        return
    problem: Error | None = None
    try:
        tools.hypervisor.resize_disk(name, target, size)
    except Error as error:
        problem = error
    try:
        seen = tools.hypervisor.disk_size(name, target)
    except Error as error:
        raise Unknown(
            f"whether the guest of domain {name} sees the size of {command.path} is not known: {error}"
        ) from (problem or error)
    if seen == size:
        return
    text = (
        f"the guest of domain {name} on host {tools.config.host_name} was not told that {command.path} has "
        f"{size} bytes, it sees {seen}: {problem or 'libvirt gave no reason'}"
    )
    raise Unknown(text) if isinstance(problem, Unknown) or seen != before else GuestNotTold(text)


def _target(tools: Tools, name: str, path: str) -> str:
    for disk in read_disks(tools.hypervisor.xml(name)):
        if disk.source == path:
            return disk.target
    raise NotFound(f"domain {name} on host {tools.config.host_name} has no disk {path}, so its guest cannot be told")
