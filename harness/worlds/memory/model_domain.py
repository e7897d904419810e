"""Domains of a model machine: disks, CD drive, how far the guest came, and a migration that is under way."""

from __future__ import annotations

import enum
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.runtime.process import SimulatedEvent
from harness.spi.objects import LUKS_HEADER
from harness.spi.ports import DomainState
from harness.worlds.memory.model_luks import Luks

if TYPE_CHECKING:
    from harness.worlds.memory.machine import Machine


class Boot(enum.Enum):
    """How far the guest came."""

    FOUND = "found a boot sector"
    IDLE = "found the boot sector of an idle guest"
    CD = "found an ISO in its CD drive"
    NOTHING = "no bootable device"


@dataclass(slots=True)
class ModelDisk:
    """A disk of a running or defined domain."""

    element: ET.Element
    source: str
    target: str
    serial: str
    key: int | None = None
    """The object behind the device that QEMU holds open; None while the domain is off."""
    size: int = 0
    """Bytes that the guest was given when QEMU opened the device; QEMU does not look again by itself."""
    secret: str | None = None
    """The usage of libvirt's secret that opens an encrypted disk."""
    luks: Luks | None = None
    """An encrypted disk that is open."""
    ejecting: bool = False
    """The guest let it go and QEMU has not closed it yet."""
    format: str = "raw"
    file_open: bool = False
    """Of one that is a file on an NFS pool, which has no key: QEMU holds it open."""

    @property
    def seen(self) -> bool:
        """Whether the guest has it."""
        return self.key is not None or self.file_open

    @property
    def overhead(self) -> int:
        """Bytes of the device that the guest does not see."""
        return 0 if self.secret is None else LUKS_HEADER


@dataclass(slots=True)
class ModelDrive:
    """The CD drive of a domain."""

    element: ET.Element
    image: str | None
    """What is in it, by the name that QEMU opens it by."""


@dataclass(slots=True)
class ModelDomain:
    """`disks` are those of the live domain; `defined`, from which `xml` differs by them, is what a next start takes."""

    name: str
    uuid: str
    defined: ET.Element
    disks: list[ModelDisk]
    ports: int | None
    """Hot-plug ports; None when the XML declares none, and then nobody counts."""
    state: DomainState = DomainState.SHUT_OFF
    boot: Boot = Boot.NOTHING
    boot_id: str = ""
    up_at: float = 0.0
    """When the guest answers, in seconds of the virtual wall clock."""
    unplugging: list[str] = field(default_factory=list)
    """Targets that a suspended guest was asked to let go."""
    forgotten: list[ModelDisk] = field(default_factory=list)
    """Disks that libvirt dropped from the XML while QEMU was ejecting them: they stay open until the domain is off."""
    drive: ModelDrive | None = None
    transient: bool = False
    """It was undefined while it ran, so nothing is left of it when it goes off."""
    inactive: bool = False
    """One of the two QEMUs of a migration, the one that has the disks open and may not write to them: the destination
    until it is handed over, the source from then on."""
    migration: ModelMigration | None = None
    """That is under way from here."""
    slow: bool = False
    """Whether its memory is copied at a crawl."""
    moved_to: tuple[Machine, ModelDomain] | None = None
    """Where the guest went on."""
    xml: str | None = None
    """Live XML, if it was asked for since the disks changed."""


@dataclass(slots=True)
class ModelMigration:
    """A migration of a domain, which libvirtd conducts also when nobody waits for it any more."""

    cancel: SimulatedEvent
    listeners: list[SimulatedEvent] = field(default_factory=list)
    """Of those who wait for its end."""
    over: bool = False
    error: str = ""
    """libvirt's, when it came to nothing."""


def where_it_went(machine: Machine, domain: ModelDomain) -> tuple[Machine, ModelDomain]:
    """The domain, or the one that its guest was last migrated to."""
    while domain.moved_to is not None:
        machine, domain = domain.moved_to
    return machine, domain


def by_target(domain: ModelDomain, target: str) -> ModelDisk | None:
    return next((disk for disk in domain.disks if disk.target == target), None)
