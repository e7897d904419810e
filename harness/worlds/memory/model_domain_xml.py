"""Domain XML as the model's libvirt reads and shows it.

Disks, the CD drive, hot-plug ports and the boot order are looked at, and refused as libvirt does. Kinder than the real
one: every other element is taken as it is.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from harness.agent.nfs_disk import nfs_source
from harness.spi.errors import Error, InvalidParameter
from harness.worlds.memory.model_domain import ModelDisk, ModelDomain, ModelDrive

CD = "cdrom"


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


def read_disks(domain: ET.Element) -> list[ModelDisk]:
    return [read_disk(element) for element in domain.iterfind("./devices/disk") if element.get("device") != CD]


def read_drive(domain: ET.Element) -> ModelDrive | None:
    """The CD drive; raises `InvalidParameter` for what libvirt would refuse."""
    found = domain.find(f"./devices/disk[@device='{CD}']")
    return None if found is None else read_cd_drive(found)


def read_cd_drive(element: ET.Element) -> ModelDrive:
    """A CD drive's element; raises `InvalidParameter` for what libvirt would refuse."""
    target, source = element.find("target"), element.find("source")
    if element.get("device") != CD or target is None or target.get("bus") != "sata" or element.find("readonly") is None:
        raise InvalidParameter("XML error: the model host only knows a CD drive on SATA, which is read only")
    if source is None:
        return ModelDrive(element, None)
    image = nfs_source(source)
    if element.get("type") != "network" or image is None:
        raise InvalidParameter("XML error: the model host reads images over NFS only")
    return ModelDrive(element, image)


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
