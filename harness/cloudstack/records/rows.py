"""CloudStack's tables as typed rows; table and column names are CloudStack's (spec/cloudstack-plugin.md section 3).

Sizes are bytes, times Unix seconds. `removed` is the time a row left the API's view, as in CloudStack. Columns that
nothing here reads are left out. The tables are made from these classes, so there is no second list of columns.
"""

from __future__ import annotations

from harness.cloudstack.records.cloud_rows import (
    Account,
    AsyncJob,
    Cluster,
    Configuration,
    Detail,
    DiskOffering,
    Domain,
    GuestOs,
    HaWork,
    HostRow,
    ImageStore,
    Operation,
    Pod,
    ResourceTag,
    ServiceOffering,
    StoragePool,
    StoragePoolHost,
    StoragePoolTag,
    User,
    Zone,
)
from harness.cloudstack.records.object_rows import (
    Nic,
    Snapshot,
    SnapshotStore,
    Template,
    TemplatePool,
    TemplateStore,
    Vm,
    Volume,
)
from harness.cloudstack.records.row import Row

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

__all__ = [
    "DETAIL_TABLES",
    "ROWS",
    "Account",
    "AsyncJob",
    "Cluster",
    "Configuration",
    "Detail",
    "DiskOffering",
    "Domain",
    "GuestOs",
    "HaWork",
    "HostRow",
    "ImageStore",
    "Nic",
    "Operation",
    "Pod",
    "ResourceTag",
    "Row",
    "ServiceOffering",
    "Snapshot",
    "SnapshotStore",
    "StoragePool",
    "StoragePoolHost",
    "StoragePoolTag",
    "Template",
    "TemplatePool",
    "TemplateStore",
    "User",
    "Vm",
    "Volume",
    "Zone",
]
