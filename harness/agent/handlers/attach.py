"""AttachCommand: attach the volume here, then give the disk to the running domain (spec/cloudstack-plugin.md 4.4)."""

from __future__ import annotations

import msgspec

from harness.agent.deadline import Deadline
from harness.agent.domain_xml import disk_xml, read_disks, target_name
from harness.agent.operations import Kind, Operation
from harness.agent.secrets import lent
from harness.agent.tools import Tools
from harness.spi.commands import AttachAnswer, AttachCommand
from harness.spi.errors import Conflict, Error, NotFound, Unknown
from harness.spi.objects import Disk, is_storpool_path
from harness.spi.ports import DomainState


def handle(tools: Tools, command: AttachCommand) -> AttachAnswer:
    """A disk that the domain has already is success."""
    deadline = Deadline(tools.runtime, command.wait)
    with tools.vm(command.vm_name, command.sequence, deadline.remaining):
        with tools.volumes([command.disk.path], deadline.remaining):
            answer = _attach(tools, command.vm_name, command.disk, deadline)
    return msgspec.structs.replace(answer, disk=msgspec.structs.replace(command.disk, passphrase=None))


def _attach(tools: Tools, name: str, disk: Disk, deadline: Deadline) -> AttachAnswer:
    if tools.hypervisor.domains().get(name) is not DomainState.RUNNING:
        raise NotFound(f"domain {name} does not run on host {tools.config.host_name}; {disk.path} was not attached")
    if _has(tools, name, disk):
        if is_storpool_path(disk.path):
            tools.adaptor.verify(disk.path, size=disk.size, timeout=deadline.remaining)
        return AttachAnswer(result=True, details=f"{disk.path} was attached to {name} already")
    with tools.operations.begin(Kind.ATTACH, name, [disk.path]) as operation:
        return _give(tools, name, disk, deadline, operation)


def _give(tools: Tools, name: str, disk: Disk, deadline: Deadline, operation: Operation) -> AttachAnswer:
    attached = [disk.path] if is_storpool_path(disk.path) else []
    for path in attached:
        tools.adaptor.connect(path, size=disk.size, timeout=deadline.remaining)
    try:
        with lent(tools.hypervisor, [disk], operation):
            tools.hypervisor.attach_device(name, disk_xml(disk))
    except Error as error:
        if _has_after_all(tools, name, disk, error):
            return AttachAnswer(result=True, details=f"attached, although libvirt answered: {error}")
        tools.adaptor.undo(error, attached)
        raise
    return AttachAnswer(result=True)


def _has(tools: Tools, name: str, disk: Disk) -> bool:
    """Whether the domain has this disk; `Conflict` when something else has its serial or its place."""
    target = target_name(disk.device_id)
    for shown in read_disks(tools.hypervisor.xml(name)):
        if shown.source == disk.path and shown.serial == disk.serial:
            return True
        if shown.source == disk.path or shown.serial == disk.serial or shown.target == target:
            raise Conflict(
                f"domain {name} has {shown.source} as {shown.target} with serial {shown.serial}, "
                f"so {disk.path} cannot become {target} with serial {disk.serial}"
            )
    return False


def _has_after_all(tools: Tools, name: str, disk: Disk, error: Error) -> bool:
    """Read back after a failed hot-plug; `Unknown` when libvirt cannot say, as the guest may be using the disk then."""
    try:
        return _has(tools, name, disk)
    except (NotFound, Conflict):
        return False
    except Error as problem:
        raise Unknown(
            f"giving {disk.path} to domain {name} failed: {error}; whether it has the disk cannot be read: {problem}; "
            f"the volume stays attached to host {tools.config.host_name}, send the command again"
        ) from error
