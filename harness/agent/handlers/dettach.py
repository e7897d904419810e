"""DettachCommand: take the disk from the domain, then the volume from this host (spec/cloudstack-plugin.md 4.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from harness.agent.deadline import Deadline
from harness.agent.domain_xml import AttachedDisk, attached_disk_xml, read_disks
from harness.agent.operations import Kind
from harness.agent.tools import Tools
from harness.spi.commands import AttachAnswer, DettachCommand
from harness.spi.errors import Conflict, Error, NotFound, Unavailable, Unknown
from harness.spi.objects import Disk, is_storpool_path
from harness.spi.ports import ON, DomainState

T = TypeVar("T")

POLL_SECONDS = 0.1
ASK_AGAIN_SECONDS = 2.0
"""How long a running guest that was asked is left alone. One that is up lets go within 0.25 s (lab-facts section 3);
one that was booting may have lost the request."""


def handle(tools: Tools, command: DettachCommand) -> AttachAnswer:
    """A disk that the domain does not have, or a domain that is gone, leaves only the volume to detach.

    After `Unknown` the guest has let the disk go, or may yet: nothing is as before, so ask again until it is done.
    """
    deadline = Deadline(tools.runtime, command.wait)
    with tools.vm(command.vm_name, command.sequence, deadline.remaining):
        with tools.volumes([command.disk.path], deadline.remaining):
            with tools.operations.begin(Kind.DETTACH, command.vm_name, [command.disk.path]):
                _take_away(tools, command.vm_name, command.disk, min(command.guest_wait, deadline.remaining))
                if is_storpool_path(command.disk.path):
                    _disconnect(tools, command.vm_name, command.disk.path, deadline)
    return AttachAnswer(result=True, disk=command.disk)


def _take_away(tools: Tools, name: str, disk: Disk, seconds: float) -> None:
    """Ask, then wait so long until the XML shows it gone: an OK of libvirt proves nothing (lab-facts section 3).

    A suspended guest is not asked: it would let the disk go when it is resumed, long after this command has failed.
    """
    limit = Deadline(tools.runtime, seconds)
    pause = _pause(tools, name, disk)
    problem: Error | None = None
    while True:
        state = _read(tools, name, disk, tools.hypervisor.domains).get(name)
        if state not in ON:
            tools.unplugs.over(name)
            return
        shown = _read(tools, name, disk, lambda: _find(tools, name, disk))
        if shown is None:
            tools.unplugs.over(name, disk.path)
            return
        if limit.passed:
            raise _refused(tools, name, disk, state, seconds, problem)
        if state is DomainState.PAUSED:
            # Once it runs again it may let go of what it was asked before.
            pause = _pause(tools, name, disk)
        elif pause.passed:
            problem = _ask(tools, name, shown)
            pause = _pause(tools, name, disk)
            continue
        limit.pause(POLL_SECONDS)


def _read(tools: Tools, name: str, disk: Disk, look: Callable[[], T]) -> T:
    """What libvirt shows. Once the guest was asked, not to know is not to say that it still has the disk."""
    try:
        return look()
    except Unavailable as error:
        if not tools.unplugs.pending(name, disk.path):
            raise
        raise Unknown(
            f"the guest of domain {name} on host {tools.config.host_name} was asked to let {disk.path} go, and whether "
            f"it did cannot be read: {error}"
        ) from error


def _pause(tools: Tools, name: str, disk: Disk) -> Deadline:
    """How long the guest is not to be asked."""
    return Deadline(tools.runtime, ASK_AGAIN_SECONDS if tools.unplugs.pending(name, disk.path) else 0.0)


def _ask(tools: Tools, name: str, shown: AttachedDisk) -> Error | None:
    """The error, if libvirt gave one; the guest may have been asked then too."""
    tools.unplugs.asked(name, shown.source)
    try:
        tools.hypervisor.detach_device(name, attached_disk_xml(shown))
    except Error as error:
        return error
    return None


def _disconnect(tools: Tools, name: str, path: str, deadline: Deadline) -> None:
    try:
        tools.adaptor.disconnect(path, timeout=deadline.remaining)
    except Conflict as error:
        error.add_note(f"domain {name} does not show it any more; if its QEMU keeps it open, stopping {name} closes it")
        raise
    except Unavailable as error:
        raise Unknown(
            f"domain {name} has no disk {path} now, but host {tools.config.host_name} still has it attached: {error}"
        ) from error


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


def _refused(
    tools: Tools, name: str, disk: Disk, state: DomainState, seconds: float, problem: Error | None
) -> Unavailable:
    said = f" (libvirt: {problem})" if problem is not None else ""
    why = "it is suspended" if state is DomainState.PAUSED else "it may be booting or hung"
    return Unavailable(
        f"the guest of domain {name} on host {tools.config.host_name} did not let {disk.path} go within "
        f"{seconds:g} s{said}; {why}. "
        "The disk is still attached; try again when the guest runs"
    )
