"""MigrateCommand: the source has libvirt move the domain, then lets its disks go (spec/cloudstack-plugin.md 4.6)."""

from __future__ import annotations

from harness.agent.deadline import Deadline
from harness.agent.domain_xml import read_disks, with_console
from harness.agent.operations import Kind, Operation
from harness.agent.tools import Tools
from harness.spi.commands import Answer, MigrateCommand
from harness.spi.errors import Error, InvalidParameter, NotFound, Unknown
from harness.spi.objects import is_storpool_path
from harness.spi.ports import DomainState

CANCEL_SECONDS = 30.0
"""How long a migration that failed, or took too long, may take to be over."""
SCHEME = "qemu+"


class NotMigrated(Error):
    """The domain runs where it was, and nothing is under way that would change it."""


def handle(tools: Tools, command: MigrateCommand) -> Answer:
    """A disk that cannot be detached here afterwards does not make the migration fail; it is detached later."""
    deadline = Deadline(tools.runtime, command.wait)
    name = command.vm_name
    if not command.destination.startswith(SCHEME):
        raise InvalidParameter(f"{command.destination!r} is not where a libvirtd is reached; it begins with {SCHEME}")
    with tools.vm(name, command.sequence, deadline.remaining):
        state = tools.hypervisor.domains().get(name)
        if state is not DomainState.RUNNING:
            shown = "is not there" if state is None else f"is {state}"
            raise NotFound(f"domain {name} {shown} on host {tools.config.host_name}, so it was not migrated")
        paths = [disk.source for disk in read_disks(tools.hypervisor.xml(name)) if is_storpool_path(disk.source)]
        with tools.volumes(paths, deadline.remaining):
            with tools.operations.begin(Kind.MIGRATE, name, paths) as operation:
                _move(tools, command, deadline)
                if not _forgotten(tools, name):
                    operation.leave_open()
                details = _release(tools, paths, operation)
    return Answer(result=True, details=details)


def _move(tools: Tools, command: MigrateCommand, deadline: Deadline) -> None:
    name = command.vm_name
    try:
        xml = with_console(tools.hypervisor.migratable_xml(name), command.console)
        tools.hypervisor.migrate(
            name, command.destination, xml, converge=command.auto_convergence, timeout=deadline.remaining
        )
    except Error as error:
        raise _what_became(tools, name, error) from error
    # What its guest was asked to let go it is asked for by the other host from now on.
    tools.unplugs.over(name)


def _what_became(tools: Tools, name: str, error: Error) -> Error:
    """What to answer after libvirt's error, by what is here now."""
    failed = f"domain {name} could not be migrated from host {tools.config.host_name}: {error}"
    try:
        tools.hypervisor.cancel_migration(name, timeout=CANCEL_SECONDS)
        state = tools.hypervisor.domains().get(name)
    except Error as problem:
        return Unknown(f"{failed}; whether it runs here cannot be read: {problem}")
    if state is DomainState.RUNNING:
        return NotMigrated(f"{failed}; it runs there as before")
    shown = "is not there any more" if state is None else f"is {state} there"
    return Unknown(f"{failed}; it {shown}")


def _forgotten(tools: Tools, name: str) -> bool:
    """Not when its QEMU here died before libvirt had ended it: what is left then is taken away by recovery."""
    try:
        return name not in tools.hypervisor.domains()
    except Error:
        return False


def _release(tools: Tools, paths: list[str], operation: Operation) -> str:
    """What is to be told of disks that stay attached here."""
    left = []
    for path in reversed(paths):
        try:
            tools.adaptor.disconnect(path)
        except Error as error:
            left.append(f"{path} stays attached to host {tools.config.host_name}: {error}")
    if left:
        operation.leave_open()
        return f"migrated, but {'; '.join(left)}"
    # The volumes stay, so that a copy of an attach could still be carried out here, and nothing would undo it.
    operation.settle()
    return ""
