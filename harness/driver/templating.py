"""Templates made from a volume or snapshot (spec/cloudstack-plugin.md 4.11, 4.12).

A StorPool snapshot of the template's own comes first, and the file on secondary storage is a copy of that: so both are
of one moment, and neither depends on what becomes of the source.
"""

from __future__ import annotations

import msgspec

from harness.driver import tags
from harness.driver.copying import copy_out
from harness.driver.creation import Creation
from harness.driver.discard import Discards, taken_over
from harness.driver.operations import ANSWERED, Operation, Operations, report_also
from harness.driver.pools import Pool, Pools
from harness.driver.removal import remove_snapshot
from harness.driver.settling import Fate, Settler
from harness.spi.commands import StorPoolBackupTemplateFromSnapshotCommand
from harness.spi.driver import DriverRecords, HostEndpoints
from harness.spi.errors import Error, NotFound, Unknown
from harness.spi.objects import SnapshotObject, TemplateObject, VolumeObject, device_path, storpool_id
from harness.storpool import ObjectDoesNotExist, VolumeCreateDesc, VolumeSnapshotDesc

WAITS = {VolumeObject: ("primary.storage.download.wait", 10800), SnapshotObject: ("backup.snapshot.wait", 21600)}
"""Setting and default of the seconds that the copy may take."""


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
            operation = self._begin(subject, pool)
            try:
                made = self._run(operation, pool, source, storpool_id(source.path), destination)
            except Unknown:
                raise
            except Error as error:
                try:
                    self._undo(operation)
                except Error as cleanup:
                    report_also(error, cleanup, operation)
                if isinstance(error, ObjectDoesNotExist):
                    raise NotFound(f"{source.name} ({source.uuid}) is gone from StorPool ({error})") from error
                raise
            self._operations.answer(operation)
        self._settler.wake()
        return made

    def recover(self, operation: Operation) -> str:
        """Keep what the records know; else undo it: whoever asked is gone, and does not ask again."""
        fate = self._fate(operation) if operation.step == ANSWERED else Fate.ABANDONED
        if fate is Fate.ABANDONED:
            doubt = self._snapshot(operation).doubt()
            if doubt is not None:
                return f"{operation}: {doubt}"
            if operation.step != ANSWERED or self._operations.in_nobodys_hands(operation):
                self._undo(operation)
                return f"{operation}: undone"
        settled = operation.step == ANSWERED and self.settle(operation)
        return f"{operation}: {'done' if settled else 'made; open until it is surely recorded'}"

    def settle(self, operation: Operation) -> bool:
        fate, snapshot = self._fate(operation), self._snapshot(operation)
        if fate is Fate.ABANDONED:
            if not self._operations.in_nobodys_hands(operation) or snapshot.doubt() is not None:
                return False
            self._undo(operation)
            return True
        told = fate is Fate.RECORDED or (fate is Fate.UNTOLD and self._operations.surely_recorded(operation))
        if not (told and snapshot.settled):
            return False
        if not snapshot.exists():
            # Deleted since, so its name did not turn a late request away.
            late = snapshot.find()
            if late is not None:
                remove_snapshot(self._pools.get(int(operation.data["pool"])).client, f"~{late}")
        operation.done()
        return True

    def _fate(self, operation: Operation) -> Fate:
        record = self._records.template_mirror(operation.subject.removeprefix("template:"))
        if record is None:
            return Fate.UNTOLD
        if record.path == device_path(operation.data["snapshot.id"]):
            return Fate.RECORDED
        return Fate.ABANDONED if record.removed or record.steady else Fate.AWAITED

    def _begin(self, subject: str, pool: Pool) -> Operation:
        operation = self._operations.begin(self.kind, subject, "create", {"pool": str(pool.id)})
        if operation.resumed:
            self._undo(operation)
            operation = self._operations.begin(self.kind, subject, "create", {"pool": str(pool.id)})
        return operation

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
        gid = str(self._snapshot(operation).global_id)
        size = pool.client.snapshot(f"~{gid}").size
        setting, default = WAITS[type(source)]
        wait = float(self._records.setting(setting) or default)
        command = StorPoolBackupTemplateFromSnapshotCommand(
            source=msgspec.structs.replace(source, path=device_path(gid)), destination=destination, wait=wait
        )
        what = f"template {destination.name} ({destination.uuid})"
        assert source.store is not None, "it has a pool"
        endpoint = self._endpoints.select(source.store)
        answer = copy_out(self._operations, operation, endpoint, command, what)
        return msgspec.structs.replace(
            destination, size=size, physical_size=answer.physical_size or size, mirror=device_path(gid)
        )

    def _snap(self, operation: Operation, pool: Pool, volume: str, destination: TemplateObject) -> None:
        def send(name: str) -> str:
            desc = VolumeSnapshotDesc(name=name, tags=tags.template_mirror(destination))
            return pool.client.snapshot_create(volume, desc).snapshot_global_id

        self._snapshot(operation).make(send, "snapped")

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

    def _undo(self, operation: Operation) -> None:
        """Remove what was made, as far as nobody uses it; the rest goes to operations of its own."""
        for key in ("volume", "snapshot"):
            taken_over(self._discards, self._operations, operation, self._creation(operation, key))
        operation.undone()

    def _snapshot(self, operation: Operation) -> Creation:
        return self._creation(operation, "snapshot")

    def _creation(self, operation: Operation, key: str) -> Creation:
        return Creation(self._operations, operation, key, self._pools.get(int(operation.data["pool"])).client)
