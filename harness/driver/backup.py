"""Backing a snapshot up: its bytes, read on a host, become a file of secondary storage (spec/cloudstack-plugin.md 4.9).

The StorPool snapshot is never touched, whatever becomes of the copy (weakness 3).
"""

from __future__ import annotations

import msgspec

from harness.driver.copying import ANSWER_MARGIN, copied
from harness.driver.in_use import COPIED_BY, cancelled
from harness.driver.operations import Operation, Operations
from harness.driver.pools import Pools
from harness.driver.settings import BACKUP_WAIT, copy_wait
from harness.spi.commands import StorPoolBackupSnapshotCommand
from harness.spi.driver import DriverRecords, HostEndpoints
from harness.spi.errors import Error, NotFound, Unknown
from harness.spi.objects import SnapshotObject, storpool_id
from harness.storpool import ObjectDoesNotExist


class SnapshotBackup:
    """Has an agent copy. One step: copy.

    Nothing of it is left in StorPool: the agent attaches and detaches, and keeps its own record of that. The file is
    CloudStack's; a copy whose end is unknown may still be writing to it, so each try must have a file of its own.
    """

    kind = "backup-snapshot"

    def __init__(self, operations: Operations, pools: Pools, records: DriverRecords, endpoints: HostEndpoints) -> None:
        self._operations = operations
        self._pools = pools
        self._records = records
        self._endpoints = endpoints

    def back_up(self, source: SnapshotObject, destination: SnapshotObject) -> SnapshotObject:
        """The answer is `destination` with the disk's size and the file's. `NotFound` when StorPool has lost it."""
        pool = self._pools.of(source)
        what = f"snapshot {source.name} ({source.uuid})"
        if source.path is None:
            raise NotFound(f"{what} has no path on the pool")
        try:
            cluster_id = pool.client.snapshot(storpool_id(source.path)).cluster_id
        except ObjectDoesNotExist as error:
            raise NotFound(f"{what} is gone from StorPool ({error})") from error
        wait = copy_wait(self._records, BACKUP_WAIT)
        with self._operations.exclusive(f"snapshot:{source.uuid}"):
            endpoint = self._endpoints.select(source.store, cluster_id)
            operation = self._begin(source, pool.id, endpoint.name, destination)
            command = StorPoolBackupSnapshotCommand(source=source, destination=destination, wait=wait)
            try:
                answer = copied(endpoint.send(command, timeout=wait + ANSWER_MARGIN), endpoint, what)
            except Unknown:
                raise
            except Error:
                operation.undone()
                raise
            operation.done()
        size = source.size if answer.size is None else answer.size
        return msgspec.structs.replace(destination, size=size, physical_size=answer.physical_size or size)

    def recover(self, operation: Operation) -> str:
        """The copy is ended if its host can be asked, because the next try would wait for it; else it ends alone."""
        self._undo(operation)
        return f"{operation}: not waited for any more; the next try has a file of its own"

    def _undo(self, operation: Operation) -> None:
        host, file = operation.data.get(COPIED_BY), operation.data.get("file")
        if host and file:
            cancelled(self._endpoints, host, file)
        operation.undone()

    def _begin(self, source: SnapshotObject, pool_id: int, host: str, destination: SnapshotObject) -> Operation:
        data = {"pool": str(pool_id), COPIED_BY: host, "file": destination.path or ""}
        return self._operations.begin_anew(self.kind, f"snapshot:{source.uuid}", "copy", data, self._undo)
