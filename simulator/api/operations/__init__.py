"""The operation table: the 122 calls of the bindings 7.3.0 and the newer ones that real clients use.

To serve a call that is only declared so far: its body and its answer go into `simulator.api.schema`, a handler into a
room of `simulator.cluster`, and the three into its row here. A handler is given a `Call` (and the body) and returns the
data of a query or the `Plan` of a change; what it must remember is a record in `simulator.cluster.records`.
"""

from __future__ import annotations

from simulator.api.operation import Operation
from simulator.api.operations import (
    attachments,
    bridge,
    disks,
    iscsi,
    keyvalue,
    maintenance,
    placement,
    relocation,
    remote,
    services,
    snapshots,
    templates,
    transfers,
    volumes,
)

OPERATIONS: tuple[Operation, ...] = (
    *services.OPERATIONS,
    *disks.OPERATIONS,
    *volumes.OPERATIONS,
    *snapshots.OPERATIONS,
    *transfers.OPERATIONS,
    *attachments.OPERATIONS,
    *placement.OPERATIONS,
    *templates.OPERATIONS,
    *relocation.OPERATIONS,
    *iscsi.OPERATIONS,
    *remote.OPERATIONS,
    *maintenance.OPERATIONS,
    *keyvalue.OPERATIONS,
)
BRIDGE = bridge.BRIDGE
NEWER = frozenset({"volumesAndSnapshotsList", "snapshotReconcile"})
"""Our names for calls that the bindings do not have."""
