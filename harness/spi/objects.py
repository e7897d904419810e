"""Data objects that CloudStack hands to drivers and, as transfer objects, to agents (spec/cloudstack-plugin.md 2).

All sizes are bytes. `id` is the row id in CloudStack's records, `uuid` what users see.
"""

from __future__ import annotations

import enum

import msgspec

from harness.spi.errors import InvalidParameter
from harness.spi.passphrase import Passphrase

PATH_PREFIX = "/dev/storpool-byid/"
"""A StorPool object's CloudStack path is this prefix and its global id (section 1.3)."""
NAME_PREFIX = "/dev/storpool/"
"""What the path of an object that goes by its name starts with, as old ones do."""
LUKS_HEADER = 2 << 20
"""Bytes at the beginning of an encrypted volume that its guest does not see: a LUKS1 header (section 4.24)."""


def device_path(global_id: str) -> str:
    """The CloudStack path, and host device, of the StorPool object with this bare global id."""
    return PATH_PREFIX + global_id


def storpool_id(path: str) -> str:
    """How the StorPool API is told of the object at a CloudStack path: `~globalId`, or the name in old paths.

    Raises `InvalidParameter` for anything but a StorPool device path: asked for by a wrong name, StorPool would answer
    for another object, or that there is none, which is how a deletion succeeds.
    """
    for prefix, mark in ((PATH_PREFIX, "~"), (NAME_PREFIX, "")):
        name = path.removeprefix(prefix)
        if name != path and "/" not in name and name not in ("", ".", ".."):
            return mark + name
    raise InvalidParameter(f"{path!r} is not a path of a StorPool object; it should look like {PATH_PREFIX}<globalId>")


def is_storpool_path(path: str) -> bool:
    """Whether it is the path of a StorPool object, and not of a file on another pool."""
    try:
        storpool_id(path)
    except InvalidParameter:
        return False
    return True


class StoreRole(enum.StrEnum):
    PRIMARY = "Primary"
    IMAGE = "Image"


class VolumeType(enum.StrEnum):
    ROOT = "ROOT"
    DATADISK = "DATADISK"


class ImageFormat(enum.StrEnum):
    """Formats of images and devices; always given explicitly, never probed."""

    RAW = "RAW"
    QCOW2 = "QCOW2"
    ISO = "ISO"

    @property
    def qemu(self) -> str:
        """The name QEMU knows the format by; an ISO has none of its own."""
        return "raw" if self is ImageFormat.ISO else self.value.lower()


class DataStore(msgspec.Struct, frozen=True, kw_only=True):
    """A primary storage pool, or an image store (secondary storage)."""

    id: int
    uuid: str
    name: str
    role: StoreRole
    provider: str
    """`StorPool` for our pools, `DefaultPrimary` for CloudStack's own, `NFS` for image stores."""
    url: str
    """`storpool:<template>` for one of our pools, without secrets; `nfs://host/export` for any other store."""


class VolumeObject(msgspec.Struct, frozen=True, kw_only=True, tag_field="object", tag="VolumeObject"):
    id: int
    uuid: str
    name: str
    type: VolumeType
    size: int
    store: DataStore | None = None
    path: str | None = None
    """Device path on a StorPool pool; on an NFS pool the name of its file there."""
    format: ImageFormat = ImageFormat.RAW
    device_id: int | None = None
    vm_uuid: str | None = None
    max_iops: int | None = None
    disk_offering_id: int | None = None
    template_id: int | None = None
    encrypted: bool = False

    @property
    def overhead(self) -> int:
        """Bytes that the volume has on StorPool beside the `size` that its guest sees."""
        return LUKS_HEADER if self.encrypted else 0


class DirectSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where hosts themselves fetch a template that is on no image store."""

    url: str
    """May hold a secret; never log it, nor give it to a program as an argument."""
    checksum: str | None = None

    def __repr__(self) -> str:
        return "DirectSource()"


class TemplateObject(msgspec.Struct, frozen=True, kw_only=True, tag_field="object", tag="TemplateObject"):
    id: int
    uuid: str
    name: str
    format: ImageFormat
    size: int
    """Virtual size; of the guest's disk, not of the file."""
    store: DataStore
    path: str | None = None
    """On an image store: relative to its export. On a pool: the device path of the cached snapshot."""
    mirror: str | None = None
    """On an image store: the device path of the StorPool snapshot with the same bytes, of one made from a volume or
    snapshot there."""
    physical_size: int | None = None
    """On an image store: what the file takes."""
    direct: DirectSource | None = None
    """On an image store in name only: hosts fetch it themselves."""


class SnapshotObject(msgspec.Struct, frozen=True, kw_only=True, tag_field="object", tag="SnapshotObject"):
    id: int
    uuid: str
    name: str
    volume: VolumeObject
    size: int
    store: DataStore
    path: str | None = None
    """On a pool: a device path. On an image store: of a qcow2, relative to its export."""
    physical_size: int | None = None
    """On an image store: what the file takes."""


DataObject = VolumeObject | TemplateObject | SnapshotObject


def shown(item: DataObject) -> str:
    """Kind, name and uuid, as errors tell of it."""
    return f"{type(item).__name__} {item.name} ({item.uuid})"


class Disk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One disk of a virtual machine, as the agent must present it (`DiskTO`)."""

    path: str
    """Device path on the host, `/dev/storpool-byid/<globalId>`; of a file on an NFS pool `nfs://server/file`."""
    serial: str
    """Volume uuid without dashes, first 20 characters; what the guest identifies the disk by."""
    device_id: int
    """0 is the ROOT disk; the target name follows from it (vda, vdb, ...)."""
    size: int
    """Of the device; the guest of an encrypted disk sees `LUKS_HEADER` less."""
    type: VolumeType
    format: ImageFormat = ImageFormat.RAW
    encrypted: bool = False
    passphrase: Passphrase | None = None
    """Of an encrypted disk, where one is about to be opened."""


def disk_serial(volume_uuid: str) -> str:
    """The serial a guest sees for the disk of this volume (section 4.4)."""
    return volume_uuid.replace("-", "")[:20]


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    mac: str
    ip: str
    bridge: str


class VirtualMachine(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent needs to start a guest (`VirtualMachineTO`)."""

    uuid: str
    name: str
    """Instance name, for example `i-2-7-VM`; the libvirt domain is called so."""
    cpus: int
    memory: int
    disks: tuple[Disk, ...]
    nics: tuple[Nic, ...]
    iso: TemplateObject | None = None
    """What is in its CD drive; on an image store."""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    uuid: str
    name: str
    cluster_id: int
    storpool_client_id: int | None = None
    """SP_OURID as the host's agent reported it."""
    storpool_cluster_id: str | None = None
    """SP_CLUSTER_ID as the host's agent reported it."""


class VmPower(enum.StrEnum):
    """Power state of a domain in an agent's report."""

    ON = "PowerOn"
    OFF = "PowerOff"
    PAUSED = "PowerPaused"
