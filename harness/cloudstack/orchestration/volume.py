"""Volumes: created at first use, attached, detached, destroyed and expunged (spec/cloudstack-plugin.md 4.1 to 4.8)."""

from __future__ import annotations

import logging

from harness.cloudstack.orchestration import objects, placement
from harness.cloudstack.orchestration.backup import on_image_store, on_primary
from harness.cloudstack.orchestration.context import LOCK_TIMEOUT, Context
from harness.cloudstack.orchestration.template import TemplateManager
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.passphrases import LUKS, drop_unused
from harness.cloudstack.records.rows import Snapshot, Vm, Volume
from harness.spi.errors import Error, InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.objects import VolumeObject
from harness.spi.states import StoreRefState, VolumeEvent, VolumeState

_log = logging.getLogger("harness.cloudstack.volume")


class VolumeManager:
    """Everything about one volume that is not about a running VM."""

    def __init__(self, context: Context, templates: TemplateManager) -> None:
        self._context = context
        self._templates = templates

    def ensure_ready(self, volume_id: int, host_id: int | None = None) -> Volume:
        """Create the volume on a pool that `host_id` has connected, unless it is Ready there already.

        Allocated -> Creating -> Ready; after an error Allocated again, without a pool.
        """
        with self._context.volume_locks.hold(str(volume_id), LOCK_TIMEOUT):
            row = self._begin_create(volume_id, host_id)
            return row if row.state is VolumeState.READY else self._create(row)

    def finish_create(self, volume_id: int) -> None:
        """After a restart: a volume that was being created is created, so that what the driver began has an owner.

        Raises while StorPool or a host is away; the volume stays in Creating then.
        """
        with self._context.volume_locks.hold(str(volume_id), LOCK_TIMEOUT):
            with self._context.records.transaction("volume create again") as tx:
                row = tx.get(Volume, volume_id)
                if row.state is not VolumeState.CREATING:
                    return
                row = tx.transition(row, VolumeEvent.OPERATION_RETRY)
                item, policy = objects.volume_object(tx, row), objects.policy_of(tx, row)
            try:
                made = self._make(row)
            except (Unavailable, Unknown):
                raise
            except Error:
                self._context.driver.delete(item)
                self._not_created(row)
                raise
            self._created(row, made, policy)

    def destroy(self, volume_id: int) -> None:
        """To state Destroy; what is on the pool stays until it is expunged."""
        with self._context.volume_locks.hold(str(volume_id), LOCK_TIMEOUT):
            with self._context.records.transaction("volume destroy") as tx:
                row = tx.get(Volume, volume_id)
                check_unattached(tx, row)
                if row.state is not VolumeState.DESTROY:
                    tx.transition(row, VolumeEvent.DESTROY_REQUESTED, updated=tx.now)

    def expunge(self, volume_id: int) -> None:
        """Destroy -> Expunging -> Expunged and removed; after an error Destroy again."""
        with self._context.volume_locks.hold(str(volume_id), LOCK_TIMEOUT):
            with self._context.records.transaction("volume expunge") as tx:
                row = tx.get(Volume, volume_id)
                if row.removed is not None:
                    return
                row = tx.transition(row, VolumeEvent.EXPUNGING_REQUESTED)
                item = objects.volume_object(tx, row)
            try:
                # Without a path too, if a creation was tried: the driver may have to undo what it began.
                if row.path is not None or row.pool_id is not None or row.last_pool_id is not None:
                    self._context.driver.delete(item)
            except Error:
                with self._context.records.transaction("volume not expunged") as tx:
                    tx.transition(row, VolumeEvent.OPERATION_FAILED)
                raise
            with self._context.records.transaction("volume expunged") as tx:
                tx.transition(
                    row,
                    VolumeEvent.OPERATION_SUCCEEDED,
                    removed=tx.now,
                    updated=tx.now,
                    instance_id=None,
                    device_id=None,
                )
                tx.execute(
                    "DELETE FROM resource_tags WHERE resource_type = 'Volume' AND resource_uuid = ?", (row.uuid,)
                )
                drop_unused(tx, row.passphrase_id)

    def delete(self, volume_id: int) -> None:
        """deleteVolume: destroy and expunge at once."""
        self.destroy(volume_id)
        self.expunge(volume_id)

    def tell_attached(self, vm_uuid: str, row: Volume) -> None:
        """Tags for the new VM; as in CloudStack an error does not undo the attach, it is logged and repaired later."""
        with self._context.records.read() as tx:
            item = objects.volume_object(tx, row)
        try:
            self._context.driver.provide_vm_info(vm_uuid, item)
        except Error as error:
            _log.warning("volume %s is attached to VM %s but its tags are not set: %s", row.uuid, vm_uuid, error)

    def tell_policy(self, row: Volume) -> None:
        """Tag vc-policy as the volume's VM has it now; an error is logged, as above."""
        with self._context.records.read() as tx:
            item = objects.volume_object(tx, tx.get(Volume, row.id))
        if item.path is None or item.vm_uuid is None:
            return
        try:
            self._context.driver.provide_vm_tags(item.vm_uuid, item, objects.POLICY_TAG)
        except Error as error:
            _log.warning("volume %s does not carry the %s of its VM: %s", row.uuid, objects.POLICY_TAG, error)

    def tell_detached(self, row: Volume) -> None:
        """Clears the VM's tags; an error is logged, as above."""
        if row.path is None:
            return
        with self._context.records.read() as tx:
            item = objects.volume_object(tx, row)
        try:
            self._context.driver.revoke_access(item)
        except Error as error:
            _log.warning("volume %s is detached but still carries its VM's tags: %s", row.uuid, error)

    def _begin_create(self, volume_id: int, host_id: int | None) -> Volume:
        with self._context.records.transaction("volume create") as tx:
            row = tx.get(Volume, volume_id)
            if row.state is VolumeState.READY and row.path is not None:
                return row
            pool = placement.pool_for(tx, row, host_id)
            passphrase_id = self._context.passphrases.provide(tx, row)
            return tx.transition(row, VolumeEvent.CREATE_REQUESTED, pool_id=pool.id, passphrase_id=passphrase_id)

    def _create(self, row: Volume) -> Volume:
        with self._context.records.read() as tx:
            policy = objects.policy_of(tx, row)
        try:
            made = self._make(row)
        except Error:
            self._not_created(row)
            raise
        return self._created(row, made, policy)

    def _created(self, row: Volume, made: VolumeObject, policy: str | None) -> Volume:
        """`policy` is the VM's before the volume was made: whoever changed it since saw no path to tell it to."""
        with self._context.records.transaction("volume created") as tx:
            size = max(row.size, made.size)
            row = tx.transition(
                row,
                VolumeEvent.OPERATION_SUCCEEDED,
                path=made.path,
                size=size,
                encrypt_format=None if row.passphrase_id is None else LUKS,
                updated=tx.now,
            )
            changed = objects.policy_of(tx, row) != policy
        if changed:
            self.tell_policy(row)
        return row

    def _not_created(self, row: Volume) -> None:
        with self._context.records.transaction("volume not created") as tx:
            tx.transition(row, VolumeEvent.OPERATION_FAILED, pool_id=None, last_pool_id=row.pool_id)

    def _make(self, row: Volume) -> VolumeObject:
        if row.template_id is not None:
            made = self._templates.clone(row)
        elif row.snapshot_id is not None:
            made = self._from_snapshot(row, row.snapshot_id)
        else:
            with self._context.records.read() as tx:
                item = objects.volume_object(tx, row)
            made = self._context.driver.create(item)
        if made.path is None:
            raise Error(f"the driver created volume {row.uuid} but did not say where")
        return made

    def _from_snapshot(self, row: Volume, snapshot_id: int) -> VolumeObject:
        with self._context.records.read() as tx:
            snapshot = tx.get(Snapshot, snapshot_id)
            primary = on_primary(tx, snapshot_id, row.data_center_id)
            backup = on_image_store(tx, snapshot_id, row.data_center_id)
            refs = [ref for ref in (primary, backup) if ref is not None and ref.state is StoreRefState.READY]
            if not refs:
                raise NotFound(
                    f"snapshot {snapshot.name} is neither on primary nor on secondary storage of the volume's zone any"
                    " more"
                )
            sources = [objects.snapshot_object(tx, snapshot, ref) for ref in refs]
            destination = objects.volume_object(tx, row)
        try:
            made = self._context.driver.copy(sources[0], destination)
        except NotFound as error:
            if len(sources) == 1:
                raise
            _log.warning("snapshot %s is brought back from its backup: %s", snapshot.uuid, error)
            made = self._context.driver.copy(sources[1], destination)
        if not isinstance(made, VolumeObject):
            raise Error(f"the driver answered a copy to volume {row.uuid} with something else")
        return made


def check_unattached(tx: Transaction, row: Volume) -> None:
    """CloudStack refuses to delete a volume that a VM has."""
    if row.removed is not None:
        raise NotFound(f"unable to find volume {row.uuid}")
    if row.instance_id is None:
        return
    vm = tx.get(Vm, row.instance_id)
    if vm.removed is None:
        raise InvalidParameter(
            f"Please specify a volume that is not attached to any VM: {row.name} is attached to {vm.instance_name}"
        )
