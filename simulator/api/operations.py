"""The operation table: the 122 calls of the bindings 7.3.0 and the newer ones that real clients use.

To serve a call that is only declared so far: its body goes into `requests`, its answer into `answers`, a handler into a
room of `simulator.cluster`, and the three into its row here. A handler is given a `Call` (and the body) and returns the
data of a query or the `Plan` of a change; what it must remember is a record in `simulator.cluster.records`.
"""

from __future__ import annotations

from simulator.api import operations_cluster, operations_objects
from simulator.api.operation import Operation

OPERATIONS: tuple[Operation, ...] = (*operations_cluster.OPERATIONS, *operations_objects.OPERATIONS)
NEWER = frozenset({"volumesAndSnapshotsList", "snapshotReconcile"})
"""Our names for calls that the bindings do not have."""
