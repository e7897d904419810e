"""Disks that are files on an NFS pool, as libvirt takes them: QEMU's own NFS client opens them, nothing is mounted."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from urllib.parse import urlsplit

from harness.spi.errors import InvalidParameter

SCHEME = "nfs"


def nfs_disk_element(path: str, target: str, serial: str, image_format: str) -> ET.Element:
    """A virtio disk of the file `nfs://server/path`. QEMU needs its nfs block driver (qemu-block-extra on Debian)."""
    url = urlsplit(path)
    if url.scheme != SCHEME or not url.hostname or not url.path:
        raise InvalidParameter(f"disk {path!r} is neither a StorPool device nor a file at nfs://server/path")
    disk = ET.Element("disk", type="network", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type=image_format, cache="none", discard="unmap")
    source = ET.SubElement(disk, "source", protocol=SCHEME, name=url.path)
    ET.SubElement(source, "host", name=url.hostname)
    ET.SubElement(disk, "target", dev=target, bus="virtio")
    ET.SubElement(disk, "serial").text = serial
    return disk


def nfs_source(source: ET.Element) -> str | None:
    """The file of a disk's `<source>`, as `nfs_disk_element` takes it; None when it is no such disk."""
    host = source.find("host")
    if source.get("protocol") != SCHEME or host is None:
        return None
    return f"{SCHEME}://{host.get('name', '')}{source.get('name', '')}"
