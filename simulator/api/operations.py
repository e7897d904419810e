"""The operation table: the 122 calls of the bindings 7.3.0 and the newer ones that real clients use."""

from __future__ import annotations

from simulator.api import operations_cluster, operations_objects
from simulator.api.operation import Operation

OPERATIONS: tuple[Operation, ...] = (*operations_cluster.OPERATIONS, *operations_objects.OPERATIONS)
NEWER = frozenset({"volumesAndSnapshotsList", "snapshotReconcile"})
"""Our names for calls that the bindings do not have."""
