"""DettachCommand: take the disk from the domain, then the volume from this host (spec/cloudstack-plugin.md 4.5)."""

from __future__ import annotations

from harness.agent.deadline import Deadline
from harness.agent.domain_xml import AttachedDisk, attached_disk_xml, read_disks
from harness.agent.tools import Tools
from harness.spi.commands import AttachAnswer, DettachCommand
from harness.spi.errors import Conflict, Error, NotFound, Unavailable
from harness.spi.objects import Disk
from harness.spi.ports import DomainState

POLL_SECONDS = 0.25


def handle(tools: Tools, command: DettachCommand) -> AttachAnswer:
    """A disk that the domain does not have, or a domain that is gone, leaves only the volume to detach."""
    deadline = Deadline(tools.runtime, command.wait)
    with tools.vm_locks.hold(command.vm_name, deadline.remaining):
        with tools.volumes([command.disk.path], deadline.remaining):
            _take_away(tools, command.vm_name, command.disk, deadline)
            tools.adaptor.disconnect(command.disk.path)
    return AttachAnswer(result=True, disk=command.disk)


def _take_away(tools: Tools, name: str, disk: Disk, deadline: Deadline) -> None:
    """Ask again and again until the XML shows it gone: an OK of libvirt proves nothing (lab-facts section 3)."""
    limit = Deadline(tools.runtime, min(tools.config.detach_device_timeout, deadline.remaining))
    problem: Error | None = None
    if tools.hypervisor.domains().get(name) not in (DomainState.RUNNING, DomainState.PAUSED):
        return
    while (shown := _find(tools, name, disk)) is not None:
        if limit.passed:
            raise _refused(tools, name, disk, problem)
        try:
            tools.hypervisor.detach_device(name, attached_disk_xml(shown))
            problem = None
        except Error as error:
            problem = error
        if _find(tools, name, disk) is not None:
            limit.pause(POLL_SECONDS)


def _find(tools: Tools, name: str, disk: Disk) -> AttachedDisk | None:
    try:
        disks = read_disks(tools.hypervisor.xml(name))
    except NotFound:
        return None
    for shown in disks:
        if shown.source == disk.path:
            return shown
        if disk.serial and shown.serial == disk.serial:
            raise Conflict(
                f"domain {name} has serial {disk.serial} at {shown.source}, not at {disk.path}; nothing was done"
            )
    return None


def _refused(tools: Tools, name: str, disk: Disk, problem: Error | None) -> Unavailable:
    said = f" (libvirt: {problem})" if problem is not None else ""
    return Unavailable(
        f"the guest of domain {name} on host {tools.config.host_name} did not let {disk.path} go within "
        f"{tools.config.detach_device_timeout:g} s{said}; it may be booting, suspended or hung. "
        "The disk is still attached; try again when the guest runs"
    )
