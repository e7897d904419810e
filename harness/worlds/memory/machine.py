"""The model of one KVM host's hardware and system: what stays when its agent dies.

`ModelHost` and `ModelHypervisor` are how an agent sees it; the host and guest observers look at the same machine.
"""

from __future__ import annotations

import enum
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from harness.agent.nfs_disk import nfs_source
from harness.runtime.process import SimulatedEvent, SimulatedRuntime
from harness.spi.errors import Error, InvalidParameter, NotFound
from harness.spi.objects import LUKS_HEADER, PATH_PREFIX
from harness.spi.ports import DomainState
from harness.worlds.memory.image import BOOT_MAGIC, ISO_MAGIC, Image, ImageError, read_image
from harness.worlds.memory.model_luks import HEADER_BYTES, Luks, LuksError, unlock
from harness.worlds.memory.programs import ModelProgram

BY_NAME = "/dev/storpool/"
NFS = "nfs://"
CD = "cdrom"
BOOT_SECONDS = (2.0, 6.0)
"""How long a guest needs until it is up; while it boots it neither lets a disk go nor hears a power button."""
POWEROFF_SECONDS = (1.0, 4.0)
LET_GO_SECONDS = (-0.25, 0.25)
"""How long a resumed guest takes until it lets go of what it was asked for while it was suspended. Half of them do at
once: API calls take next to no virtual time, so that no request would meet an eject else."""
STALE_BYTES = 512
"""What a device shows whose new size, or new object, the kernel has not taken note of."""
EJECT_SECONDS = 0.05
"""How long QEMU takes to close a device that the guest let go; meanwhile it says that it has no such device."""


class Devices(Protocol):
    """Blocks whose devices and links a model can look at, open, read and write, and close."""

    def touch(self, key: int) -> None:
        """What has it open may have changed, so it is looked at again."""
        ...

    def size(self, key: int) -> int: ...

    def stored(self, key: int) -> int: ...

    def read(self, key: int, offset: int, length: int) -> bytes: ...

    def extents(self, key: int) -> Iterable[tuple[int, int]]: ...

    def write(self, key: int, offset: int, data: bytes) -> None: ...

    def links(self, client: int) -> dict[str, int]: ...

    def links_by_id(self, client: int) -> dict[str, int]: ...

    def read_only(self, key: int, client: int) -> bool: ...

    def open(self, key: int, client: int | None = None) -> None: ...

    def release(self, key: int, client: int | None = None) -> None: ...


class NfsFiles(Protocol):
    """Files of NFS pools, by the names that QEMU opens them by."""

    def read(self, name: str) -> bytes:
        """Raises `NotFound`."""
        ...

    def write(self, name: str, content: bytes, *, new: bool) -> None: ...


