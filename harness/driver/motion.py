"""Which copies the driver makes, and how each is made."""

from __future__ import annotations

import msgspec

from harness.driver.backup import SnapshotBackup
from harness.driver.encryption import VolumeEncryption
from harness.driver.exporting import VolumeExport
from harness.driver.moving import VolumeMoving
from harness.driver.pools import Pools, is_ours
from harness.driver.replicating import SnapshotReplication
from harness.driver.restoring import SnapshotRestoring
from harness.driver.seeding import TemplateSeeding
from harness.driver.templating import TemplateMaking
from harness.driver.volumes import VolumeCreation
from harness.spi.driver import DriverRecords
from harness.spi.errors import InvalidParameter, NotFound
from harness.spi.objects import (
    DataObject,
    DataStore,
    SnapshotObject,
    StoreRole,
    TemplateObject,
    VolumeObject,
    storpool_id,
)
from harness.storpool import ObjectDoesNotExist


class Motion:
    """Copies between image store and pool, between pools, and within a pool."""

    def __init__(
        self,
        pools: Pools,
        records: DriverRecords,
        seeding: TemplateSeeding,
        volumes: VolumeCreation,
        backup: SnapshotBackup,
        restoring: SnapshotRestoring,
        replication: SnapshotReplication,
        encryption: VolumeEncryption,
        templating: TemplateMaking,
        exporting: VolumeExport,
        moving: VolumeMoving,
    ) -> None:
        self._pools = pools
        self._records = records
        self._seeding = seeding
        self._volumes = volumes
        self._backup = backup
        self._restoring = restoring
        self._replication = replication
        self._encryption = encryption
        self._templating = templating
        self._exporting = exporting
        self._moving = moving

    def can_copy(self, source: DataObject, destination: DataObject) -> bool:
        if isinstance(source, SnapshotObject) and isinstance(destination, SnapshotObject):
            if is_ours(source.store) and is_ours(destination.store):
                return not _same(source.store, destination.store)
            return is_ours(source.store) and destination.store.role is StoreRole.IMAGE
        if is_ours(source.store) and destination.store is not None and destination.store.role is StoreRole.IMAGE:
            to_volume = isinstance(source, VolumeObject) and isinstance(destination, VolumeObject)
            return to_volume or (not isinstance(source, TemplateObject) and isinstance(destination, TemplateObject))
        if isinstance(source, VolumeObject) and isinstance(destination, VolumeObject):
            return self._moving.can_move(source, destination)
        if not is_ours(destination.store) or source.store is None:
            return False
        if isinstance(source, SnapshotObject) and source.store.role is StoreRole.IMAGE:
            return isinstance(destination, VolumeObject)
        if isinstance(source, TemplateObject) and isinstance(destination, TemplateObject):
            return source.store.role is StoreRole.IMAGE
        if isinstance(source, TemplateObject) and isinstance(destination, VolumeObject):
            return _same(source.store, destination.store)
        if isinstance(source, SnapshotObject) and isinstance(destination, VolumeObject):
            # Its volume may have left the pool since it was taken.
            pool = destination.store
            return pool is not None and is_ours(source.store) and self._pools.same_cluster(source.store.id, pool.id)
        return False

    def copy(self, source: DataObject, destination: DataObject) -> DataObject:
        if not self.can_copy(source, destination):
            raise InvalidParameter(
                f"the StorPool driver does not copy {_shown(source)} to {_shown(destination)}; see can_copy"
            )
        if _is_encrypted(source) and (isinstance(destination, TemplateObject) or not is_ours(destination.store)):
            raise InvalidParameter(f"{_shown(source)} is encrypted, so it stays on its pool and becomes no template")
        if isinstance(source, TemplateObject) and isinstance(destination, TemplateObject):
            return self._seeding.seed(source, destination)
        if isinstance(source, SnapshotObject) and isinstance(destination, SnapshotObject):
            if is_ours(destination.store):
                return self._replication.copy(source, destination)
            return self._backup.back_up(source, destination)
        if isinstance(destination, TemplateObject):
            assert not isinstance(source, TemplateObject)
            return self._templating.make(source, destination)
        if isinstance(source, VolumeObject):
            assert isinstance(destination, VolumeObject)
            if is_ours(destination.store):
                return self._moving.move(source, destination)
            return self._exporting.export(source, destination)
        assert isinstance(destination, VolumeObject) and isinstance(source, TemplateObject | SnapshotObject)
        if isinstance(source, SnapshotObject) and source.volume.encrypted is not destination.encrypted:
            raise InvalidParameter(
                f"{_shown(source)} and {_shown(destination)} must both be encrypted, or neither: else it is no copy"
            )
        if isinstance(source, SnapshotObject) and source.store.role is StoreRole.IMAGE:
            return self._restoring.restore(source, destination)
        return self._clone(source, destination)

    def _clone(self, source: TemplateObject | SnapshotObject, volume: VolumeObject) -> VolumeObject:
        """A volume on top of the snapshot; no data is copied. Never smaller than the snapshot.

        An encrypted one of a template is none: the template is not encrypted, so it is copied.
        """
        parent = storpool_id(self._path(source))
        client = self._pools.of(volume).client
        try:
            found = client.snapshot(parent)
        except ObjectDoesNotExist as error:
            raise NotFound(
                f"{_shown(source)} is gone from StorPool ({error}); it must be copied there again"
            ) from error
        if volume.encrypted and isinstance(source, TemplateObject):
            return self._encryption.create_from(found, volume)
        limited = (found.iops, found.bw) != ("-", "-")
        return self._volumes.create(volume, parent, found.size, limited=limited)

    def _path(self, source: TemplateObject | SnapshotObject) -> str:
        path = source.path
        if path is None and isinstance(source, TemplateObject):
            cached = self._records.cached_template(source.id, source.store.id)
            path = None if cached is None else cached.path
        if path is None:
            raise NotFound(f"{_shown(source)} has no path on the pool; it must be copied there first")
        return path


def _is_encrypted(item: DataObject) -> bool:
    volume = item.volume if isinstance(item, SnapshotObject) else item
    return isinstance(volume, VolumeObject) and volume.encrypted


def _same(one: DataStore, other: DataStore | None) -> bool:
    return other is not None and is_ours(one) and one.id == other.id


def _shown(item: DataObject) -> str:
    tag = msgspec.inspect.type_info(type(item))
    kind = tag.tag if isinstance(tag, msgspec.inspect.StructType) else type(item).__name__
    return f"{kind} {item.name} ({item.uuid})"
