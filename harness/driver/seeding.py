"""Seeding the template cache: an image on secondary storage becomes a StorPool snapshot (spec 4.2 T>T, 6)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import UNSET

from harness.driver import tags
from harness.driver.copying import copy_out
from harness.driver.creation import Creation
from harness.driver.discard import Discards
from harness.driver.operations import ANSWERED, Operation, Operations, log, undone_by_errors
from harness.driver.pools import Pool, Pools, cluster_of
from harness.driver.removal import remover
from harness.driver.settings import DOWNLOAD_WAIT, copy_wait
from harness.driver.settling import Fate, Settler
from harness.spi.commands import DirectDownloadCommand, StorPoolDownloadTemplateCommand
from harness.spi.driver import DriverRecords, HostEndpoints
from harness.spi.errors import InvalidParameter
from harness.spi.objects import TemplateObject, device_path, storpool_id
from harness.storpool import ObjectDoesNotExist, VolumeCreateDesc, VolumeSnapshotDesc

SECTOR = 512
BLANK = "blank"
"""In an operation's data: a volume without a parent may have been asked for."""


class TemplateSeeding:
    """Copies an image onto a volume, snapshots it, and deletes the volume.

    A template that was made on StorPool is taken from its mirror, and nothing is copied.

    Steps: create, made, copy (the agent was asked), copied, snapped, answered; undo. A copy whose end is unknown is
    never trusted or repeated on the same volume: qemu-img may still be writing there. The volume is discarded once
    nobody uses it, and the next call starts with a new one.
    """

    kind = "seed-template"

    def __init__(
        self,
        operations: Operations,
        pools: Pools,
        records: DriverRecords,
        endpoints: HostEndpoints,
        discards: Discards,
        settler: Settler,
    ) -> None:
        self._settler = settler
        self._operations = operations
        self._pools = pools
        self._records = records
        self._endpoints = endpoints
        self._discards = discards

    def seed(self, source: TemplateObject, destination: TemplateObject) -> TemplateObject:
        """The answer is `destination` with path and size of the snapshot."""
        pool = self._pools.of(destination)
        wait = copy_wait(self._records, DOWNLOAD_WAIT)
        subject = f"template:{destination.uuid}@pool:{pool.id}"
        with self._operations.exclusive(subject, wait):
            operation = self._begin(subject, pool, destination)
            if operation.step == ANSWERED and not self._snapshot(operation, pool).exists():
                operation.done()
                operation = self._begin(subject, pool, destination)
            if operation.step in ("copy", "undo"):
                self._undo(operation)
                operation = self._begin(subject, pool, destination)
            with undone_by_errors(operation, self._undo):
                return self._run(operation, pool, source, destination, wait)

    def recover(self, operation: Operation) -> str:
        """Keep what the records know; else undo it: whoever asked is gone, and asks again."""
        if operation.step == ANSWERED:
            if self._operations.answered_here(operation):
                return f"{operation}: {'settled' if self.settle(operation) else 'open until it is surely recorded'}"
            if self._fate(operation) is Fate.RECORDED:
                operation.done()
                return f"{operation}: done"
        doubt = self._doubt(operation)
        if doubt is not None:
            return f"{operation}: {doubt}"
        self._undo(operation)
        return f"{operation}: undone"

    def settle(self, operation: Operation) -> bool:
        fate = self._fate(operation)
        if fate is Fate.AWAITED or (fate is not Fate.RECORDED and not self._operations.surely_recorded(operation)):
            return False
        if fate is Fate.ABANDONED:
            if self._doubt(operation) is not None:
                return False
            self._undo(operation)
        else:
            operation.done()
        return True

    def _fate(self, operation: Operation) -> Fate:
        entry = self._records.template_cache(int(operation.data["template"]), int(operation.data["pool"]))
        if entry is None:
            uuid = operation.subject.removeprefix("template:").partition("@")[0]
            return Fate.UNTOLD if self._records.template_mirror(uuid) is None else Fate.ABANDONED
        if entry.path == device_path(operation.data["snapshot.id"]):
            return Fate.RECORDED
        return Fate.ABANDONED if entry.steady else Fate.AWAITED

    def _begin(self, subject: str, pool: Pool, template: TemplateObject) -> Operation:
        data = {"pool": str(pool.id), "template": str(template.id)}
        return self._operations.begin(self.kind, subject, "create", data)

    def _doubt(self, operation: Operation) -> str | None:
        """As `Creation.doubt`. Nobody but this operation ever has the volume that the image was copied onto."""
        return self._snapshot(operation, self._pools.get(int(operation.data["pool"]))).doubt()

    def _snapshot(self, operation: Operation, pool: Pool) -> Creation:
        return Creation(self._operations, operation, "snapshot", pool.client)

    def _run(
        self,
        operation: Operation,
        pool: Pool,
        source: TemplateObject,
        destination: TemplateObject,
        wait: float,
    ) -> TemplateObject:
        volume = Creation(self._operations, operation, "volume", pool.client)
        snapshot = self._snapshot(operation, pool)
        if operation.step == "create":
            self._make_volume(operation, volume, pool, source)
        on_volume = msgspec.structs.replace(destination, path=device_path(str(volume.global_id)))
        if operation.step == "made":
            self._copy(operation, source, on_volume, wait)
        if operation.step == "copied":

            def snap(name: str) -> str:
                desc = VolumeSnapshotDesc(name=name, tags=tags.template_snapshot(destination))
                return pool.client.snapshot_create(f"~{volume.global_id}", desc).snapshot_global_id

            snapshot.make(snap, "snapped")
        made = pool.client.snapshot(f"~{snapshot.global_id}")
        # The snapshot keeps its name, so a lost request for it cannot make a second one.
        if operation.step != ANSWERED:
            self._discards.take_over(volume, pool.id)
        self._operations.answer(operation)
        self._settler.wake()
        return msgspec.structs.replace(destination, path=device_path(str(snapshot.global_id)), size=made.size)

    def _make_volume(self, operation: Operation, volume: Creation, pool: Pool, source: TemplateObject) -> None:
        """On top of the mirror where that is there, else blank. What is found by its name is of the kind that was asked
        for last: so a blank one is never taken for the other."""
        if source.mirror is not None and BLANK not in operation.data:
            try:
                volume.make(self._volume_sender(pool, source, storpool_id(source.mirror)), "copied")
                return
            except ObjectDoesNotExist as error:
                log.warning("%s: template %s is copied from its image store: %s", operation, source.name, error)
        operation.note({BLANK: "yes"})
        volume.make(self._volume_sender(pool, source), "made")

    def _volume_sender(self, pool: Pool, source: TemplateObject, parent: str | None = None) -> Callable[[str], str]:
        if source.size <= 0:
            raise InvalidParameter(f"template {source.name} ({source.uuid}): its virtual size is not known")
        size = -(-source.size // SECTOR) * SECTOR

        def send(name: str) -> str:
            desc = VolumeCreateDesc(
                name=name,
                size=size,
                parent=UNSET if parent is None else parent,
                template=pool.template,
                tags=tags.template_volume(source),
            )
            return pool.client.volume_create(desc).global_id

        return send

    def _copy(self, operation: Operation, source: TemplateObject, onto: TemplateObject, wait: float) -> None:
        endpoint = self._endpoints.select(onto.store, None if onto.path is None else cluster_of(onto.path))
        kind = StorPoolDownloadTemplateCommand if source.direct is None else DirectDownloadCommand
        command = kind(source=source, destination=onto, wait=wait)
        copy_out(self._operations, operation, endpoint, command, f"template {source.name} ({source.uuid})")

    def _undo(self, operation: Operation) -> None:
        """Remove what was made, as far as nobody uses it; the rest goes to operations of its own."""
        pool = self._pools.get(int(operation.data["pool"]))
        if operation.step != "undo":
            operation.advance("undo")
        self._discards.take_from(operation, Creation(self._operations, operation, "volume", pool.client))
        snapshot = self._snapshot(operation, pool)
        if not snapshot.unmake(remover(pool.client, "snapshot")):
            self._discards.take_over(snapshot, pool.id)
        operation.undone()
