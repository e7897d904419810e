"""What goes with a template: its file, its snapshot on StorPool, and copies on pools that nothing uses
(spec/cloudstack-plugin.md 4.17).

The row of a file goes last, when the file is gone and nothing can write to it any more; until then the background task
tries again.
"""

from __future__ import annotations

import logging

from harness.cloudstack import settings
from harness.cloudstack.orchestration import objects, secondary_files
from harness.cloudstack.orchestration.context import Context
from harness.cloudstack.orchestration.iso import check_in_no_drive
from harness.cloudstack.orchestration.template import TemplateManager
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.inventory import POOL_DETAIL
from harness.cloudstack.records.rows import StoragePool, Template, TemplatePool, TemplateStore
from harness.spi.errors import Conflict, Error
from harness.spi.locks import KeyedLocks
from harness.spi.objects import TemplateObject
from harness.spi.states import StoreRefEvent, StoreRefState

_log = logging.getLogger("harness.cloudstack.template")

_UNDER_WAY = (StoreRefState.ALLOCATED, StoreRefState.CREATING)


class TemplateRemoval:
    def __init__(self, context: Context, templates: TemplateManager) -> None:
        self._context = context
        self._templates = templates
        self._at_work = KeyedLocks(context.runtime, "template file")

    def remove(self, template_id: int) -> None:
        """deleteTemplate: it is gone for users at once; what cannot be deleted now goes later."""
        with self._context.records.transaction("template destroy") as tx:
            template = tx.get(Template, template_id)
            check_in_no_drive(tx, template)
            ref = tx.find(TemplateStore, template_id=template_id)
            if ref is not None and ref.state in _UNDER_WAY:
                doing = "downloaded" if template.url else "created"
                raise Conflict(f"the template is being {doing}; delete it when that has ended")
            if ref is not None:
                ref = tx.transition(ref, StoreRefEvent.DESTROY_REQUESTED)
            tx.update(template, state="Inactive", removed=tx.now)
            evict = settings.flag(tx, "template.delete.from.primary.storage")
            copies = tx.all(TemplatePool, template_id=template_id) if evict else []
        if ref is not None:
            self._delete(ref.id)
        for entry in copies:
            self._evict(entry)

    def abandon(self, template_id: int) -> None:
        """It could not be made: it goes, with whatever was written of it."""
        with self._context.records.transaction("template not created") as tx:
            ref = _abandon(tx, tx.get(Template, template_id))
        if ref is not None:
            self._delete(ref.id)

    def abandon_interrupted(self) -> None:
        """At the start: those that the server before was making, whose jobs have failed."""
        with self._context.records.transaction("templates interrupted") as tx:
            for template in tx.select(Template, "removed IS NULL AND url = '' ORDER BY id"):
                ref = tx.find(TemplateStore, template_id=template.id)
                if ref is not None and ref.state in _UNDER_WAY:
                    _abandon(tx, template)

    def tend(self) -> None:
        """The background task: what is to go, and what may have been written once more since."""
        with self._context.records.read() as tx:
            refs = [
                ref
                for ref in tx.select(TemplateStore, "state IN ('Destroying', 'Destroyed') ORDER BY id")
                if ref.state is StoreRefState.DESTROYING or _is_still(tx, ref)
            ]
        for ref in refs:
            self._delete(ref.id)

    def _delete(self, ref_id: int) -> None:
        try:
            with self._at_work.hold(str(ref_id), 0):
                self._delete_snapshot(ref_id)
                self._delete_file(ref_id)
        except Error as error:
            _log.warning("a template that is to go is still there in part: %s", error)

    def _delete_snapshot(self, ref_id: int) -> None:
        with self._context.records.read() as tx:
            ref = tx.find(TemplateStore, id=ref_id)
            item = None if ref is None else _mirror(tx, ref)
        if ref is None or ref.local_path is None:
            return
        if item is not None:
            self._context.driver.delete(item)
        with self._context.records.transaction("template snapshot deleted") as tx:
            tx.update(ref, local_path=None)
            tx.set_detail("vm_template_details", ref.template_id, POOL_DETAIL, None)

    def _delete_file(self, ref_id: int) -> None:
        with self._context.records.read() as tx:
            ref = tx.find(TemplateStore, id=ref_id)
            if ref is None:
                return
            store = objects.image_store(tx, ref.store_id)
        if ref.install_path:
            secondary_files.delete(self._context.secondary, store, ref.install_path)
        with self._context.records.transaction("template destroyed") as tx:
            if ref.state is StoreRefState.DESTROYING:
                ref = tx.transition(ref, StoreRefEvent.OPERATION_SUCCEEDED)
            if _is_still(tx, ref):
                tx.delete(ref)

    def _evict(self, entry: TemplatePool) -> None:
        try:
            self._templates.evict(entry.template_id, entry.pool_id, unused_only=True)
        except Error as error:
            _log.warning("template %s stays on pool %s for now: %s", entry.template_id, entry.pool_id, error)


def _mirror(tx: Transaction, ref: TemplateStore) -> TemplateObject | None:
    """The StorPool snapshot of a template; None when there is none, or its pool is gone."""
    row = tx.get(Template, ref.template_id)
    pool_id = tx.details("vm_template_details", row.id).get(POOL_DETAIL)
    if ref.local_path is None or pool_id is None or tx.find(StoragePool, id=int(pool_id), removed=None) is None:
        return None
    return TemplateObject(
        id=row.id,
        uuid=row.uuid,
        name=row.name,
        format=row.format,
        size=row.size,
        store=objects.pool_store(tx, int(pool_id)),
        path=ref.local_path,
    )


def _abandon(tx: Transaction, template: Template) -> TemplateStore | None:
    tx.update(template, state="Inactive", removed=tx.now)
    ref = tx.find(TemplateStore, template_id=template.id)
    if ref is None or ref.state not in _UNDER_WAY:
        return None
    if ref.state is StoreRefState.CREATING:
        ref = tx.transition(ref, StoreRefEvent.OPERATION_FAILED)
    return tx.transition(ref, StoreRefEvent.DESTROY_REQUESTED)


def _is_still(tx: Transaction, ref: TemplateStore) -> bool:
    """Whether nobody can begin to write the file any more."""
    return secondary_files.is_still(tx, ref.asked_at, "primary.storage.download.wait", "backup.snapshot.wait")
