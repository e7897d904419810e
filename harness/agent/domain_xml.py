"""Domain and disk XML as libvirt takes it, and disks read back out of it (spec/cloudstack-plugin.md section 4.4)."""

from __future__ import annotations

import functools
import string
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from urllib.parse import urlsplit

from harness.agent.config import Accelerator, AgentConfig
from harness.agent.nfs_disk import nfs_disk_element, nfs_source
from harness.spi.errors import InvalidParameter
from harness.spi.objects import Disk, Nic, VirtualMachine, is_storpool_path

CD_TARGET = "sda"
NFS_PREFIX = "nfs://"
HOT_PLUG_PORTS = 8
"""Free pcie-root-ports of a new domain: q35 hot-plugs into these only."""


@dataclass(frozen=True, slots=True)
class AttachedDisk:
    """A disk as a domain's XML shows it."""

    source: str
    target: str
    serial: str
    format: str = "raw"
    """QEMU's name of it."""


def target_name(device_id: int) -> str:
    """vda for 0, vdz for 25, vdaa for 26."""
    if device_id < 0:
        raise InvalidParameter(f"device id {device_id} is negative")
    letters = ""
    rest = device_id + 1
    while rest:
        rest, letter = divmod(rest - 1, 26)
        letters = string.ascii_lowercase[letter] + letters
    return "vd" + letters


def disk_element(source: str, target: str, serial: str, *, encrypted: bool = False) -> ET.Element:
    """A raw block device on virtio, past the host's page cache, whose discards reach StorPool.

    With `encrypted` it is what LUKS has on that device; libvirt finds the passphrase by the device's path.
    """
    disk = ET.Element("disk", type="block", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="raw", cache="none", io="native", discard="unmap")
    storage = ET.SubElement(disk, "source", dev=source)
    if encrypted:
        encryption = ET.SubElement(storage, "encryption", format="luks")
        ET.SubElement(encryption, "secret", type="passphrase", usage=source)
    ET.SubElement(disk, "target", dev=target, bus="virtio")
    ET.SubElement(disk, "serial").text = serial
    return disk


def cd_element(image: str | None) -> ET.Element:
    """The CD drive, on the SATA controller that q35 has, with this image: a file, or `nfs://server/file`."""
    network = image is not None and image.startswith(NFS_PREFIX)
    drive = ET.Element("disk", type="network" if network else "file", device="cdrom")
    ET.SubElement(drive, "driver", name="qemu", type="raw")
    if image is not None and network:
        url = urlsplit(image)
        source = ET.SubElement(drive, "source", protocol="nfs", name=url.path)
        ET.SubElement(source, "host", name=url.hostname or "")
        ET.SubElement(source, "identity", user="+0", group="+0")
    elif image is not None:
        ET.SubElement(drive, "source", file=image)
    ET.SubElement(drive, "target", dev=CD_TARGET, bus="sata")
    ET.SubElement(drive, "readonly")
    return drive


def cd_xml(image: str | None) -> str:
    """XML that changes what is in the drive."""
    return _text(cd_element(image))


def read_cd(xml: str) -> str | None:
    """The image in the domain's CD drive, as `cd_element` takes it; None when it is empty, or there is none."""
    source = ET.fromstring(xml).find("./devices/disk[@device='cdrom']/source")
    return None if source is None else nfs_source(source) or source.get("file")


def disk_xml(disk: Disk) -> str:
    """XML to hot-plug this disk."""
    return _text(_element(disk))


def attached_disk_xml(disk: AttachedDisk) -> str:
    """XML that names a disk the domain has, to take it away; libvirt goes by the target."""
    if is_storpool_path(disk.source):
        return _text(disk_element(disk.source, disk.target, disk.serial))
    return _text(nfs_disk_element(disk.source, disk.target, disk.serial, disk.format))


