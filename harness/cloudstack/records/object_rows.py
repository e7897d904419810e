"""Tables of what users make: templates, virtual machines, volumes, snapshots."""

from __future__ import annotations

from harness.cloudstack.records.row import Row
from harness.spi.objects import ImageFormat, StoreRole, VmPower, VolumeType
from harness.spi.states import (
    SNAPSHOT_STATES,
    STORE_REF_STATES,
    VM_STATES,
    VOLUME_STATES,
    SnapshotState,
    StoreRefState,
    VmState,
    VolumeState,
)


class Template(Row, frozen=True, kw_only=True):
    """`size` is the virtual size, 0 until it is known."""

    TABLE = "vm_template"

    uuid: str
    name: str
    display_text: str
    format: ImageFormat
    url: str
    checksum: str | None
    size: int
    guest_os_id: int
    public: bool
    featured: bool
    extractable: bool
    state: str
    """Active or Inactive (deleted)."""
    created: float
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
    download_pct: int
    error_str: str | None
    install_path: str
    size: int
    physical_size: int


class TemplatePool(Row, frozen=True, kw_only=True):
    """The cache entry of (pool, template): StorPool's snapshot that volumes are cloned from."""

    TABLE = "template_spool_ref"
    MACHINE = STORE_REF_STATES
    UNIQUE = ("pool_id", "template_id")

    pool_id: int
    template_id: int
    state: StoreRefState
    download_state: str
    download_pct: int
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
    power_state: VmPower | None
    created: float
    update_time: float
    """When the state changed last."""
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
    attached: float | None = None
    updated: float | None = None
    removed: float | None = None


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
