"""Tables of what users make: templates, virtual machines, volumes, snapshots."""

from __future__ import annotations

from harness.cloudstack.records.row import Row
from harness.spi.objects import ImageFormat, StoreRole, VolumeType
from harness.spi.states import (
    SNAPSHOT_STATES,
    STORE_REF_STATES,
    VM_SNAPSHOT_STATES,
    VM_STATES,
    VOLUME_STATES,
    SnapshotState,
    StoreRefState,
    VmSnapshotState,
    VmState,
    VolumeState,
)


class Template(Row, frozen=True, kw_only=True):
    """A template, or with format ISO an ISO. `size` is the virtual size, 0 until it is known."""

    TABLE = "vm_template"

    uuid: str
    name: str
    display_text: str
    format: ImageFormat
    url: str
    """Empty for one that was made here."""
    checksum: str | None
    size: int
    guest_os_id: int
    public: bool
    featured: bool
    extractable: bool
    bootable: bool = True
    """Of an ISO: whether VMs are deployed from it."""
    state: str
    """Active or Inactive (deleted)."""
    created: float
    direct_download: bool = False
    """It is on no image store; hosts fetch it themselves."""
    source_template_id: int | None = None
    """Which one the volume was made from that this one was made from."""
    removed: float | None = None


class TemplateStore(Row, frozen=True, kw_only=True):
    """The template's file on an image store."""

    TABLE = "template_store_ref"
    MACHINE = STORE_REF_STATES
    UNIQUE = ("store_id", "template_id")

    store_id: int
    template_id: int
    state: StoreRefState
    download_state: str
    error_str: str | None
    install_path: str
    size: int
    physical_size: int
    local_path: str | None = None
    """Device path of the StorPool snapshot with the same bytes, of a template made from a volume or snapshot."""
    asked_at: float = 0.0
    """When somebody who may go on after an error was last asked to write the file."""


class VolumeStore(Row, frozen=True, kw_only=True):
    """A copy of a volume in a file of an image store, to be downloaded; each request has its own.

    The row comes before the file, and goes only when nobody can write to it any more.
    """

    TABLE = "volume_store_ref"
    MACHINE = STORE_REF_STATES
    INDEX = ("volume_id",)

    store_id: int
    volume_id: int
    state: StoreRefState
    download_state: str
    install_path: str
    size: int
    physical_size: int
    asked_at: float
    token: str
    """What makes the URL; never log it."""
    extract_url: str | None = None
    """Whoever knows it may download the file; never log it."""
    extract_url_created: float | None = None

    def __repr__(self) -> str:
        return f"VolumeStore(id={self.id}, volume_id={self.volume_id}, state={self.state})"


class TemplatePool(Row, frozen=True, kw_only=True):
    """The cache entry of (pool, template): StorPool's snapshot that volumes are cloned from."""

    TABLE = "template_spool_ref"
    MACHINE = STORE_REF_STATES
    UNIQUE = ("pool_id", "template_id")

    pool_id: int
    template_id: int
    state: StoreRefState
    download_state: str
    local_path: str | None
    install_path: str | None
    template_size: int
    marked_for_gc: bool = False


class Vm(Row, frozen=True, kw_only=True):
    TABLE = "vm_instance"
    MACHINE = VM_STATES

    uuid: str
    name: str
    """What the user calls it."""
    instance_name: str
    """What the domain is called."""
    display_name: str
    state: VmState
    data_center_id: int
    service_offering_id: int
    guest_os_id: int
    vm_template_id: int | None
    host_id: int | None
    last_host_id: int | None
    created: float
    update_time: float
    """When the state changed last."""
    iso_id: int | None = None
    """What is in the CD drive, or will be once its host has answered."""
    ha_tries: int = 0
    """How often it may yet be started because its host was lost."""
    iso_before: int | None = None
    """While `iso_changing`, what was in the drive before."""
    iso_changing: bool = False
    """Whether the host has not answered yet; ours, not CloudStack's."""
    removed: float | None = None


class Nic(Row, frozen=True, kw_only=True):
    TABLE = "nics"
    INDEX = ("instance_id",)

    uuid: str
    instance_id: int
    mac_address: str
    ip4_address: str
    bridge: str
    device_id: int
    removed: float | None = None