class Boot(enum.Enum):
    """How far the guest came."""

    FOUND = "found a boot sector"
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
        self.nfs = nfs
        self.name = name
        self.cd_image: Callable[[str], bytes] = _no_image
        """Contents of an image on secondary storage, by the name that QEMU opens it by; raises `NotFound`."""
        self.client_id = client_id
        self.cluster_id = cluster_id
        """Of its StorPool cluster, where there are several."""
        self.place = client_id if place is None else place
        self.blocks = blocks
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
        self.secrets: dict[str, bytes] = {}
        """What libvirtd keeps in memory, by usage."""
        self.command_lines: list[str] = []
        """Of every program that was run."""
        self.no_cryptsetup = 0
        """How many reasons there are for which there is no cryptsetup."""
        self.unreached = 0
        """How many reasons there are for which other hosts do not reach libvirtd here."""
        self.libvirtd_gone = 0
        """How many reasons there are for which libvirtd does not answer; its domains run on."""
        self.late: set[str] | None = None
        """While devices come late: names of those that were there before; others are not there yet."""
        self.stale: set[str] | None = None
        """While devices have a wrong size: names of those that were there before; others show an old size."""

    def key(self, path: str) -> int | None:
        """The object that a device path of this host leads to."""
        if path.startswith(PATH_PREFIX):
            name = path.removeprefix(PATH_PREFIX)
            if self.late is not None and name not in self.late:
                return None
            return self.blocks.links_by_id(self.client_id).get(name)
        if path.startswith(BY_NAME):
            return self.blocks.links(self.client_id).get(path.removeprefix(BY_NAME))
        return None

    def device_size(self, path: str) -> int | None:
        """Bytes that the device shows, which are those of the object unless it is stale; None without a device."""
        key = self.key(path)
        if key is None:
            return None
        stale = self.stale is not None and path.removeprefix(PATH_PREFIX) not in self.stale
        return STALE_BYTES if stale else self.blocks.size(key)

    def cut_power(self) -> None:
        """Every QEMU and every program ends at once."""
        for program in self.programs:
            program.killed.deliver()
        self.secrets.clear()
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

    def open(self, disk: ModelDisk) -> None:
        """QEMU opens the disk's device, or file, for writing."""
        if disk.source.startswith(NFS):
            disk.size = self.file_image(disk).size
            disk.file_open = True
            return
        key = self.key(disk.source)
        if key is None:
            raise Error(f"Cannot access storage file '{disk.source}': No such file or directory")
        if self.blocks.read_only(key, self.client_id):
            raise Error(f"Could not open '{disk.source}': Read-only file system")
        if disk.secret is not None:
            disk.luks = self._unlock(disk, key)
        self.blocks.open(key, self.client_id)
        disk.key = key
        disk.size = (self.device_size(disk.source) or 0) - disk.overhead

    def file_image(self, disk: ModelDisk) -> Image:
        """What is in the file of a disk on an NFS pool, in the format that the domain says."""
        try:
            if self.nfs is None:
                raise NotFound(f"{disk.source}: No such file or directory")
            return read_image(self.nfs.read(disk.source), disk.format)
        except (NotFound, ImageError) as error:
            raise Error(f"internal error: process exited while connecting to monitor: {error}") from error

    def touch(self, domain: ModelDomain) -> None:
        """Another of its QEMUs may write to its disks now."""
        for disk in domain.disks:
            if disk.key is not None:
                self.blocks.touch(disk.key)

    def close(self, disk: ModelDisk) -> None:
        disk.file_open = False
        if disk.key is not None:
            self.blocks.release(disk.key, self.client_id)
            disk.key = disk.luks = None

    def read(self, disk: ModelDisk, offset: int, length: int) -> bytes:
        """What the guest reads of a disk that is open."""
        if disk.file_open:
            return self.file_image(disk).read(offset, length)
        assert disk.key is not None, "it is open"
        data = self.blocks.read(disk.key, offset + disk.overhead, length)
        return data if disk.luks is None else disk.luks.crypt(offset, data)

    def write(self, disk: ModelDisk, offset: int, data: bytes) -> None:
        if disk.file_open and self.nfs is not None:
            self.nfs.write(disk.source, self.file_image(disk).written(offset, data).qcow2(), new=False)
            return
        assert disk.key is not None, "it is open"
        stored = data if disk.luks is None else disk.luks.crypt(offset, data)
        self.blocks.write(disk.key, offset + disk.overhead, stored)

    def header(self, key: int) -> bytes:
        """The beginning of an object, as far as a LUKS header goes."""
        return self.blocks.read(key, 0, min(HEADER_BYTES, self.blocks.size(key)))

    def _unlock(self, disk: ModelDisk, key: int) -> Luks:
        passphrase = self.secrets.get(disk.secret or "")
        if passphrase is None:
            raise Error(f"Secret not found: no secret with matching usage '{disk.secret}'")
        try:
            return unlock(self.header(key), passphrase)
        except LuksError as error:
            raise Error(f"internal error: unable to open '{disk.source}': {error}") from error

    def power_on(self, domain: ModelDomain) -> None:
        """Open every disk and let the guest boot; all or nothing."""
        opened: list[ModelDisk] = []
        cd = b""
        try:
            if domain.drive is not None and domain.drive.image is not None:
                cd = self.read_image(domain.drive.image)
            for disk in domain.disks:
                self.open(disk)
                opened.append(disk)
        except Error:
            for disk in opened:
                self.close(disk)
            raise
        low, high = BOOT_SECONDS
        domain.state = DomainState.RUNNING
        domain.boot_id = self.runtime.uuid()
        domain.up_at = self.runtime.now() + low + (high - low) * self.runtime.random()
        domain.boot = self._look_for_boot_sector(domain, cd)

    def power_off(self, domain: ModelDomain) -> None:
        """QEMU ends: every device is closed and the domain is what its definition says."""
        for disk in (*domain.disks, *domain.forgotten):
            self.close(disk)
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
        self.open(disk)
        domain.disks.append(disk)
        domain.xml = None

    def read_image(self, name: str) -> bytes:
        """What QEMU does with an image that libvirt gives it."""
        try:
            return self.cd_image(name)
        except NotFound as error:
            raise Error(f"internal error: qemu unexpectedly closed the monitor: {error}") from error

    def change_medium(self, domain: ModelDomain, element: ET.Element) -> None:
        drive = _drive(element)
        if domain.drive is None:
            raise InvalidParameter(f"invalid argument: domain {domain.name} has no CD drive")
        if drive.image is not None:
            self.read_image(drive.image)
        domain.drive = drive
        domain.xml = None

    def disk(self, domain: ModelDomain, target: str) -> ModelDisk:
        found = _by_target(domain, target)
        if found is None:
            raise InvalidParameter(f"invalid argument: disk '{target}' was not found in the domain config")
        return found

    def resize(self, domain: ModelDomain, target: str, size: int) -> None:
        """QEMU looks at the device again and tells the guest what that has, also when it is asked for less."""
        disk = self.disk(domain, target)
        there = (self.device_size(disk.source) or 0) - disk.overhead
        if size > there:
            raise Error("internal error: unable to execute QEMU command 'block_resize': Cannot grow device files")
        disk.size = there

    def unplug(self, domain: ModelDomain, target: str) -> bool:
        """Ask the guest to let a disk go; whether libvirt shows it no more.

        While QEMU ejects it, QEMU answers that there is no such device. libvirt takes it as gone then, fails to close
        it (`blockdev-del`: Node is in use) and never tries again.
        """
        disk = _by_target(domain, target)
        if disk is None:
            return True
        if disk.ejecting:
            domain.forgotten.append(disk)
            self._drop(domain, disk)
            return True
        if self.up(domain):
            self.close(disk)
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
        self.touch(domain)
        self.let_go(domain)

    def let_go(self, domain: ModelDomain) -> None:
        """Of what the guest was asked for while it was suspended."""
        targets, domain.unplugging = domain.unplugging, []
        for target in targets:
            self.runtime.spawn(f"eject {target} of {domain.name}", partial(self._eject, domain, domain.boot_id, target))

    def _eject(self, domain: ModelDomain, boot_id: str, target: str) -> None:
        low, high = LET_GO_SECONDS
        self.runtime.sleep(max(0.0, low + (high - low) * self.runtime.random()))
        disk = _by_target(domain, target)
        if disk is None or domain.boot_id != boot_id or not self.up(domain):
            return
        disk.ejecting = True
        self.runtime.sleep(EJECT_SECONDS)
        if disk in domain.disks and domain.boot_id == boot_id:
            self.close(disk)
            self._drop(domain, disk)

    def _drop(self, domain: ModelDomain, disk: ModelDisk) -> None:
        domain.disks.remove(disk)
        domain.xml = None

    def _look_for_boot_sector(self, domain: ModelDomain, cd: bytes) -> Boot:
        """In the order of the XML."""
        for device in (boot.get("dev") for boot in domain.defined.iterfind("./os/boot")):
            if device == "cdrom" and cd.startswith(ISO_MAGIC):
                return Boot.CD
            if device == "hd" and (found := self._look_at_first_disk(domain)) is Boot.FOUND:
                return found
        return Boot.NOTHING

    def _look_at_first_disk(self, domain: ModelDomain) -> Boot:
        if not domain.disks or not domain.disks[0].seen:
            return Boot.NOTHING
        disk = domain.disks[0]
        length = min(len(BOOT_MAGIC), disk.size)
        return Boot.FOUND if self.read(disk, 0, length) == BOOT_MAGIC else Boot.NOTHING


