"""Which copies the driver makes, and how each is made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from harness.driver.backup import SnapshotBackup
from harness.driver.cloning import VolumeCloning
from harness.driver.exporting import VolumeExport
from harness.driver.moving import VolumeMoving
from harness.driver.pools import Pools, is_ours
from harness.driver.replicating import SnapshotReplication
from harness.driver.restoring import SnapshotRestoring
from harness.driver.seeding import TemplateSeeding
from harness.driver.templating import TemplateMaking
from harness.spi.errors import InvalidParameter
from harness.spi.objects import (
    DataObject,
    DataStore,
    SnapshotObject,
    StoreRole,
    TemplateObject,
    VolumeObject,
    shown,
)


class Motion:
    """Copies between image store and pool, between pools, and within a pool."""

    def __init__(
        self,
        pools: Pools,
        seeding: TemplateSeeding,
        cloning: VolumeCloning,
        backup: SnapshotBackup,
        restoring: SnapshotRestoring,
        replication: SnapshotReplication,
        templating: TemplateMaking,
        exporting: VolumeExport,
        moving: VolumeMoving,
    ) -> None:
        self._pools = pools
        self._seeding = seeding
        self._cloning = cloning
        self._backup = backup
        self._restoring = restoring
        self._replication = replication
        self._templating = templating
        self._exporting = exporting
        self._moving = moving

    def can_copy(self, source: DataObject, destination: DataObject) -> bool:
        return self._way(source, destination) is not None

    def copy(self, source: DataObject, destination: DataObject) -> DataObject:
        way = self._way(source, destination)
        if way is None:
            raise InvalidParameter(
                f"the StorPool driver does not copy {shown(source)} to {shown(destination)}; see can_copy"
            )
        if _is_encrypted(source) and (isinstance(destination, TemplateObject) or not is_ours(destination.store)):
            raise InvalidParameter(f"{shown(source)} is encrypted, so it stays on its pool and becomes no template")
        of_a_volume = isinstance(destination, VolumeObject) and not isinstance(source, TemplateObject)
        if of_a_volume and _is_encrypted(source) is not _is_encrypted(destination):
            raise InvalidParameter(
                f"{shown(source)} and {shown(destination)} must both be encrypted, or neither: else it is no copy"
            )
        return way()

    def _way(self, source: DataObject, destination: DataObject) -> Callable[[], DataObject] | None:
        """The copy that is to be made; None when it is not one for this driver."""
        from_us, to_us = is_ours(source.store), is_ours(destination.store)
        from_image, to_image = _is_image(source.store), _is_image(destination.store)
        match source, destination:
            case SnapshotObject() as snapshot, SnapshotObject() as other if from_us and to_image:
                return partial(self._backup.back_up, snapshot, other)
            case SnapshotObject() as snapshot, SnapshotObject() as other if from_us and to_us:
                return None if _same(source, destination) else partial(self._replication.copy, snapshot, other)
            case SnapshotObject() as snapshot, VolumeObject() as volume if from_image and to_us:
                return partial(self._restoring.restore, snapshot, volume)
            case SnapshotObject() as snapshot, VolumeObject() as volume if from_us and to_us:
                # Its volume may have left the pool since it was taken.
                return partial(self._cloning.clone, snapshot, volume) if self._together(source, destination) else None
            case TemplateObject() as template, TemplateObject() as cached if from_image and to_us:
                return partial(self._seeding.seed, template, cached)
            case TemplateObject() as template, VolumeObject() as volume if from_us and _same(source, destination):
                return partial(self._cloning.clone, template, volume)
            case (VolumeObject() | SnapshotObject()) as made_of, TemplateObject() as template if from_us and to_image:
                return partial(self._templating.make, made_of, template)
            case VolumeObject() as volume, VolumeObject() as other if from_us and to_image:
                return partial(self._exporting.export, volume, other)
            case VolumeObject() as volume, VolumeObject() as other if self._moving.can_move(volume, other):
                return partial(self._moving.move if to_us else self._exporting.export, volume, other)
        return None

    def _together(self, source: DataObject, destination: DataObject) -> bool:
        one, other = source.store, destination.store
        return one is not None and other is not None and self._pools.same_cluster(one.id, other.id)


def _is_encrypted(item: DataObject) -> bool:
    volume = item.volume if isinstance(item, SnapshotObject) else item
    return isinstance(volume, VolumeObject) and volume.encrypted


def _is_image(store: DataStore | None) -> bool:
    return store is not None and store.role is StoreRole.IMAGE


def _same(source: DataObject, destination: DataObject) -> bool:
    """Whether both are on one pool of ours."""
    one, other = source.store, destination.store
    return one is not None and other is not None and is_ours(one) and is_ours(other) and one.id == other.id