ATTACHING = "attach.intent"
DETACHING = "detach.intent"
"""Volume details while an attach or detach through an agent is under way: `<vm row id>:<host row id>:<device id>`."""

REVERTING = "revert.intent"
"""Volume detail while it is being reverted: the snapshot's row id."""

CHANGING = "change.intent"
"""Volume detail while its size or offering is being changed: `harness.cloudstack.orchestration.resize.Change`."""
MIGRATING = "migrate.intent"
"""Volume detail while it is given another pool: `harness.cloudstack.orchestration.storage_migration.Move`."""
LEFT_BEHIND = "migrate.source"
"""Volume detail while what it was before a migration is still to be deleted: `...storage_migration.LeftBehind`."""


class Volume(Row, frozen=True, kw_only=True):
    """`template_id` and `snapshot_id` are what the volume is made from at its first use."""

    TABLE = "volumes"
    MACHINE = VOLUME_STATES
    INDEX = ("instance_id",)

    uuid: str
    name: str
    volume_type: VolumeType
    state: VolumeState
    size: int
    data_center_id: int
    disk_offering_id: int
    created: float
    instance_id: int | None = None
    device_id: int | None = None
    pool_id: int | None = None
    last_pool_id: int | None = None
    path: str | None = None
    format: ImageFormat = ImageFormat.QCOW2
    """CloudStack's word for KVM volumes whatever is on the device; StorPool devices are raw."""
    template_id: int | None = None
    snapshot_id: int | None = None
    min_iops: int | None = None
    max_iops: int | None = None
    passphrase_id: int | None = None
    """Of an encrypted volume, from before it is created."""
    encrypt_format: str | None = None
    """LUKS, once it is created."""
    attached: float | None = None
    updated: float | None = None
    removed: float | None = None


class PassphraseRow(Row, frozen=True, kw_only=True):
    """What opens encrypted volumes; `passphrase` is encrypted itself (`harness.cloudstack.vault`)."""

    TABLE = "passphrase"

    uuid: str
    passphrase: str


class Snapshot(Row, frozen=True, kw_only=True):
    TABLE = "snapshots"
    MACHINE = SNAPSHOT_STATES
    INDEX = ("volume_id",)

    uuid: str
    name: str
    volume_id: int
    state: SnapshotState
    size: int
    data_center_id: int
    disk_offering_id: int
    created: float
    location_type: str = "PRIMARY"
    snapshot_type: str = "MANUAL"
    removed: float | None = None


class SnapshotStore(Row, frozen=True, kw_only=True):
    """The snapshot on a pool, or its backup in a file of an image store, of which each try has a row of its own.

    The row of a file comes before the file, and goes only when nobody can write to it any more.
    """

    TABLE = "snapshot_store_ref"
    MACHINE = STORE_REF_STATES
    INDEX = ("snapshot_id",)

    store_id: int
    store_role: StoreRole
    snapshot_id: int
    volume_id: int
    state: StoreRefState
    size: int
    physical_size: int
    install_path: str | None
    asked_at: float = 0.0
    """When a host was last asked to write the file."""


class VmSnapshot(Row, frozen=True, kw_only=True):
    """All disks of a VM at one time. Its details are the device paths of their snapshots, by uuid of the volume."""

    TABLE = "vm_snapshots"
    MACHINE = VM_SNAPSHOT_STATES
    INDEX = ("vm_id",)

    uuid: str
    name: str
    """What CloudStack calls it."""
    display_name: str
    description: str | None
    vm_id: int
    state: VmSnapshotState
    created: float
    type: str = "Disk"
    parent: int | None = None
    """The one that was current when it was taken."""
    current: bool = False
    """Whether the VM's disks come from it: the last that was taken or reverted to."""
    removed: float | None = None


class PoolFile(Row, frozen=True, kw_only=True):
    """A file that is, or may come to be, on an NFS pool. Its row comes before it, and goes only when nobody can make or
    write it any more. Every try has a file of its own."""

    TABLE = "op_pool_file"
    UNIQUE = ("pool_id", "path")

    pool_id: int
    path: str
    """Its name in the pool, as in `volumes.path`."""
    volume_id: int
    written_until: float
    """When the last request to write it is surely over."""
    doomed: bool = False
    """It is to be deleted."""
    gone: bool = False
    """It was deleted; a late request may make it again."""
