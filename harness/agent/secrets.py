"""Passphrases that libvirt is lent: for as long as QEMU opens a disk, which keeps the key itself then.

libvirt keeps them in memory only and gives them to nobody. The record of the operation that lends them names their
devices, so that what an agent leaves when it dies is taken away by the next one (`recovery.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from harness.agent.operations import Operation
from harness.spi.errors import Error, InvalidParameter
from harness.spi.objects import Disk
from harness.spi.ports import Hypervisor

_log = logging.getLogger("harness.agent")


@contextmanager
def lent(hypervisor: Hypervisor, disks: Iterable[Disk], operation: Operation) -> Iterator[None]:
    """libvirt knows the passphrases of the encrypted ones among these disks while the block runs.

    One that cannot be taken away is left to the operation, which stays open then; it is a note of the block's error.
    """
    encrypted = [disk for disk in disks if disk.encrypted]
    try:
        lend(hypervisor, encrypted)
        yield
    except Error as error:
        for problem in take_back(hypervisor, [disk.path for disk in encrypted]):
            operation.leave_open()
            error.add_note(f"while cleaning up: {problem}")
        raise
    for problem in take_back(hypervisor, [disk.path for disk in encrypted]):
        operation.leave_open()
        _log.warning("%s; it is tried again", problem)


def lend(hypervisor: Hypervisor, disks: Iterable[Disk]) -> None:
    """Define the secrets of these encrypted disks. Raises `InvalidParameter` for one whose passphrase is missing."""
    for disk in disks:
        if disk.passphrase is None:
            raise InvalidParameter(f"{disk.path} is encrypted, and the command that is to open it has no passphrase")
        hypervisor.define_secret(disk.path, disk.passphrase)


def take_back(hypervisor: Hypervisor, paths: Sequence[str]) -> list[Error]:
    """Undefine the secrets of these devices, if there are any; what went wrong."""
    problems: list[Error] = []
    for path in paths:
        try:
            hypervisor.undefine_secret(path)
        except Error as error:
            problems.append(error)
    return problems


def take_back_left(hypervisor: Hypervisor, paths: Iterable[str]) -> None:
    """As `take_back`, of devices that may have none; raises what went wrong first."""
    left = set(hypervisor.secrets())
    for problem in take_back(hypervisor, sorted(left.intersection(paths))):
        raise problem
