"""Volumes that change their pool (spec/cloudstack-plugin.md 4.18): within StorPool, to other storage and from it.

Within a cluster nothing is copied, whether the VM runs or not: StorPool moves the data when the volume's template is
another one, and volume, id and snapshots stay. The original copied a volume whose VM was off, and lost tier, tags and
the way back to its snapshots.

The source of a copy stays as it is. Whoever asked deletes it once the records point to the copy. A copy to other
storage is made as one to be downloaded is (`harness.driver.exporting`).
"""

from __future__ import annotations

import msgspec

from harness.driver.copying import copied
from harness.driver.pools import Pools, cluster_of, is_ours
from harness.driver.resizing import Resizing
from harness.driver.settings import DOWNLOAD_WAIT, copy_wait
from harness.driver.volumes import Ask, VolumeCreation
from harness.spi.commands import StorPoolDownloadVolumeCommand
from harness.spi.driver import DriverRecords, HostEndpoints, ResizePayload
from harness.spi.errors import InvalidParameter
from harness.spi.objects import StoreRole, VolumeObject


class VolumeMoving:
    """Has a volume go to another pool of its cluster, and a file of another pool become a StorPool volume."""

    def __init__(
        self,
        pools: Pools,
        records: DriverRecords,
        endpoints: HostEndpoints,
        volumes: VolumeCreation,
        resizing: Resizing,
    ) -> None:
        self._pools = pools
        self._records = records
        self._endpoints = endpoints
        self._volumes = volumes
        self._resizing = resizing

    def can_move(self, source: VolumeObject, destination: VolumeObject) -> bool:
        one, other = source.store, destination.store
        if one is None or other is None or StoreRole.IMAGE in (one.role, other.role):
            return False
        if source.uuid != destination.uuid or one.id == other.id:
            return False
        if is_ours(one) and is_ours(other):
            return self._pools.same_cluster(one.id, other.id)
        return is_ours(one) or is_ours(other)

    def move(self, source: VolumeObject, destination: VolumeObject) -> VolumeObject:
        """Onto a StorPool pool. The answer is `destination` with path and size; both name the same volume.

        Within a cluster `Unknown` says that it may be on either pool: call again until it ends otherwise.
        """
        if not is_ours(source.store):
            return self._download(source, destination)
        payload = ResizePayload(
            size=source.size,
            disk_offering_id=destination.disk_offering_id,
            max_iops=destination.max_iops,
            moves=True,
        )
        self._resizing.resize(msgspec.structs.replace(source, store=destination.store), payload)
        return msgspec.structs.replace(destination, path=source.path, size=source.size)

    def _download(self, source: VolumeObject, destination: VolumeObject) -> VolumeObject:
        if source.path is None or source.store is None:
            raise InvalidParameter(f"volume {source.name} ({source.uuid}) has no file on its pool")
        store = source.store
        wait = copy_wait(self._records, DOWNLOAD_WAIT)

        def fill(ask: Ask, empty: VolumeObject) -> None:
            assert empty.store is not None, "it was just made there"
            near = None if empty.path is None else cluster_of(empty.path)
            endpoint = self._endpoints.select(empty.store, near, also=store)
            command = StorPoolDownloadVolumeCommand(source=source, destination=empty, wait=wait)
            what = f"volume {source.name} ({source.uuid})"
            copied(ask(endpoint, command, f"copy {what}"), endpoint, what)

        return self._volumes.create_filled(destination, fill, source.path, source.size)
