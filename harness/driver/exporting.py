"""Copies of volumes on secondary storage, to be downloaded, and on other primary storage, to be migrated.

spec/cloudstack-plugin.md 4.13, 4.18.
"""

from __future__ import annotations

import msgspec

from harness.driver import tags
from harness.driver.copying import copy_out
from harness.driver.creation import Creation
from harness.driver.discard import Discards
from harness.driver.operations import Operation, Operations, undone_by_errors
from harness.driver.pools import Pools
from harness.driver.settings import COPY_WAIT, copy_wait
from harness.spi.commands import StorPoolCopyVolumeToSecondaryCommand
from harness.spi.driver import DriverRecords, HostEndpoints
from harness.spi.errors import NotFound
from harness.spi.objects import StoreRole, VolumeObject, device_path, storpool_id
from harness.storpool import ObjectDoesNotExist, SnapshotSummary, VolumeSnapshotDesc


class VolumeExport:
    """Copies from a temporary snapshot, which never stays. Steps: create, snapped, copy, copied.

    The file is CloudStack's; a copy whose end is unknown may still be writing to it, so each request has its own.
    """

    kind = "export-volume"

    def __init__(
        self,
        operations: Operations,
        pools: Pools,
        records: DriverRecords,
        endpoints: HostEndpoints,
        discards: Discards,
    ) -> None:
        self._operations = operations
        self._pools = pools
        self._records = records
        self._endpoints = endpoints
        self._discards = discards

    def export(self, source: VolumeObject, destination: VolumeObject) -> VolumeObject:
        """The answer is `destination` with the disk's size. `NotFound` when StorPool has lost the volume."""
        pool = self._pools.of(source)
        if source.path is None:
            raise NotFound(f"volume {source.name} ({source.uuid}) has no path on the pool")
        name = storpool_id(source.path)
        subject = f"{tags.TEMPORARY}:{source.uuid}"

        def send(unique: str) -> str:
            desc = VolumeSnapshotDesc(name=unique, tags=tags.temporary_snapshot(source))
            return pool.client.snapshot_create(name, desc).snapshot_global_id

        with self._operations.exclusive(subject):
            data = {"pool": str(pool.id)}
            operation = self._operations.begin_anew(self.kind, subject, "create", data, self._undo)
            snapshot = self._snapshot(operation)
            try:
                with undone_by_errors(operation, self._undo):
                    gid = snapshot.make(send, "snapped")
                    found = pool.client.snapshot(f"~{gid}")
                    self._copy(operation, source, destination, found)
            except ObjectDoesNotExist as error:
                raise NotFound(f"StorPool has no volume {name}, of volume {source.uuid}") from error
            self._discards.take_over(snapshot, pool.id)
            operation.done()
        return msgspec.structs.replace(destination, size=found.size)

    def recover(self, operation: Operation) -> str:
        """Whoever asked is gone; the next request begins anew."""
        self._undo(operation)
        return f"{operation}: undone"

    def _copy(
        self, operation: Operation, source: VolumeObject, destination: VolumeObject, found: SnapshotSummary
    ) -> None:
        command = StorPoolCopyVolumeToSecondaryCommand(
            source=msgspec.structs.replace(source, path=device_path(found.global_id)),
            destination=destination,
            wait=copy_wait(self._records, COPY_WAIT),
        )
        assert source.store is not None, "it has a pool"
        beside = destination.store if _is_pool(destination) else None
        endpoint = self._endpoints.select(source.store, found.cluster_id, also=beside)
        copy_out(self._operations, operation, endpoint, command, f"volume {source.name} ({source.uuid})")

    def _undo(self, operation: Operation) -> None:
        self._discards.take_from(operation, self._snapshot(operation))
        operation.undone()

    def _snapshot(self, operation: Operation) -> Creation:
        return Creation(self._operations, operation, "snapshot", self._pools.get(int(operation.data["pool"])).client)


def _is_pool(item: VolumeObject) -> bool:
    """Whether it is to be on primary storage, which hosts must have connected."""
    return item.store is not None and item.store.role is StoreRole.PRIMARY