def domain_xml(vm: VirtualMachine, config: AgentConfig, cd: str | None = None) -> str:
    """XML of a q35 guest that boots from the image in its CD drive, else from its first disk."""
    domain = ET.Element("domain", type=config.accelerator.value)
    ET.SubElement(domain, "name").text = vm.name
    ET.SubElement(domain, "uuid").text = vm.uuid
    ET.SubElement(domain, "memory", unit="b").text = str(vm.memory)
    ET.SubElement(domain, "vcpu").text = str(vm.cpus)
    boot = ET.SubElement(domain, "os")
    ET.SubElement(boot, "type", arch="x86_64", machine="q35").text = "hvm"
    ET.SubElement(boot, "boot", dev="cdrom")
    ET.SubElement(boot, "boot", dev="hd")
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if config.accelerator is Accelerator.KVM:
        ET.SubElement(domain, "cpu", mode="host-model")
    ET.SubElement(domain, "clock", offset="utc")
    for moment, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        ET.SubElement(domain, moment).text = action
    domain.append(_devices(vm, config, cd))
    ET.indent(domain)
    return _text(domain)


@functools.lru_cache(64)
def read_disks(xml: str) -> tuple[AttachedDisk, ...]:
    """Every disk in a domain's XML whose source is a block device or a file on NFS, in the XML's order."""
    disks = []
    for disk in ET.fromstring(xml).iterfind("./devices/disk"):
        source = disk.find("source")
        target = disk.find("target")
        if source is None or target is None or disk.get("device") == "cdrom":
            continue
        path = source.get("dev") or nfs_source(source)
        if path is None:
            continue
        driver = disk.find("driver")
        disks.append(
            AttachedDisk(
                source=path,
                target=target.attrib.get("dev", ""),
                serial=disk.findtext("serial", "").strip(),
                format="raw" if driver is None else driver.get("type", "raw"),
            )
        )
    return tuple(disks)


def with_console(xml: str, path: str | None) -> str:
    """The domain with its serial console written to this file, if it is written to one."""
    root = ET.fromstring(xml)
    for source in root.iterfind("./devices/*[@type='file']/source[@path]"):
        if path is not None:
            source.set("path", path)
    return _text(root)


def console_path(name: str, config: AgentConfig) -> str | None:
    """File that the domain's serial console is written to here."""
    return None if config.log_directory is None else f"{config.log_directory}/{name}.console"


def _devices(vm: VirtualMachine, config: AgentConfig, cd: str | None) -> ET.Element:
    devices = ET.Element("devices")
    # Every cold-plugged virtio device below takes a port of its own; the rest stay free for hot-plug.
    fixed = len(vm.disks) + len(vm.nics) + 1
    ET.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    for index in range(1, fixed + HOT_PLUG_PORTS + 1):
        ET.SubElement(devices, "controller", type="pci", index=str(index), model="pcie-root-port")
    ET.SubElement(devices, "controller", type="usb", index="0", model="none")
    for disk in sorted(vm.disks, key=lambda disk: disk.device_id):
        devices.append(_element(disk))
    devices.append(cd_element(cd))
    for nic in vm.nics:
        devices.append(_interface(nic, config))
    devices.extend(_console(vm.name, config))
    ET.SubElement(devices, "memballoon", model="none")
    rng = ET.SubElement(devices, "rng", model="virtio")
    ET.SubElement(rng, "backend", model="random").text = "/dev/urandom"
    return devices


def _element(disk: Disk) -> ET.Element:
    target = target_name(disk.device_id)
    if is_storpool_path(disk.path):
        return disk_element(disk.path, target, disk.serial, encrypted=disk.encrypted)
    return nfs_disk_element(disk.path, target, disk.serial, disk.format.qemu)


def _interface(nic: Nic, config: AgentConfig) -> ET.Element:
    interface = ET.Element("interface", type="bridge")
    ET.SubElement(interface, "mac", address=nic.mac)
    ET.SubElement(interface, "source", bridge=nic.bridge or config.bridge)
    ET.SubElement(interface, "model", type="virtio")
    return interface


def _console(name: str, config: AgentConfig) -> list[ET.Element]:
    path = console_path(name, config)
    if path is None:
        serial = ET.Element("serial", type="pty")
    else:
        serial = ET.Element("serial", type="file")
        ET.SubElement(serial, "source", path=path, append="on")
    ET.SubElement(serial, "target", port="0")
    console = ET.Element("console", type=serial.attrib["type"])
    if path is not None:
        ET.SubElement(console, "source", path=path, append="on")
    ET.SubElement(console, "target", type="serial", port="0")
    return [serial, console]


def _text(element: ET.Element) -> str:
    return ET.tostring(element, encoding="unicode")
