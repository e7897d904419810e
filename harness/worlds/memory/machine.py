"""The model of one KVM host's hardware and system: what stays when its agent dies.

`ModelHost` and `ModelHypervisor` are how an agent sees it; the host and guest observers look at the same machine.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from functools import partial

from harness.runtime.process import SimulatedRuntime
from harness.spi.errors import Error, InvalidParameter, NotFound
from harness.spi.ports import DomainState
from harness.worlds.memory.image import BOOT_MAGIC, IDLE_MAGIC, ISO_MAGIC
from harness.worlds.memory.model_domain import Boot, ModelDisk, ModelDomain, by_target, where_it_went
from harness.worlds.memory.model_domain_xml import read_cd_drive, read_disk, read_disks, read_drive
from harness.worlds.memory.model_running import ModelProgram
from harness.worlds.memory.model_storage import Devices, ModelStorage, NfsFiles

BOOT_SECTORS = {BOOT_MAGIC: Boot.FOUND, IDLE_MAGIC: Boot.IDLE}
SECTOR = 512
BOOT_SECONDS = (2.0, 6.0)
"""How long a guest needs until it is up; while it boots it neither lets a disk go nor hears a power button."""
POWEROFF_SECONDS = (1.0, 4.0)
LET_GO_SECONDS = (-0.25, 0.25)
"""How long a resumed guest takes until it lets go of what it was asked for while it was suspended. Half of them do at
once: API calls take next to no virtual time, so that no request would meet an eject else."""
EJECT_SECONDS = 0.05
"""How long QEMU takes to close a device that the guest let go; meanwhile it says that it has no such device."""


class Machine:
    """One host. `runtime` is its hardware's: a process that no test kills by accident."""

    def __init__(
        self,
        runtime: SimulatedRuntime,
        name: str,
        client_id: int,
        blocks: Devices,
        files: Mapping[str, str],
        *,
        cluster_id: str = "",
        place: int | None = None,
        nfs: NfsFiles | None = None,
    ) -> None:
        """`place` is its number among all hosts; its client id, unless hosts of several StorPool clusters are there."""
        self.runtime = runtime
        self.name = name
        self.client_id = client_id
        self.cluster_id = cluster_id
        """Of its StorPool cluster, where there are several."""
        self.place = client_id if place is None else place
        self.storage = ModelStorage(blocks, client_id, nfs)
        self.files = dict(files)
        """Small text files by path."""
        self.images: dict[str, bytes] = {}
        """Files that programs wrote, by path."""
        self.domains: dict[str, ModelDomain] = {}
        self.slow_copies = 0
        """How many reasons there are for which programs that begin to copy are slow."""
        self.programs: list[ModelProgram] = []
        """Those that run, also after the agent that started them has died."""
        self.peers: dict[str, Machine] = {}
        """The other hosts, by name, as far as their libvirtds reach each other."""
        self.cuts = 0
        """How many reasons there are for which this host does not reach the StorPool API."""
        self.command_lines: list[str] = []
        """Of every program that was run."""
        self.no_cryptsetup = 0
        """How many reasons there are for which there is no cryptsetup."""
        self.unreached = 0
        """How many reasons there are for which other hosts do not reach libvirtd here."""
        self.libvirtd_gone = 0
        """How many reasons there are for which libvirtd does not answer; its domains run on."""

    def cut_power(self) -> None:
        """Every QEMU and every program ends at once."""
        for program in self.programs:
            program.killed.deliver()
        self.storage.secrets.clear()
        self.kill_guests()

    def kill_guests(self) -> None:
        """Every QEMU ends at once."""
        for domain in list(self.domains.values()):
            if domain.state in (DomainState.RUNNING, DomainState.PAUSED):
                self.power_off(domain)

    def open_disks(self) -> list[ModelDisk]:
        """Every disk that a QEMU of this host has open."""
        return [
            disk
            for domain in self.domains.values()
            for disk in (*domain.disks, *domain.forgotten)
            if disk.key is not None
        ]

    def find(self, name: str) -> ModelDomain:
        domain = self.domains.get(name)
        if domain is None:
            raise NotFound(f"Domain not found: no domain with matching name '{name}' on {self.name}")
        return domain

    def power_on(self, domain: ModelDomain) -> None:
        """Open every disk and let the guest boot; all or nothing."""
        cd = self.storage.medium(domain.drive)
        self.storage.open_all(domain)
        low, high = BOOT_SECONDS
        domain.state = DomainState.RUNNING
        domain.boot_id = self.runtime.uuid()
        domain.up_at = self.runtime.now() + low + (high - low) * self.runtime.random()
        domain.boot = self._look_for_boot_sector(domain, cd)

    def power_off(self, domain: ModelDomain) -> None:
        """QEMU ends: every device is closed and the domain is what its definition says."""
        for disk in (*domain.disks, *domain.forgotten):
            self.storage.close(disk)
        domain.forgotten.clear()
        # What was hot-plugged, or taken away, since the start is forgotten: libvirt changed the live domain only.
        domain.disks = read_disks(domain.defined)
        domain.drive = read_drive(domain.defined)
        domain.xml = None
        domain.state = DomainState.SHUT_OFF
        domain.inactive = False
        domain.boot_id = ""
        domain.unplugging.clear()
        if domain.transient:
            del self.domains[domain.name]

    def press_power_button(self, domain: ModelDomain) -> None:
        """A guest that is up shuts itself down after a while; any other hears nothing."""
        if not self.up(domain):
            return
        boot_id = domain.boot_id
        low, high = POWEROFF_SECONDS
        seconds = low + (high - low) * self.runtime.random()

        def go_off() -> None:
            self.runtime.sleep(seconds)
            machine, there = where_it_went(self, domain)
            if there.boot_id == boot_id and there.state is DomainState.RUNNING:
                self.runtime.point("effect-begin", f"guest of {domain.name} powers off")
                machine.power_off(there)

        self.runtime.spawn(f"power off {domain.name}", go_off)

    def up(self, domain: ModelDomain) -> bool:
        """Whether the guest has booted and runs."""
        booted = domain.boot is not Boot.NOTHING and self.runtime.now() >= domain.up_at
        return domain.state is DomainState.RUNNING and booted

    def plug(self, domain: ModelDomain, element: ET.Element) -> None:
        """Hot-plug a disk."""
        disk = read_disk(element)
        if any(other.target == disk.target for other in domain.disks):
            raise Error(f"operation failed: target {disk.target} already exists in domain {domain.name}")
        if domain.ports is not None and len(domain.disks) >= domain.ports:
            raise Error(f"internal error: No more available PCI slots in domain {domain.name}")
        self.storage.open(disk)
        domain.disks.append(disk)
        domain.xml = None

    def change_medium(self, domain: ModelDomain, element: ET.Element) -> None:
        drive = read_cd_drive(element)
        if domain.drive is None:
            raise InvalidParameter(f"invalid argument: domain {domain.name} has no CD drive")
        self.storage.medium(drive)
        domain.drive = drive
        domain.xml = None

    def disk(self, domain: ModelDomain, target: str) -> ModelDisk:
        found = by_target(domain, target)
        if found is None:
            raise InvalidParameter(f"invalid argument: disk '{target}' was not found in the domain config")
        return found

    def resize(self, domain: ModelDomain, target: str, size: int) -> None:
        """QEMU looks at the device again and tells the guest what that has, also when it is asked for less."""
        disk = self.disk(domain, target)
        there = self.storage.guest_size(disk)
        if size > there:
            raise Error("internal error: unable to execute QEMU command 'block_resize': Cannot grow device files")
        disk.size = there

    def unplug(self, domain: ModelDomain, target: str) -> bool:
        """Ask the guest to let a disk go; whether libvirt shows it no more.

        While QEMU ejects it, QEMU answers that there is no such device. libvirt takes it as gone then, fails to close
        it (`blockdev-del`: Node is in use) and never tries again.
        """
        disk = by_target(domain, target)
        if disk is None:
            return True
        if disk.ejecting:
            domain.forgotten.append(disk)
            self._drop(domain, disk)
            return True
        if self.up(domain):
            self.storage.close(disk)
            self._drop(domain, disk)
            return True
        if domain.state is DomainState.PAUSED and target not in domain.unplugging:
            domain.unplugging.append(target)
        return False

    def suspend(self, domain: ModelDomain) -> None:
        if domain.state is DomainState.RUNNING:
            domain.state = DomainState.PAUSED

    def resume(self, domain: ModelDomain) -> None:
        """The guest runs on, and lets go by itself what it was asked for meanwhile."""
        if domain.state is not DomainState.PAUSED:
            return
        domain.state = DomainState.RUNNING
        domain.inactive = False
        self.storage.touch(domain)
        self.let_go(domain)

    def let_go(self, domain: ModelDomain) -> None:
        """Of what the guest was asked for while it was suspended."""
        targets, domain.unplugging = domain.unplugging, []
        for target in targets:
            self.runtime.spawn(f"eject {target} of {domain.name}", partial(self._eject, domain, domain.boot_id, target))

    def _eject(self, domain: ModelDomain, boot_id: str, target: str) -> None:
        low, high = LET_GO_SECONDS
        self.runtime.sleep(max(0.0, low + (high - low) * self.runtime.random()))
        disk = by_target(domain, target)
        if disk is None or domain.boot_id != boot_id or not self.up(domain):
            return
        disk.ejecting = True
        self.runtime.sleep(EJECT_SECONDS)
        if disk in domain.disks and domain.boot_id == boot_id:
            self.storage.close(disk)
            self._drop(domain, disk)

    def _drop(self, domain: ModelDomain, disk: ModelDisk) -> None:
        domain.disks.remove(disk)
        domain.xml = None

    def _look_for_boot_sector(self, domain: ModelDomain, cd: bytes) -> Boot:
        """In the order of the XML."""
        for device in (boot.get("dev") for boot in domain.defined.iterfind("./os/boot")):
            if device == "cdrom" and cd.startswith(ISO_MAGIC):
                return Boot.CD
            if device == "hd" and (found := self._look_at_first_disk(domain)) is not Boot.NOTHING:
                return found
        return Boot.NOTHING

    def _look_at_first_disk(self, domain: ModelDomain) -> Boot:
        if not domain.disks or not domain.disks[0].seen:
            return Boot.NOTHING
        disk = domain.disks[0]
        sector = self.storage.read(disk, 0, min(SECTOR, disk.size))
        return next((boot for magic, boot in BOOT_SECTORS.items() if sector.startswith(magic)), Boot.NOTHING)
