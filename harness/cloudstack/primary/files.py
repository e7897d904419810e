"""Files of volumes on NFS pools: known before they are there, deleted, and looked for once more.

KVM hosts here have no NFS client but QEMU's, which deletes nothing: the secondary storage role beside the export does.
So a pool must be a directory of the image store's export.
"""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

import msgspec

from harness.cloudstack.orchestration import objects, secondary_files
from harness.cloudstack.records import Records, Transaction
from harness.cloudstack.records.rows import PoolFile, StoragePool, Volume
from harness.spi.errors import Error, InvalidParameter
from harness.spi.objects import DataStore, ImageFormat, VolumeObject
from harness.spi.ports import Endpoint
from harness.spi.runtime import Runtime

_log = logging.getLogger("harness.cloudstack.primary")

FORMAT = ImageFormat.QCOW2
"""CloudStack's on NFS for KVM."""


class PoolFiles:
    def __init__(self, runtime: Runtime, records: Records, secondary: Endpoint) -> None:
        self._runtime = runtime
        self._records = records
        self._secondary = secondary

    def new(self, volume: VolumeObject, wait: float) -> VolumeObject:
        """The volume with a file that nobody has had, and that a host will write within `wait` seconds."""
        assert volume.store is not None, "a pool was chosen"
        name = self._runtime.uuid()
        with self._records.transaction("file on pool") as tx:
            tx.insert(
                PoolFile(
                    pool_id=volume.store.id,
                    path=name,
                    volume_id=volume.id,
                    written_until=tx.now + wait + secondary_files.LATE,
                )
            )
        return msgspec.structs.replace(volume, path=name, format=FORMAT)

    def delete(self, pool: DataStore, path: str) -> None:
        """It is gone when this returns; after an error it goes later."""
        with self._records.transaction("file doomed") as tx:
            row = tx.find(PoolFile, pool_id=pool.id, path=path)
            if row is not None:
                row = tx.update(row, doomed=True, gone=False)
        if row is not None:
            self._delete(row)

    def forget(self, volume: VolumeObject) -> None:
        """What was made, or may yet be made, for the volume on its pool, and is not what the volume is now."""
        assert volume.store is not None, "a pool was chosen"
        with self._records.transaction("files doomed") as tx:
            rows = [
                tx.update(row, doomed=True)
                for row in tx.all(PoolFile, pool_id=volume.store.id, volume_id=volume.id)
                if not row.gone and not _named(tx, row)
            ]
        for row in rows:
            self._try(row)

    def resume(self) -> None:
        """At the start: what no volume names was being made by the server before."""
        with self._records.transaction("files interrupted") as tx:
            for row in tx.all(PoolFile, doomed=False):
                if not _named(tx, row):
                    tx.update(row, doomed=True)

    def tend(self) -> None:
        """The background task: files that are to go."""
        with self._records.read() as tx:
            rows = tx.select(PoolFile, "doomed AND (NOT gone OR written_until <= ?) ORDER BY id", (tx.now,))
        for row in rows:
            self._try(row)

    def _try(self, row: PoolFile) -> None:
        try:
            self._delete(row)
        except Error as error:
            _log.warning("file %s, which is to go, is still on its pool: %s", row.path, error)

    def _delete(self, row: PoolFile) -> None:
        with self._records.read() as tx:
            pool = tx.get(StoragePool, row.pool_id)
            store = objects.image_store(tx, objects.image_store_of(tx, pool.data_center_id).id)
        directory = directory_on_export(store.url, pool.host_address, pool.path)
        secondary_files.delete(self._secondary, store, f"{directory}/{row.path}")
        with self._records.transaction("file deleted") as tx:
            if tx.now >= row.written_until:
                tx.delete(row)
            else:
                tx.update(row, gone=True)


def directory_on_export(image_store_url: str, server: str, path: str) -> str:
    """Where a pool's directory is, relative to the image store's export; `InvalidParameter` when it is not on it."""
    url = urlsplit(image_store_url)
    root = url.path.rstrip("/") + "/"
    if server != url.hostname or not path.startswith(root) or not path.removeprefix(root).strip("/"):
        raise InvalidParameter(
            f"an NFS pool of this cloud is a directory of its image store, nfs://{url.hostname}{root}<directory>, and"
            f" not nfs://{server}{path}: files are deleted by the secondary storage role, which serves that export only"
        )
    return path.removeprefix(root).strip("/")


def _named(tx: Transaction, row: PoolFile) -> bool:
    """Whether the volume is that file."""
    return tx.find(Volume, id=row.volume_id, pool_id=row.pool_id, path=row.path, removed=None) is not None
