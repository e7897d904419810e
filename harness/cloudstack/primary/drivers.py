"""Which driver gets which object: that of the provider whose pool it is on (CloudStack's DataMotionServiceImpl)."""

from __future__ import annotations

from harness.cloudstack import settings
from harness.cloudstack.primary.default_driver import PROVIDER
from harness.cloudstack.primary.files import PoolFiles
from harness.cloudstack.records import Records
from harness.spi.driver import PrimaryDataStoreDriver, ResizePayload, Space
from harness.spi.errors import Error
from harness.spi.inventory import Finding
from harness.spi.objects import DataObject, DataStore, Host, SnapshotObject, StoreRole, VolumeObject

COPY_WAIT = "copy.volume.wait"


class Drivers:
    """`harness.spi.driver.PrimaryDataStoreDriver` over the plugin's driver and CloudStack's own."""

    def __init__(
        self, records: Records, plugin: PrimaryDataStoreDriver, default: PrimaryDataStoreDriver, files: PoolFiles
    ) -> None:
        self._records = records
        self._plugin = plugin
        self._default = default
        self._files = files

    def can_copy(self, source: DataObject, destination: DataObject) -> bool:
        return self._plugin.can_copy(source, destination)

    def create(self, volume: VolumeObject) -> VolumeObject:
        return self._of(volume).create(volume)

    def copy(self, source: DataObject, destination: DataObject) -> DataObject:
        if not isinstance(destination, VolumeObject) or not is_default(destination.store):
            return self._plugin.copy(source, destination)
        if not self._plugin.can_copy(source, destination):
            return self._default.copy(source, destination)
        with self._records.read() as tx:
            wait = settings.seconds(tx, COPY_WAIT)
        new = self._files.new(destination, wait)
        try:
            return self._plugin.copy(source, new)
        except Error:
            self._files.forget(destination)
            raise

    def delete(self, item: DataObject) -> None:
        self._of(item).delete(item)

    def take_snapshot(self, snapshot: SnapshotObject) -> SnapshotObject:
        return self._of(snapshot.volume).take_snapshot(snapshot)

    def revert_snapshot(self, snapshot: SnapshotObject) -> int:
        return self._of(snapshot.volume).revert_snapshot(snapshot)

    def provide_vm_info(self, vm_uuid: str, volume: VolumeObject) -> None:
        self._of(volume).provide_vm_info(vm_uuid, volume)

    def provide_vm_tags(self, vm_uuid: str, volume: VolumeObject, key: str) -> None:
        self._of(volume).provide_vm_tags(vm_uuid, volume, key)

    def revoke_access(self, volume: VolumeObject) -> None:
        self._of(volume).revoke_access(volume)

    def release_fenced(self, volume: VolumeObject, host: Host) -> None:
        self._of(volume).release_fenced(volume, host)

    def resize(self, volume: VolumeObject, payload: ResizePayload) -> VolumeObject:
        return self._of(volume).resize(volume, payload)

    def collect_pool_stats(self) -> list[str]:
        return self._plugin.collect_pool_stats()

    def collect_volume_stats(self) -> list[str]:
        return self._plugin.collect_volume_stats()

    def pool_stats(self, pool_id: int) -> Space | None:
        return self._plugin.pool_stats(pool_id)

    def volume_stats(self, path: str) -> Space | None:
        return self._plugin.volume_stats(path)

    def recover(self) -> list[str]:
        return self._plugin.recover()

    def reconcile_volumes(self) -> list[Finding]:
        return self._plugin.reconcile_volumes()

    def reconcile_snapshots(self) -> list[Finding]:
        return self._plugin.reconcile_snapshots()

    def _of(self, item: DataObject) -> PrimaryDataStoreDriver:
        return self._default if is_default(item.store) else self._plugin


def is_default(store: DataStore | None) -> bool:
    return store is not None and store.role is StoreRole.PRIMARY and store.provider == PROVIDER
