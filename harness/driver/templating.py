"""Templates made from a volume or snapshot (spec/cloudstack-plugin.md 4.11, 4.12).

A StorPool snapshot of the template's own comes first, and the file on secondary storage is a copy of that: so both are
of one moment, and neither depends on what becomes of the source.
"""

from __future__ import annotations

import msgspec

from harness.driver import tags
from harness.driver.copying import copy_out
from harness.driver.creation import Creation
from harness.driver.discard import Discards
from harness.driver.operations import Operation, Operations, undone_by_errors
from harness.driver.pools import Pool, Pools
from harness.driver.removal import remover
from harness.driver.settings import BACKUP_WAIT, DOWNLOAD_WAIT, copy_wait
from harness.driver.settling import Fate, Settler, fate
from harness.spi.commands import StorPoolBackupTemplateFromSnapshotCommand
from harness.spi.driver import DriverRecords, HostEndpoints
from harness.spi.errors import NotFound
from harness.spi.objects import SnapshotObject, TemplateObject, VolumeObject, device_path, storpool_id
from harness.storpool import ObjectDoesNotExist, VolumeCreateDesc, VolumeSnapshotDesc


class TemplateMaking:
    """Steps: create, (made, of a volume on top of a snapshot,) snapped, copy, copied, answered.

    The snapshot keeps its name, which turns a lost request away that arrives later. A request that failed is undone and
    never carried on: each has a template and a file of its own.
    """

    kind = "make-template"

    def __init__(
        self,
        operations: Operations,
        pools: Pools,
        records: DriverRecords,
        endpoints: HostEndpoints,
        discards: Discards,
        settler: Settler,
    ) -> None:
        self._operations = operations
        self._pools = pools
        self._records = records
        self._endpoints = endpoints
        self._discards = discards
        self._settler = settler

    def make(self, source: VolumeObject | SnapshotObject, destination: TemplateObject) -> TemplateObject:
        """The answer is `destination` with sizes and mirror. `NotFound` when StorPool has lost the source."""
        pool = self._pools.of(source)
        if source.path is None:
            raise NotFound(f"{source.name} ({source.uuid}) has no path on the pool")
        subject = f"template:{destination.uuid}"
        with self._operations.exclusive(subject):
            data = {"pool": str(pool.id)}
            operation = self._operations.begin_anew(self.kind, subject, "create", data, self.undo)
            try:
                with undone_by_errors(operation, self.undo):
                    made = self._run(operation, pool, source, storpool_id(source.path), destination)
            except ObjectDoesNotExist as error:
                raise NotFound(f"{source.name} ({source.uuid}) is gone from StorPool ({error})") from error
            self._operations.answer(operation)
        self._settler.wake()
        return made

    def recover(self, operation: Operation) -> str:
        return self._settler.recover(self, operation)

    def settle(self, operation: Operation) -> bool:
        return self._settler.settle(self, operation)

    def fate(self, operation: Operation) -> Fate:
        record = self._records.template_mirror(operation.subject.removeprefix("template:"))
        return fate(record, operation.data["snapshot.id"])

    def finish(self, operation: Operation) -> None:
        """Its name turns late requests away, unless it was deleted since."""
        snapshot = self.creation(operation)
        if not snapshot.exists():
            snapshot.unmake_late(remover(self._pools.get(int(operation.data["pool"])).client, "snapshot"))

    def undo(self, operation: Operation) -> bool:
        """Remove what was made, as far as nobody uses it; the rest goes to operations of its own."""
        for key in ("volume", "snapshot"):
            self._discards.take_from(operation, self._creation(operation, key))
        operation.undone()
        return True

    def creation(self, operation: Operation) -> Creation:
        return self._creation(operation, "snapshot")

    def _run(
        self,
        operation: Operation,
        pool: Pool,
        source: VolumeObject | SnapshotObject,
        name: str,
        destination: TemplateObject,
    ) -> TemplateObject:
        if isinstance(source, SnapshotObject):
            self._snapshot_again(operation, pool, name, destination)
        else:
            self._snap(operation, pool, name, destination)
        gid = str(self.creation(operation).global_id)
        found = pool.client.snapshot(f"~{gid}")
        wait = copy_wait(self._records, DOWNLOAD_WAIT if isinstance(source, VolumeObject) else BACKUP_WAIT)
        command = StorPoolBackupTemplateFromSnapshotCommand(
            source=msgspec.structs.replace(source, path=device_path(gid)), destination=destination, wait=wait
        )
        what = f"template {destination.name} ({destination.uuid})"
        assert source.store is not None, "it has a pool"
        endpoint = self._endpoints.select(source.store, found.cluster_id)
        answer = copy_out(self._operations, operation, endpoint, command, what)
        return msgspec.structs.replace(
            destination, size=found.size, physical_size=answer.physical_size or found.size, mirror=device_path(gid)
        )

    def _snap(self, operation: Operation, pool: Pool, volume: str, destination: TemplateObject) -> None:
        def send(name: str) -> str:
            desc = VolumeSnapshotDesc(name=name, tags=tags.template_mirror(destination))
            return pool.client.snapshot_create(volume, desc).snapshot_global_id

        self.creation(operation).make(send, "snapped")

    def _snapshot_again(self, operation: Operation, pool: Pool, snapshot: str, destination: TemplateObject) -> None:
        """StorPool snapshots volumes only, so through a volume on top of the snapshot; no data is copied."""
        size = pool.client.snapshot(snapshot).size
        volume = Creation(self._operations, operation, "volume", pool.client)

        def send(name: str) -> str:
            desc = VolumeCreateDesc(
                name=name,
                size=size,
                parent=snapshot,
                template=pool.template,
                tags=tags.template_volume(destination),
            )
            return pool.client.volume_create(desc).global_id

        volume.make(send, "made")
        self._snap(operation, pool, f"~{volume.global_id}", destination)
        self._discards.take_over(volume, pool.id)

    def _creation(self, operation: Operation, key: str) -> Creation:
        return Creation(self._operations, operation, key, self._pools.get(int(operation.data["pool"])).client)
