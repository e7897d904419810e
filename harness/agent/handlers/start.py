"""StartCommand: attach every disk, then start the domain (spec/cloudstack-plugin.md section 4.4)."""

from __future__ import annotations

from harness.agent.deadline import Deadline
from harness.agent.domain_xml import AttachedDisk, domain_xml, read_disks
from harness.agent.operations import Kind, Operation
from harness.agent.secrets import lent
from harness.agent.tools import Tools
from harness.spi.commands import Answer, StartCommand
from harness.spi.errors import Conflict, Error, NotFound, Unknown
from harness.spi.objects import Disk, TemplateObject, VirtualMachine, is_storpool_path
from harness.spi.ports import ON, DomainState


def handle(tools: Tools, command: StartCommand) -> Answer:
    """After an error the domain does not run and its disks are detached, unless a note of the error says otherwise."""
    vm = command.vm
    deadline = Deadline(tools.runtime, command.wait)
    with tools.vm(vm.name, command.sequence, deadline.remaining):
        with tools.volumes([disk.path for disk in vm.disks], deadline.remaining):
            return _start(tools, vm, deadline)


def _start(tools: Tools, vm: VirtualMachine, deadline: Deadline) -> Answer:
    state = tools.hypervisor.domains().get(vm.name)
    if state is DomainState.PAUSED:
        raise Conflict(f"domain {vm.name} is paused on host {tools.config.host_name}; resume or destroy it first")
    if state is DomainState.RUNNING:
        _check_running(tools, vm, deadline)
        return Answer(result=True, details=f"domain {vm.name} was running already")
    with tools.operations.begin(Kind.START, vm.name, [disk.path for disk in vm.disks]) as operation:
        return _bring_up(tools, vm, deadline, operation)


def _bring_up(tools: Tools, vm: VirtualMachine, deadline: Deadline, operation: Operation) -> Answer:
    try:
        return _bring_up_with(tools, vm, deadline, operation, hold_iso(tools, vm.name, vm.iso))
    except Unknown:
        raise
    except Error:
        tools.secondary.let_go(vm.name)
        raise


def hold_iso(tools: Tools, name: str, iso: TemplateObject | None) -> str | None:
    """The image for the CD drive of the domain with this name, held for it."""
    if iso is None:
        return None
    if iso.path is None:
        raise NotFound(f"ISO {iso.name} for domain {name} is on no image store")
    return tools.secondary.hold(iso.store, iso.path, name)


def _bring_up_with(
    tools: Tools, vm: VirtualMachine, deadline: Deadline, operation: Operation, cd: str | None
) -> Answer:
    connect_all(tools, vm, deadline)
    try:
        with lent(tools.hypervisor, vm.disks, operation):
            tools.hypervisor.create(domain_xml(vm, tools.config, cd))
    except Error as error:
        if _runs_after_all(tools, vm, error):
            return Answer(result=True, details=f"domain {vm.name} runs, although libvirt answered: {error}")
        tools.adaptor.undo(error, [disk.path for disk in reversed(attached_disks(vm))])
        raise
    return Answer(result=True)


def attached_disks(vm: VirtualMachine) -> list[Disk]:
    """Disks that are StorPool volumes, which must be attached to this host."""
    return [disk for disk in vm.disks if is_storpool_path(disk.path)]


def connect_all(tools: Tools, vm: VirtualMachine, deadline: Deadline, *, shared: bool = False) -> None:
    """Attach every disk here; when one fails, none of them stays. `shared` as the adaptor's `connect` has it."""
    connected: list[str] = []
    for disk in attached_disks(vm):
        try:
            tools.adaptor.connect(disk.path, size=disk.size, timeout=deadline.remaining, shared=shared)
        except Error as error:
            tools.adaptor.undo(error, reversed(connected))
            raise
        connected.append(disk.path)


def _check_running(tools: Tools, vm: VirtualMachine, deadline: Deadline) -> None:
    """The domain must have every disk that was asked for. More may be there: disks that were hot-plugged since."""
    _check_disks(vm, read_disks(tools.hypervisor.xml(vm.name)), tools.config.host_name)
    for disk in attached_disks(vm):
        # Not undone on failure: the running guest needs them.
        tools.adaptor.verify(disk.path, size=disk.size, timeout=deadline.remaining)


def _check_disks(vm: VirtualMachine, shown: tuple[AttachedDisk, ...], host_name: str) -> None:
    present = {(disk.source, disk.serial) for disk in shown}
    missing = [disk.path for disk in vm.disks if (disk.path, disk.serial) not in present]
    if missing:
        raise Conflict(
            f"domain {vm.name} runs on host {host_name} already, but without {', '.join(missing)}; stop it first"
        )


def _runs_after_all(tools: Tools, vm: VirtualMachine, error: Error) -> bool:
    """Read back after a failed create. What is left of a domain that does not run is removed.

    When libvirt cannot say, nothing may be detached under a guest that perhaps runs: raises `Unknown`.
    """
    try:
        state = tools.hypervisor.domains().get(vm.name)
        if state in ON:
            _check_disks(vm, read_disks(tools.hypervisor.xml(vm.name)), tools.config.host_name)
            if state is DomainState.RUNNING:
                return True
            tools.hypervisor.destroy(vm.name)
        if state is not None:
            tools.hypervisor.undefine(vm.name)
        return False
    except NotFound:
        return False
    except Error as problem:
        raise Unknown(
            f"starting domain {vm.name} on host {tools.config.host_name} failed: {error}; whether it runs cannot be "
            f"read: {problem}; its disks stay attached there, send the command again or stop the domain"
        ) from error
