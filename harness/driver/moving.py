"""Volumes that change their pool (spec/cloudstack-plugin.md 4.18): within StorPool, to other storage and from it.

Within a cluster nothing is copied, whether the VM runs or not: StorPool moves the data when the volume's template is
another one, and volume, id and snapshots stay. The original copied a volume whose VM was off, and lost tier, tags and
the way back to its snapshots.

The source of a copy stays as it is. Whoever asked deletes it once the records point to the copy.
"""

from __future__ import annotations

import msgspec

from harness.driver import tags
from harness.driver.copying import ANSWER_MARGIN, copied
from harness.driver.creation import Creation
from harness.driver.discard import IN_USE, IN_USE_FOR, Discards
from harness.driver.operations import Operation, Operations, report_also
from harness.driver.pools import Pool, Pools, is_ours
from harness.driver.resizing import Resizing
from harness.driver.volumes import VolumeCreation
from harness.spi.commands import StorPoolDownloadVolumeCommand, StorPoolUploadVolumeCommand
from harness.spi.driver import DriverRecords, HostEndpoints, ResizePayload
from harness.spi.errors import Error, InvalidParameter, NotFound, Unavailable
from harness.spi.objects import StoreRole, VolumeObject, device_path, storpool_id
from harness.storpool import ObjectDoesNotExist, VolumeSnapshotDesc

DOWNLOAD_WAIT = "primary.storage.download.wait"
COPY_WAIT = "copy.volume.wait"
_SECONDS = 10800.0
"""Default of both settings."""


class VolumeMoving:
    """Chooses the way, and has a volume's file become a new StorPool volume."""

    def __init__(
        self,
        pools: Pools,
        records: DriverRecords,
        endpoints: HostEndpoints,
        volumes: VolumeCreation,
        resizing: Resizing,
        uploads: VolumeUploading,
    ) -> None:
        self._pools = pools
        self._records = records
        self._endpoints = endpoints
        self._volumes = volumes
        self._resizing = resizing
        self._uploads = uploads

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
        """The answer is `destination` with path and size; both name the same volume of CloudStack.

        Within a cluster `Unknown` says that it may be on either pool: call again until it ends otherwise.
        """
        if not is_ours(destination.store):
            return self._uploads.upload(source, destination)
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
        wait = float(self._records.setting(DOWNLOAD_WAIT) or _SECONDS)

        def fill(empty: VolumeObject) -> None:
            assert empty.store is not None, "it was just made there"
            endpoint = self._endpoints.select(empty.store, also=store)
            command = StorPoolDownloadVolumeCommand(source=source, destination=empty, wait=wait)
            answer = endpoint.send(command, timeout=wait + ANSWER_MARGIN)
            copied(answer, endpoint, f"volume {source.name} ({source.uuid})")

        return self._volumes.create_filled(destination, fill, source.path, source.size, wait)


class VolumeUploading:
    """Has an agent copy a volume into a file. Steps: snapshot, snapped, copy; undo.

    The copy is made from a snapshot that is there for it alone, so that one which goes on after it was given up keeps
    nobody from the volume. The file is the caller's, and each try must have one of its own.
    """

    kind = "upload-volume"

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

    def upload(self, source: VolumeObject, destination: VolumeObject) -> VolumeObject:
        """`NotFound` when StorPool has lost the volume. After an error part of the file may be there, and after
        `Unknown` it may still be written to."""
        pool = self._pools.of(source)
        if source.path is None or destination.path is None:
            raise InvalidParameter(f"volume {source.name} ({source.uuid}): source and file must both have a path")
        subject = f"volume:{source.uuid}"
        with self._operations.exclusive(subject):
            operation = self._begin(subject, pool, source.path, destination.path)
            try:
                made = self._run(operation, pool, source, destination)
            except Error as error:
                try:
                    self._undo(operation, pool)
                except Error as cleanup:
                    report_also(error, cleanup, operation)
                raise
            self._discards.take_over(self._snapshot(operation, pool), pool.id)
            operation.done()
        return made

    def recover(self, operation: Operation) -> str:
        self._undo(operation, self._pools.get(int(operation.data["pool"])))
        return f"{operation}: undone; the next try has a file of its own"

    def _begin(self, subject: str, pool: Pool, path: str, file: str) -> Operation:
        data = {"pool": str(pool.id), "object": storpool_id(path), "file": file}
        operation = self._operations.begin(self.kind, subject, "snapshot", data)
        if operation.resumed:
            self._undo(operation, self._pools.get(int(operation.data["pool"])))
            operation = self._operations.begin(self.kind, subject, "snapshot", data)
        return operation

    def _run(self, operation: Operation, pool: Pool, source: VolumeObject, destination: VolumeObject) -> VolumeObject:
        def snap(name: str) -> str:
            desc = VolumeSnapshotDesc(name=name, tags=tags.temporary(source))
            return pool.client.snapshot_create(operation.data["object"], desc).snapshot_global_id

        try:
            global_id = self._snapshot(operation, pool).make(snap, "snapped")
        except ObjectDoesNotExist as error:
            raise NotFound(f"volume {source.name} ({source.uuid}) is gone from StorPool ({error})") from error
        assert source.store is not None, "its pool was looked up"
        endpoint = self._endpoints.select(source.store, also=destination.store)
        wait = float(self._records.setting(COPY_WAIT) or _SECONDS)
        use = wait + self._operations.settle_time
        in_use = {IN_USE: str(self._operations.now() + use), IN_USE_FOR: str(use)}
        operation.advance("copy", {"host": endpoint.name, **in_use})
        command = StorPoolUploadVolumeCommand(
            source=msgspec.structs.replace(source, path=device_path(global_id)), destination=destination, wait=wait
        )
        try:
            answer = endpoint.send(command, timeout=wait + ANSWER_MARGIN)
        except Unavailable:
            operation.note({IN_USE: "0"})
            raise
        done = copied(answer, endpoint, f"volume {source.name} ({source.uuid})")
        return msgspec.structs.replace(destination, size=source.size if done.size is None else done.size)

    def _undo(self, operation: Operation, pool: Pool) -> None:
        """The snapshot goes, at the latest when no agent can be reading it any more."""
        snapshot = self._snapshot(operation, pool)
        over = self._operations.passed(operation, IN_USE, float(operation.data.get(IN_USE_FOR, "inf")))
        if snapshot.global_id is not None or snapshot.unanswered:
            until = 0.0 if over else float(operation.data[IN_USE])
            self._discards.take_over(snapshot, pool.id, in_use_until=until)
        operation.undone()

    def _snapshot(self, operation: Operation, pool: Pool) -> Creation:
        return Creation(self._operations, operation, "snapshot", pool.client)
