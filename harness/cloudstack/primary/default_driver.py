"""CloudStack's own primary storage driver (`DefaultPrimary`), as far as it is needed beside the plugin's.

Volumes on NFS are made empty, used by VMs, and deleted. It has no snapshots, templates or other sizes.
"""

from __future__ import annotations

from harness.cloudstack.orchestration.agents import Agents, ask
from harness.cloudstack.primary.files import PoolFiles
from harness.spi.commands import CreateObjectCommand, ModifyStoragePoolCommand
from harness.spi.driver import ResizePayload, Space
from harness.spi.errors import Error, InvalidParameter
from harness.spi.inventory import Finding
from harness.spi.objects import DataObject, DataStore, Host, SnapshotObject, VolumeObject

PROVIDER = "DefaultPrimary"
CREATE_WAIT = 120.0
POOL_WAIT = 30.0
"""Short, because hosts are connected one after the other."""


class DefaultPrimaryDriver:
    """`harness.spi.driver.PrimaryDataStoreDriver` for NFS pools."""

    def __init__(self, agents: Agents, files: PoolFiles) -> None:
        self._agents = agents
        self._files = files

    def can_copy(self, source: DataObject, destination: DataObject) -> bool:
        del source, destination
        return False

    def create(self, volume: VolumeObject) -> VolumeObject:
        assert volume.store is not None, "a pool was chosen"
        new = self._files.new(volume, CREATE_WAIT)
        try:
            ask(self._agents.select(volume.store), CreateObjectCommand(volume=new, wait=CREATE_WAIT))
        except Error:
            self._files.forget(volume)
            raise
        return new

    def copy(self, source: DataObject, destination: DataObject) -> DataObject:
        raise _unsupported(destination, f"{source.name} cannot be copied there")

    def delete(self, item: DataObject) -> None:
        if not isinstance(item, VolumeObject) or item.store is None:
            return
        if item.path is None:
            self._files.forget(item)
        else:
            self._files.delete(item.store, item.path)

    def take_snapshot(self, snapshot: SnapshotObject) -> SnapshotObject:
        raise _unsupported(snapshot.volume, "it takes no snapshots of volumes")

    def revert_snapshot(self, snapshot: SnapshotObject) -> int:
        raise _unsupported(
            snapshot.volume, f"it cannot revert volumes, and snapshot {snapshot.name} is on another pool"
        )

    def provide_vm_info(self, vm_uuid: str, volume: VolumeObject) -> None:
        """Files carry no tags."""

    def provide_vm_tags(self, vm_uuid: str, volume: VolumeObject, key: str) -> None:
        """Files carry no tags."""

    def revoke_access(self, volume: VolumeObject) -> None:
        """Files carry no tags."""

    def release_fenced(self, volume: VolumeObject, host: Host) -> None:
        """A host that is off has no file open."""

    def resize(self, volume: VolumeObject, payload: ResizePayload) -> VolumeObject:
        del payload
        raise _unsupported(volume, "it changes no volume's size or offering")

    def collect_pool_stats(self) -> list[str]:
        return []

    def collect_volume_stats(self) -> list[str]:
        return []

    def pool_stats(self, pool_id: int) -> Space | None:
        del pool_id
        return None

    def volume_stats(self, path: str) -> Space | None:
        del path
        return None

    def recover(self) -> list[str]:
        return []

    def reconcile_volumes(self) -> list[Finding]:
        return []

    def reconcile_snapshots(self) -> list[Finding]:
        return []


def connect(agents: Agents, host_id: int, pool: DataStore) -> None:
    """The default host listener's work; raises when the host does not reach the pool."""
    ask(agents.host(host_id), ModifyStoragePoolCommand(pool=pool, wait=POOL_WAIT))


def _unsupported(item: DataObject, why: str) -> Error:
    where = item.store.name if item.store is not None else "no pool"
    return InvalidParameter(f"{item.name} ({item.uuid}) is on storage pool {where} of provider {PROVIDER}: {why}")