def read_domain(text: str) -> ModelDomain:
    """The domain that an XML text describes; raises `InvalidParameter` for what libvirt would refuse."""
    root = _parse(text, "domain")
    name = root.findtext("name", "").strip()
    uuid = root.findtext("uuid", "").strip()
    if not name:
        raise InvalidParameter("XML error: domain has no name")
    devices = root.find("devices")
    disks = read_disks(root)
    refuse_duplicates(disks)
    ports = None
    if devices is not None:
        declared = len(devices.findall("controller[@model='pcie-root-port']"))
        others = len(devices.findall("interface")) + len(devices.findall("rng"))
        ports = declared - others if declared else None
    return ModelDomain(name=name, uuid=uuid, defined=root, disks=disks, ports=ports, drive=read_drive(root))


def _no_image(name: str) -> bytes:
    raise NotFound(f"{name}: No such file or directory")


def where_it_went(machine: Machine, domain: ModelDomain) -> tuple[Machine, ModelDomain]:
    """The domain, or the one that its guest was last migrated to."""
    while domain.moved_to is not None:
        machine, domain = domain.moved_to
    return machine, domain


def _by_target(domain: ModelDomain, target: str) -> ModelDisk | None:
    return next((disk for disk in domain.disks if disk.target == target), None)


def read_disks(domain: ET.Element) -> list[ModelDisk]:
    return [read_disk(element) for element in domain.iterfind("./devices/disk") if element.get("device") != CD]


