"""What the matrix strikes at: one request to CloudStack for each way of a row, and what must be true after it.

A request is judged when faults are over and the cloud is at rest. One that CloudStack called a success must be done;
any other is done or undone, and an undone one must succeed when it is made again.
"""

from __future__ import annotations

from harness.faults.clusters import CLUSTERS
from harness.faults.deploys import DEPLOYS
from harness.faults.disks import DISKS
from harness.faults.encrypted import ENCRYPTED
from harness.faults.hosts import HOSTS
from harness.faults.isos import ISOS
from harness.faults.migrations import MIGRATIONS
from harness.faults.offerings import OFFERINGS
from harness.faults.operation import Operation
from harness.faults.pools import POOLS
from harness.faults.snapshots import SNAPSHOTS
from harness.faults.storage_migrations import STORAGE_MIGRATIONS
from harness.faults.templates import TEMPLATES
from harness.faults.tiers import TIERS
from harness.faults.vm_snapshots import VM_SNAPSHOTS

OPERATIONS: tuple[Operation, ...] = (
    *ISOS,
    *DEPLOYS,
    *DISKS,
    *MIGRATIONS,
    *SNAPSHOTS,
    *OFFERINGS,
    *TEMPLATES,
    *TIERS,
    *CLUSTERS,
    *ENCRYPTED,
    *POOLS,
    *HOSTS,
    *STORAGE_MIGRATIONS,
    *VM_SNAPSHOTS,
)

BY_ID = {operation.id: operation for operation in OPERATIONS}
