"""What a dead management server left half done: taken up again, object by object, when the next one starts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.cloudstack import settings
from harness.cloudstack.orchestration.attachment import DETACHING, AttachmentManager
from harness.cloudstack.orchestration.context import Context
from harness.cloudstack.orchestration.snapshot import SnapshotManager
from harness.cloudstack.orchestration.template import TemplateManager
from harness.cloudstack.orchestration.vm import VmManager
from harness.cloudstack.orchestration.volume import VolumeManager
from harness.cloudstack.records.rows import HaWork, Snapshot, TemplatePool, TemplateStore, Vm, Volume
from harness.spi.errors import Error
from harness.spi.states import SnapshotState, StoreRefEvent, StoreRefState, VmState, VolumeState

_log = logging.getLogger("harness.cloudstack.recovery")


@dataclass(frozen=True, slots=True)
class Recovery:
    context: Context
    volumes: VolumeManager
    attachments: AttachmentManager
    vms: VmManager
    templates: TemplateManager
    snapshots: SnapshotManager

    def reset(self) -> None:
        """Before anything runs: cache entries that were being seeded are Allocated again, so the next clone seeds."""
        with self.context.records.transaction("template seeds interrupted") as tx:
            for entry in tx.all(TemplatePool, state=StoreRefState.CREATING):
                tx.transition(entry, StoreRefEvent.OPERATION_FAILED)

    def resume(self) -> None:
        """Once hosts are connected, and only at the start: nobody else works on what is in transition then."""
        with self.context.records.read() as tx:
            volumes = tx.select(Volume, "removed IS NULL AND state IN ('Creating', 'Expunging') ORDER BY id")
            vms = tx.select(Vm, "removed IS NULL AND state IN ('Starting', 'Stopping', 'Expunging') ORDER BY id")
            snapshots = tx.select(
                Snapshot, "removed IS NULL AND state IN ('Allocated', 'Creating', 'Destroying') ORDER BY id"
            )
            refs = tx.select(TemplateStore, "state IN ('Allocated', 'Creating') ORDER BY id")
        for volume in volumes:
            finish = self.volumes.finish_create if volume.state is VolumeState.CREATING else self.volumes.expunge
            _try(f"volume {volume.uuid}", finish, volume.id)
        for vm in vms:
            repair = self.vms.expunge if vm.state is VmState.EXPUNGING else self.vms.reset_interrupted
            _try(f"VM {vm.instance_name}", repair, vm.id)
        take_up = {
            SnapshotState.ALLOCATED: self.snapshots.fail_unbegun,
            SnapshotState.CREATING: self.snapshots.finish_take,
            SnapshotState.DESTROYING: self.snapshots.delete,
        }
        for snapshot in snapshots:
            _try(f"snapshot {snapshot.uuid}", take_up[snapshot.state], snapshot.id)
        for ref in refs:
            _try(f"template {ref.template_id}", self.templates.fetch, ref.template_id)
        self.settle()

    def settle(self) -> None:
        """Now and then: stops, attaches and detaches that no host has confirmed yet."""
        with self.context.records.read() as tx:
            waiting = {work.instance_id for work in tx.all(HaWork)}
            rows = tx.select(
                Volume,
                "removed IS NULL AND (state = 'Attaching' OR id IN"
                " (SELECT resource_id FROM volume_details WHERE name = ?)) ORDER BY id",
                (DETACHING,),
            )
        for row in rows:
            _try(f"attachment of volume {row.uuid}", self.attachments.settle, row.id)
        for vm_id in sorted(waiting):
            _try(f"stop of VM {vm_id}", self.vms.confirm_stopped, vm_id)

    def clean_up(self) -> None:
        """The storage cleanup task: expunges volumes that were destroyed `storage.cleanup.delay` seconds ago."""
        with self.context.records.read() as tx:
            if not settings.flag(tx, "storage.cleanup.enabled"):
                return
            limit = tx.now - settings.seconds(tx, "storage.cleanup.delay")
            rows = tx.select(Volume, "removed IS NULL AND state = 'Destroy' AND updated < ? ORDER BY id", (limit,))
            owners = {row.instance_id for row in rows}
            alive = {vm.id for vm in tx.all(Vm, removed=None) if vm.id in owners and vm.state is VmState.DESTROYED}
        _each("volume", (row.id for row in rows if row.instance_id not in alive), self.volumes.expunge)


def _each(what: str, ids: Iterable[int], work: Callable[[int], object]) -> None:
    for id in ids:
        _try(f"{what} {id}", work, id)


def _try(what: str, work: Callable[[int], object], id: int) -> None:
    try:
        work(id)
    except Error as error:
        _log.warning("%s is left as it was, it is tried again later: %s", what, error)
