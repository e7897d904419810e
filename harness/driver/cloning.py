"""Volumes on top of a StorPool snapshot: of a cached template, or of a volume's snapshot. No data is copied.

spec/cloudstack-plugin.md 4.2, 4.10.
"""

from __future__ import annotations

from harness.driver.encryption import VolumeEncryption
from harness.driver.pools import Pools
from harness.driver.volumes import VolumeCreation
from harness.spi.driver import DriverRecords
from harness.spi.errors import NotFound
from harness.spi.objects import SnapshotObject, TemplateObject, VolumeObject, shown, storpool_id
from harness.spi.states import StoreRefState
from harness.storpool import ObjectDoesNotExist


class VolumeCloning:
    """A new volume that is never smaller than what it is made of."""

    def __init__(
        self, pools: Pools, records: DriverRecords, volumes: VolumeCreation, encryption: VolumeEncryption
    ) -> None:
        self._pools = pools
        self._records = records
        self._volumes = volumes
        self._encryption = encryption

    def clone(self, source: TemplateObject | SnapshotObject, volume: VolumeObject) -> VolumeObject:
        """An encrypted one of a template is no clone: the template is not encrypted, so it is copied.

        `NotFound` when the snapshot is gone from StorPool.
        """
        parent = storpool_id(self._path(source))
        try:
            found = self._pools.of(volume).client.snapshot(parent)
        except ObjectDoesNotExist as error:
            raise NotFound(f"{shown(source)} is gone from StorPool ({error}); it must be copied there again") from error
        if volume.encrypted and isinstance(source, TemplateObject):
            return self._encryption.create_from(found, volume)
        limited = (found.iops, found.bw) != ("-", "-")
        return self._volumes.create(volume, parent, found.size, limited=limited)

    def _path(self, source: TemplateObject | SnapshotObject) -> str:
        path = source.path
        if path is None and isinstance(source, TemplateObject):
            entry = self._records.template_cache(source.id, source.store.id)
            path = None if entry is None or entry.state is not StoreRefState.READY else entry.path
        if path is None:
            raise NotFound(f"{shown(source)} has no path on the pool; it must be copied there first")
        return path