def read_drive(domain: ET.Element) -> ModelDrive | None:
    """The CD drive; raises `InvalidParameter` for what libvirt would refuse."""
    found = domain.find(f"./devices/disk[@device='{CD}']")
    return None if found is None else _drive(found)


def _drive(element: ET.Element) -> ModelDrive:
    target, source = element.find("target"), element.find("source")
    if element.get("device") != CD or target is None or target.get("bus") != "sata" or element.find("readonly") is None:
        raise InvalidParameter("XML error: the model host only knows a CD drive on SATA, which is read only")
    if source is None:
        return ModelDrive(element, None)
    host = source.find("host")
    if element.get("type") != "network" or source.get("protocol") != "nfs" or host is None:
        raise InvalidParameter("XML error: the model host reads images over NFS only")
    return ModelDrive(element, f"nfs://{host.get('name')}{source.get('name')}")


def read_disk(element: ET.Element) -> ModelDisk:
    """A disk element; raises `InvalidParameter` for what libvirt would refuse."""
    target = element.find("target")
    if target is None or not target.get("dev"):
        raise Error("missing target information for device: <disk> needs <target dev=...>")
    source = element.find("source")
    name = None if source is None else source.get("dev") if element.get("type") == "block" else nfs_source(source)
    if source is None or not name or element.get("type") not in ("block", "network"):
        raise InvalidParameter("XML error: the model host only knows disks of devices and of files on NFS")
    driver = element.find("driver")
    if driver is None or not driver.get("type"):
        raise InvalidParameter("refused: <driver type=...> is missing, so libvirt would take its default format")
    return ModelDisk(
        element=element,
        source=name,
        target=target.get("dev", ""),
        serial=element.findtext("serial", "").strip(),
        format=driver.get("type", ""),
        secret=_secret(source),
    )


def _secret(source: ET.Element) -> str | None:
    encryption = source.find("encryption")
    if encryption is None:
        return None
    secret = encryption.find("secret[@type='passphrase']")
    if encryption.get("format") != "luks" or secret is None or not secret.get("usage"):
        raise InvalidParameter("XML error: the model host only knows LUKS with a passphrase by its usage")
    return secret.get("usage")


def disk_element(text: str) -> ET.Element:
    return _parse(text, "disk")


def refuse_duplicates(disks: list[ModelDisk]) -> None:
    """One disk a target. libvirt takes two disks with one serial."""
    targets = [disk.target for disk in disks]
    twice = next((target for target in targets if targets.count(target) > 1), None)
    if twice is not None:
        raise InvalidParameter(f"XML error: target '{twice}' duplicated for disk sources")


def live_xml(domain: ModelDomain) -> str:
    """The domain with the disks it has now."""
    if domain.xml is None:
        domain.xml = _render(domain)
    return domain.xml


def _render(domain: ModelDomain) -> str:
    root = ET.Element(domain.defined.tag, domain.defined.attrib)
    for child in domain.defined:
        if child.tag != "devices":
            root.append(child)
            continue
        devices = ET.SubElement(root, "devices")
        devices.extend(item for item in child if item.tag != "disk")
        devices.extend(disk.element for disk in domain.disks)
        if domain.drive is not None:
            devices.append(domain.drive.element)
    return ET.tostring(root, encoding="unicode")


def _parse(text: str, tag: str) -> ET.Element:
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise InvalidParameter(f"XML error: {error}") from error
    if root.tag != tag:
        raise InvalidParameter(f"XML error: root element is <{root.tag}>, expected <{tag}>")
    return root
