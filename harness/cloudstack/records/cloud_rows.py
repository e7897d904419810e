"""Tables of the cloud itself: places, hosts, pools, offerings, users, jobs."""

from __future__ import annotations

from harness.cloudstack.records.row import Row


class Configuration(Row, frozen=True, kw_only=True):
    TABLE = "configuration"
    UNIQUE = ("name",)

    name: str
    value: str


class Sequence(Row, frozen=True, kw_only=True):
    """A number that only grows."""

    TABLE = "sequence"
    UNIQUE = ("name",)

    name: str
    value: int


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
    ha_enabled: bool = False
    """Whether the host is fenced when it is Down; off until an administrator switches it on."""
    fenced: bool = False
    """It was switched off, and has not answered since."""
    shunned_until: float = 0.0
    """Until then no VM is started there: a forced detach that was lost may still arrive (ours, not CloudStack's)."""


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
    capacity_iops: int | None = None
    created: float
    host_address: str = "n/a"
    """The NFS server."""
    cluster_id: int | None = None
    """Of a pool that is not zone-wide."""
    removed: float | None = None


class StoragePoolWork(Row, frozen=True, kw_only=True):
    """A VM that was stopped for the maintenance of a pool, to be started after it."""

    TABLE = "storage_pool_work"
    UNIQUE = ("pool_id", "vm_id")

    pool_id: int
    vm_id: int


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
    ha_enabled: bool = False
    """Its VMs are started elsewhere when their host is lost."""
    removed: float | None = None


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


class ItWork(Row, frozen=True, kw_only=True):
    """A migration of a VM that is not over (CloudStack's item work)."""

    TABLE = "op_it_work"
    UNIQUE = ("instance_id",)

    instance_id: int
    step: str
    """Prepare or Migrating."""
    source_id: int
    resource_id: int
    """The destination."""
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
