"""CloudStack's tables as typed rows; table and column names are CloudStack's (spec/cloudstack-plugin.md section 3).

Sizes are bytes, times Unix seconds. `removed` is the time a row left the API's view, as in CloudStack. Columns that
nothing here reads are left out. The tables are made from these classes, so there is no second list of columns.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from harness.spi.objects import ImageFormat, StoreRole, VmPower, VolumeType
from harness.spi.states import (
    SNAPSHOT_STATES,
    STORE_REF_STATES,
    VM_STATES,
    VOLUME_STATES,
    SnapshotState,
    StateMachine,
    StoreRefState,
    VmState,
    VolumeState,
)


class Row(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Base of all rows; `id` 0 means not stored yet."""

    TABLE: ClassVar[str]
    MACHINE: ClassVar[StateMachine[Any, Any] | None] = None
    """The only way to change `state`; Any because each table has its own states."""
    UNIQUE: ClassVar[tuple[str, ...]] = ()
    """Columns that together are unique."""
    INDEX: ClassVar[tuple[str, ...]] = ()

    id: int = 0


class Configuration(Row, frozen=True, kw_only=True):
    TABLE = "configuration"
    UNIQUE = ("name",)

    name: str
    value: str


class Zone(Row, frozen=True, kw_only=True):
    TABLE = "data_center"

    uuid: str
    name: str


class Pod(Row, frozen=True, kw_only=True):
    TABLE = "host_pod_ref"

    uuid: str
    name: str
    data_center_id: int


class Cluster(Row, frozen=True, kw_only=True):
    TABLE = "cluster"

    uuid: str
    name: str
    pod_id: int
    data_center_id: int


class HostRow(Row, frozen=True, kw_only=True):
    """A KVM host; `status` is Connecting, Up, Disconnected, Alert or Down, `parent` its SP_OURID."""

    TABLE = "host"
    UNIQUE = ("name",)

    uuid: str
    name: str
    status: str
    resource_state: str
    data_center_id: int
    pod_id: int
    cluster_id: int
    last_ping: float
    created: float
    parent: str | None = None
    agent_uuid: str | None = None
    """What the agent calls its host (libvirt's host uuid)."""


class ImageStore(Row, frozen=True, kw_only=True):
    TABLE = "image_store"

    uuid: str
    name: str
    url: str
    data_center_id: int
    image_provider_name: str = "NFS"


class StoragePool(Row, frozen=True, kw_only=True):
    TABLE = "storage_pool"

    uuid: str
    name: str
    status: str
    path: str
    scope: str
    storage_provider_name: str
    pool_type: str
    data_center_id: int
    capacity_bytes: int
    created: float
    removed: float | None = None


class StoragePoolTag(Row, frozen=True, kw_only=True):
    TABLE = "storage_pool_tags"
    UNIQUE = ("pool_id", "tag")

    pool_id: int
    tag: str


class StoragePoolHost(Row, frozen=True, kw_only=True):
    """The pool is usable on the host."""

    TABLE = "storage_pool_host_ref"
    UNIQUE = ("pool_id", "host_id")

    pool_id: int
    host_id: int
    local_path: str


class DiskOffering(Row, frozen=True, kw_only=True):
    """`tags` are storage tags, joined with commas; `compute_only` ones belong to a service offering."""

    TABLE = "disk_offering"

    uuid: str
    name: str
    display_text: str
    disk_size: int
    tags: str
    customized: bool
    compute_only: bool
    customized_iops: bool
    min_iops: int | None
    max_iops: int | None
    encrypt: bool
    state: str
    created: float
    removed: float | None = None


class ServiceOffering(Row, frozen=True, kw_only=True):
    """`speed` is MHz, `ram_size` MiB."""

    TABLE = "service_offering"

    uuid: str
    name: str
    display_text: str
    cpu: int
    speed: int
    ram_size: int
    disk_offering_id: int
    state: str
    created: float
    removed: float | None = None


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


class AsyncJob(Row, frozen=True, kw_only=True):
    """`job_status`: 0 running, 1 done, 2 failed. `job_result` is JSON."""

    TABLE = "async_job"
    UNIQUE = ("uuid",)
    INDEX = ("job_status",)

    uuid: str
    user_id: int
    account_id: int
    job_cmd: str
    job_status: int
    job_result_code: int
    job_result: str
    created: float
    instance_type: str | None = None
    instance_uuid: str | None = None
    completed: float | None = None


class ResourceTag(Row, frozen=True, kw_only=True):
    TABLE = "resource_tags"
    UNIQUE = ("resource_type", "resource_uuid", "key")

    uuid: str
    resource_type: str
    resource_uuid: str
    key: str
    value: str


class Domain(Row, frozen=True, kw_only=True):
    TABLE = "domain"

    uuid: str
    name: str
    path: str


class Account(Row, frozen=True, kw_only=True):
    TABLE = "account"

    uuid: str
    account_name: str
    domain_id: int
    type: int


class User(Row, frozen=True, kw_only=True):
    TABLE = "user"
    INDEX = ("api_key",)

    uuid: str
    username: str
    account_id: int
    firstname: str
    lastname: str
    email: str
    created: float
    api_key: str | None = None
    secret_key: str | None = None

    def __repr__(self) -> str:
        return f"User(username={self.username!r})"


class GuestOs(Row, frozen=True, kw_only=True):
    TABLE = "guest_os"

    uuid: str
    display_name: str
    category: str


class HaWork(Row, frozen=True, kw_only=True):
    """A host that must still confirm that a VM does not run there (CloudStack's CheckStop work)."""

    TABLE = "op_ha_work"
    UNIQUE = ("instance_id", "host_id")

    instance_id: int
    host_id: int
    tried: int
    created: float


class Operation(Row, frozen=True, kw_only=True):
    """An operation of the storage driver; `data` is a JSON object of texts, `outcome` None while it is open."""

    TABLE = "operations"
    UNIQUE = ("uuid",)
    INDEX = ("outcome",)

    uuid: str
    kind: str
    subject: str
    step: str
    data: str
    created_at: float
    outcome: str | None = None
    ended_at: float | None = None


class Detail(Row, frozen=True, kw_only=True):
    """A row of a `*_details` table; see `DETAIL_TABLES`."""

    TABLE = ""

    resource_id: int
    name: str
    value: str
    display: bool = True


ROWS: tuple[type[Row], ...] = (
    Configuration,
    Zone,
    Pod,
    Cluster,
    HostRow,
    ImageStore,
    StoragePool,
    StoragePoolTag,
    StoragePoolHost,
    DiskOffering,
    ServiceOffering,
    Template,
    TemplateStore,
    TemplatePool,
    Vm,
    Nic,
    Volume,
    Snapshot,
    SnapshotStore,
    AsyncJob,
    ResourceTag,
    Domain,
    Account,
    User,
    GuestOs,
    HaWork,
    Operation,
)

DETAIL_TABLES = (
    "data_center_details",
    "cluster_details",
    "storage_pool_details",
    "disk_offering_details",
    "service_offering_details",
    "vm_template_details",
    "user_vm_details",
    "volume_details",
    "snapshot_details",
)
"""Key and value pairs of a resource; in those of zone, cluster and pool also the settings of that scope."""
