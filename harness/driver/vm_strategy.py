"""The StorPool VM snapshot strategy (`harness.spi.vm_snapshots.VmSnapshotStrategy`)."""

from __future__ import annotations

from collections.abc import Collection

from harness.driver.pools import Pools, is_ours
from harness.driver.vm_reverting import VmReverting
from harness.driver.vm_snapshots import VmSnapshotDeletion, VmSnapshotTaking
from harness.spi.errors import InvalidParameter
from harness.spi.objects import VolumeObject
from harness.spi.vm_snapshots import VmSnapshotObject


class StorPoolVmSnapshots:
    def __init__(
        self, pools: Pools, taking: VmSnapshotTaking, reverting: VmReverting, deletion: VmSnapshotDeletion
    ) -> None:
        self._pools = pools
        self._taking = taking
        self._reverting = reverting
        self._deletion = deletion

    def why_not(self, volumes: Collection[VolumeObject], *, memory: bool) -> str | None:
        elsewhere = ", ".join(volume.name for volume in volumes if not is_ours(volume.store))
        if elsewhere:
            return f"{elsewhere} is not on a StorPool pool"
        if memory:
            return "StorPool snapshots disks only, not the memory of a VM; ask for it without snapshotmemory"
        pool_ids = {volume.store.id for volume in volumes if volume.store is not None}
        if self._pools.apart(sorted(pool_ids)):
            return "its disks are in different StorPool clusters, which cannot be snapshotted at one point in time"
        return None

    def take(self, snapshot: VmSnapshotObject) -> VmSnapshotObject:
        why = self.why_not(snapshot.volumes, memory=False)
        if why is not None:
            raise InvalidParameter(f"VM {snapshot.vm_uuid}: {why}")
        return self._taking.take(snapshot)

    def revert(self, snapshot: VmSnapshotObject) -> dict[str, int]:
        return self._reverting.revert(snapshot)

    def delete(self, snapshot: VmSnapshotObject) -> None:
        self._deletion.delete(snapshot)
