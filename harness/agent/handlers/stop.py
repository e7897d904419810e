"""StopCommand: power off, detach, forget the domain (spec/cloudstack-plugin.md section 4.5).

The domain is forgotten last: until then its XML is the record of the disks that a repeated command has to detach. The
XML of one that is off is what it was started with: a disk that was taken from it since may be another VM's by now.
"""

from __future__ import annotations

from harness.agent.deadline import Deadline
from harness.agent.domain_xml import read_disks
from harness.agent.operations import Kind
from harness.agent.tools import Tools
from harness.spi.commands import Answer, StopCommand
from harness.spi.errors import Error, NotFound, Unavailable
from harness.spi.objects import is_storpool_path
from harness.spi.ports import ON, DomainState

POLL_SECONDS = 0.5
ASK_AGAIN_SECONDS = 10.0
"""A guest that is still booting loses the first request to power off."""
DESTROY_SECONDS = 30.0


def handle(tools: Tools, command: StopCommand) -> Answer:
    """A missing domain is success. Every disk is tried, even after one that cannot be detached."""
    deadline = Deadline(tools.runtime, command.wait)
    with tools.vm(command.vm_name, command.sequence, deadline.remaining):
        state = tools.hypervisor.domains().get(command.vm_name)
        take_down(tools, command, state, deadline)
    return Answer(result=True, details="" if state is not None else f"domain {command.vm_name} was not there")


def take_down(tools: Tools, command: StopCommand, state: DomainState | None, deadline: Deadline) -> None:
    """What the command asks for, of a domain in this state; the caller holds the VM."""
    paths = dict.fromkeys(command.volumes_to_disconnect)
    if state is not None:
        paths |= dict.fromkeys(_disks(tools, command.vm_name))
        if state not in ON:
            taken = _disks_of_others(tools, command.vm_name) - set(command.volumes_to_disconnect)
            paths = {path: None for path in paths if path not in taken}
    with tools.volumes(paths, deadline.remaining):
        with tools.operations.begin(Kind.STOP, command.vm_name, paths):
            if state is DomainState.RUNNING and not command.force:
                _ask_guest(tools, command.vm_name, deadline)
            if state is not None:
                _power_off(tools, command.vm_name)
            tools.unplugs.over(command.vm_name)
            tools.arrivals.over(command.vm_name)
            _disconnect_all(tools, list(paths), deadline)
            if state is not None:
                tools.hypervisor.undefine(command.vm_name)
            tools.secondary.let_go(command.vm_name)


def _disks(tools: Tools, name: str) -> list[str]:
    try:
        xml = tools.hypervisor.xml(name)
    except NotFound:
        return []
    return [disk.source for disk in read_disks(xml) if is_storpool_path(disk.source)]


def _disks_of_others(tools: Tools, name: str) -> set[str]:
    """Disks of every other domain of this host that is on."""
    found = tools.hypervisor.domains()
    return {path for other, state in found.items() if other != name and state in ON for path in _disks(tools, other)}


def _ask_guest(tools: Tools, name: str, deadline: Deadline) -> None:
    """Ask until the guest is off or its time is over; what then still runs is destroyed by the caller."""
    limit = Deadline(tools.runtime, min(tools.config.shutdown_timeout, deadline.remaining / 2))
    while not limit.passed:
        try:
            tools.hypervisor.shutdown(name)
        except NotFound:
            return
        ask_again = Deadline(tools.runtime, min(ASK_AGAIN_SECONDS, limit.remaining))
        while not ask_again.passed:
            if not _on(tools, name):
                return
            ask_again.pause(POLL_SECONDS)


def _power_off(tools: Tools, name: str) -> None:
    limit = Deadline(tools.runtime, DESTROY_SECONDS)
    while _on(tools, name):
        if limit.passed:
            raise Unavailable(
                f"domain {name} still runs on host {tools.config.host_name} after it was destroyed; "
                "its QEMU may hang in I/O, look for it there. Its disks stay attached"
            )
        tools.hypervisor.destroy(name)
        if _on(tools, name):
            limit.pause(POLL_SECONDS)


def _on(tools: Tools, name: str) -> bool:
    return tools.hypervisor.domains().get(name) in ON


def _disconnect_all(tools: Tools, paths: list[str], deadline: Deadline) -> None:
    first: Error | None = None
    for path in reversed(paths):
        try:
            tools.adaptor.disconnect(path, timeout=deadline.remaining)
        except Error as error:
            if first is None:
                first = error
            else:
                first.add_note(f"{path} could not be detached either: {error}")
    if first is not None:
        raise first
