"""createTemplate: from a volume or from a snapshot (spec/cloudstack-plugin.md 4.11, 4.12)."""

from __future__ import annotations

import logging

import msgspec

from harness.cloudstack import settings
from harness.cloudstack.orchestration import objects
from harness.cloudstack.orchestration.agents import ask
from harness.cloudstack.orchestration.backup import on_image_store, on_primary
from harness.cloudstack.orchestration.context import Context
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.orchestration.template_removal import TemplateRemoval
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.inventory import POOL_DETAIL
from harness.cloudstack.records.rows import Snapshot, Template, TemplateStore, Vm, Volume
from harness.spi.commands import CopyCmdAnswer, CopyCommand
from harness.spi.errors import Error, InvalidParameter, NotFound
from harness.spi.objects import SnapshotObject, StoreRole, TemplateObject, VolumeObject
from harness.spi.states import SnapshotState, StoreRefEvent, StoreRefState, VmState, VolumeState

_log = logging.getLogger("harness.cloudstack.template")

FILES = "template/tmpl/2"
"""Directory of the account's templates on an image store, which hosts may write to."""


class TemplateCreation:
    """Its row on the image store goes Allocated, Creating, Ready. After an error nothing is left of the template.

    A copy is never made again: a host that was asked may still be writing, so each request has a file of its own.
    """

    def __init__(self, context: Context, removal: TemplateRemoval) -> None:
        self._context = context
        self._removal = removal

    def create(self, template_id: int, *, volume_id: int | None = None, snapshot_id: int | None = None) -> None:
        """From one of the two."""
        with self._context.records.read() as tx:
            name = tx.get(Template, template_id).name
        try:
            if snapshot_id is not None:
                self._from_snapshot(template_id, snapshot_id)
            elif volume_id is not None:
                self._from_volume(template_id, volume_id)
        except Error as error:
            self._removal.abandon(template_id)
            raise reworded(error, f"Failed to create template {name}: {error}") from error

    def _from_volume(self, template_id: int, volume_id: int) -> None:
        with self._context.records.transaction("template from volume") as tx:
            volume = tx.get(Volume, volume_id)
            check_volume(tx, volume)
            source = objects.volume_object(tx, volume)
            ref, destination = _begin(tx, template_id)
        self._made(ref, self._by_driver(source, destination), volume.pool_id)

    def _from_snapshot(self, template_id: int, snapshot_id: int) -> None:
        with self._context.records.transaction("template from snapshot") as tx:
            row = tx.get(Snapshot, snapshot_id)
            check_snapshot(row)
            refs = (on_primary(tx, snapshot_id), on_image_store(tx, snapshot_id))
            sources = [
                objects.snapshot_object(tx, row, found)
                for found in refs
                if found is not None and found.state is StoreRefState.READY
            ]
            if not sources:
                raise NotFound(f"snapshot {row.name} is neither on primary nor on secondary storage any more")
            ref, destination = _begin(tx, template_id)
            wait = settings.seconds(tx, "backup.snapshot.wait")
        source = sources[0]
        if source.store.role is StoreRole.PRIMARY:
            try:
                self._made(ref, self._by_driver(source, destination), source.store.id)
                return
            except NotFound as error:
                if len(sources) == 1:
                    raise
                _log.warning("template %s is made from the backup of its snapshot: %s", destination.uuid, error)
        self._made(ref, self._by_secondary(sources[-1], destination, wait), None)

    def _by_driver(self, source: VolumeObject | SnapshotObject, destination: TemplateObject) -> TemplateObject:
        made = self._context.driver.copy(source, destination)
        if not isinstance(made, TemplateObject):
            raise Error(f"the driver answered a copy to template {destination.uuid} with something else")
        return made

    def _by_secondary(self, source: SnapshotObject, destination: TemplateObject, wait: float) -> TemplateObject:
        """From file to file; nothing on primary storage until the template is used first."""
        command = CopyCommand(source=source, destination=destination, wait=wait)
        answer = ask(self._context.secondary, command)
        if not isinstance(answer, CopyCmdAnswer) or not answer.size:
            raise Error(f"{self._context.secondary.name} answered a CopyCommand without the image's size")
        return msgspec.structs.replace(destination, size=answer.size, physical_size=answer.physical_size)

    def _made(self, ref: TemplateStore, made: TemplateObject, pool_id: int | None) -> None:
        with self._context.records.transaction("template created") as tx:
            tx.transition(
                ref,
                StoreRefEvent.OPERATION_SUCCEEDED,
                download_state="DOWNLOADED",
                size=made.size,
                physical_size=made.physical_size or made.size,
                local_path=made.mirror,
            )
            tx.update(tx.get(Template, ref.template_id), size=made.size)
            if made.mirror is not None:
                tx.set_detail("vm_template_details", ref.template_id, POOL_DETAIL, str(pool_id))


def _begin(tx: Transaction, template_id: int) -> tuple[TemplateStore, TemplateObject]:
    ref = tx.find(TemplateStore, template_id=template_id)
    if ref is None:
        raise NotFound(f"template {template_id} has no row on an image store")
    ref = tx.transition(
        ref, StoreRefEvent.CREATE_ONLY_REQUESTED, download_state="DOWNLOAD_IN_PROGRESS", asked_at=tx.now
    )
    row = tx.get(Template, template_id)
    return ref, TemplateObject(
        id=row.id,
        uuid=row.uuid,
        name=row.name,
        format=row.format,
        size=0,
        store=objects.image_store(tx, ref.store_id),
        path=ref.install_path,
    )


def check_volume(tx: Transaction, volume: Volume) -> None:
    """Raises in CloudStack's words for what no template is made from."""
    if volume.removed is not None:
        raise InvalidParameter(f"Failed to create private template record, unable to find volume {volume.uuid}")
    vm = None if volume.instance_id is None else tx.find(Vm, id=volume.instance_id)
    if vm is not None and vm.state is not VmState.STOPPED:
        raise InvalidParameter(
            f"Unable to create private template for volume: {volume.name}; volume is attached to a non-stopped VM,"
            " please stop the VM first"
        )
    if volume.state is not VolumeState.READY or volume.path is None:
        raise InvalidParameter(
            f"Unable to create private template for volume: {volume.name}; it is not Ready on primary storage but"
            f" {volume.state.value}"
        )


def check_snapshot(row: Snapshot) -> None:
    if row.removed is not None:
        raise InvalidParameter(f"Failed to create private template record, unable to find snapshot {row.uuid}")
    if row.state is not SnapshotState.BACKED_UP:
        raise InvalidParameter(
            f"Snapshot id={row.uuid} is not in BackedUp state yet and can't be used for template creation"
        )
