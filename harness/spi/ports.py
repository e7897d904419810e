"""Ports that production code is handed: the only ways to hosts, libvirt, secondary storage and agents."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from harness.spi.commands import AnyAnswer, AnyCommand
from harness.spi.objects import DataStore
from harness.spi.passphrase import Passphrase

REASON_LIMIT = 500
"""Characters of what a program said that an error tells."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a program on a host did."""

    argv: tuple[str, ...]
    rc: int
    stdout: bytes
    stderr: bytes

    @property
    def reason(self) -> str:
        """Why it failed, for an error's text: the last line that it wrote to stderr."""
        lines = self.stderr.decode(errors="replace").strip().splitlines()
        return lines[-1][:REASON_LIMIT] if lines else f"exit status {self.rc} without a word"


Output = Callable[[bytes], None]
"""Takes what a program writes to its standard output, in whatever pieces it is read; must not raise or wait."""


class Host(Protocol):
    """The operating system of one KVM host. Nothing else in the agent touches it."""

    def block_device_size(self, path: str) -> int | None:
        """Size in bytes of the block device that `path` leads to; None when it is missing or not a block device."""
        ...

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float,
        operation: str | None = None,
        output: Output | None = None,
    ) -> CommandResult:
        """Run a program without a shell. Raises `Unavailable` when it cannot be started and `Unknown` when `timeout`
        seconds pass; it has been killed then.

        It does not die with the agent. `operation` is an id by which the next agent finds it again. `output` is told
        what it prints, while it runs.
        """
        ...

    def end_programs(self, operation: str, *, timeout: float) -> None:
        """Kill the programs that were run for this operation, by whichever agent, and wait until none of them is left.

        Raises `Unknown` when one is still there after `timeout` seconds: it may go on writing, and `Unavailable` when
        the host's processes cannot be looked at.
        """
        ...

    def read_text(self, path: str) -> str:
        """Contents of a small text file; raises `NotFound` when it is missing."""
        ...

    def write_durably(self, path: str, text: str) -> None:
        """Replace a small text file, or make it and its directories. Once this returns, the text survives a crash of
        the host; until then the old contents do, whole. It is written to `<path>.new` first. Only root can read it.

        Raises `Unavailable`; nothing was changed then.
        """
        ...

    def remove(self, path: str) -> None:
        """Remove a file; no error when it is missing. A crash of the host may bring it back. Raises `Unavailable`."""
        ...

    def list_directory(self, path: str) -> tuple[str, ...]:
        """Names in a directory, sorted; none when it is missing. Raises `Unavailable`."""
        ...


class DomainState(enum.StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    SHUT_OFF = "shut off"
    CRASHED = "crashed"


ON = (DomainState.RUNNING, DomainState.PAUSED)
"""A domain whose QEMU is there, and has its disks open."""


class Hypervisor(Protocol):
    """libvirt as the agent sees it: domains are XML, as libvirt shows them.

    All raise `Unavailable` when libvirtd cannot be reached (implementations reconnect by themselves on the next call)
    and `NotFound` when the domain does not exist, unless said otherwise. As with libvirt, a detach that returns proves
    nothing: read the XML back.
    """

    def domains(self) -> dict[str, DomainState]:
        """Every domain of the host by name, also those that are shut off."""
        ...

    def create(self, xml: str) -> None:
        """Define and start a domain. A domain of that name that is shut off is replaced. `Conflict` when it runs."""
        ...

    def xml(self, name: str) -> str:
        """Live XML of a domain."""
        ...

    def shutdown(self, name: str) -> None:
        """Ask the guest to power off; returns at once."""
        ...

    def destroy(self, name: str) -> None:
        """Power off. No error when the domain is missing or already off."""
        ...

    def undefine(self, name: str) -> None:
        """Forget a domain that is off. No error when it is missing."""
        ...

    def attach_device(self, name: str, xml: str) -> None:
        """Hot-plug a device into a running domain."""
        ...

    def detach_device(self, name: str, xml: str) -> None:
        """Ask a running domain to let a device go. No error when it has no such device."""
        ...

    def update_device(self, name: str, xml: str) -> None:
        """Change the medium of a running domain's CD drive to what the XML says; a guest that locked it is overruled.

        After `Unknown` it may be done later.
        """
        ...

    def migratable_xml(self, name: str) -> str:
        """XML of a running domain as the libvirtd of another host takes it."""
        ...

    def migrate(self, name: str, uri: str, xml: str, *, converge: bool, timeout: float) -> None:
        """Move a running domain, live, to the libvirtd at `uri`, where it becomes `xml`; nothing of it stays here.

        The libvirtds do it among themselves, and go on when the caller dies. After `timeout` seconds it is cancelled.
        After any error the domain may be here, there or nowhere: look.
        """
        ...

    def cancel_migration(self, name: str, *, timeout: float) -> None:
        """End a migration of the domain that is under way from here. No error when there is none, or no such domain.

        It may end by being through. `Unknown` when it is still under way after `timeout` seconds.
        """
        ...

    def resume(self, name: str) -> None:
        """Let a domain run that is paused. No error when it runs."""
        ...

    def disk_size(self, name: str, target: str) -> int:
        """Bytes of the disk with this target (`vda`), as QEMU has it: what the guest of a running domain sees."""
        ...

    def resize_disk(self, name: str, target: str, size: int) -> None:
        """Have QEMU look at the disk again and tell the guest what the device has: `size` bytes, or refused.

        After `Unknown` it may be done later.
        """
        ...

    def secrets(self) -> tuple[str, ...]:
        """Devices whose passphrases libvirt knows, sorted."""
        ...

    def define_secret(self, device: str, passphrase: Passphrase) -> None:
        """Have libvirt know the passphrase of the encrypted volume with this device path, in memory only, until it is
        undefined or libvirtd ends. Another one of the same device is replaced."""
        ...

    def undefine_secret(self, device: str) -> None:
        """No error when libvirt knows none of that device. A QEMU that was given it goes on."""
        ...


class Secondary(Protocol):
    """How a KVM host reaches files of an image store: QEMU's own NFS client, or a kernel mount."""

    def file(self, store: DataStore, path: str) -> AbstractContextManager[str]:
        """The image at `path` of the store, as a file name that qemu-img takes, valid inside the block.

        Raises `InvalidParameter` for a path that leaves the store or a store that is not NFS, `Unavailable` when the
        store cannot be reached.
        """
        ...

    def new_file(self, store: DataStore, path: str) -> AbstractContextManager[str]:
        """As `file`, of one that qemu-img is to write. The directory that it goes to must exist."""
        ...

    def hold(self, store: DataStore, path: str, holder: str) -> str:
        """As `file`, of an image that a domain has open for as long as it runs. `holder` has one image at a time: a new
        one takes the place of the one before, which stays readable for who has it open.
        """
        ...

    def let_go(self, holder: str) -> None:
        """The holder needs no image any more; no error when it has none. Never raises `Error`."""
        ...

    def clean_up(self) -> None:
        """Take away what an earlier agent of this host left when it died; what this one uses stays. Never raises
        `Error`: what cannot be taken away is logged."""
        ...


class Endpoint(Protocol):
    """A party that takes commands: an agent, or the secondary storage role."""

    @property
    def name(self) -> str: ...

    def send(self, command: AnyCommand, *, timeout: float) -> AnyAnswer:
        """Deliver a command and wait for its answer.

        Raises `Unavailable` when it did not arrive (nothing was done), `Unknown` when no answer came within `timeout`
        seconds or the connection broke: the command may have been, or still be, carried out.
        """
        ...
