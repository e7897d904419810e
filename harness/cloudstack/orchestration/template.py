"""Templates: fetched to the image store by the secondary storage role, cached on a pool at their first use there
(spec/cloudstack-plugin.md section 6)."""

from __future__ import annotations

import logging

from harness.cloudstack import settings
from harness.cloudstack.orchestration import objects
from harness.cloudstack.orchestration.agents import USABLE, ask
from harness.cloudstack.orchestration.context import Context
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import HostRow, Template, TemplatePool, TemplateStore, Volume
from harness.spi.commands import CheckUrlAnswer, CheckUrlCommand, DownloadAnswer, DownloadCommand
from harness.spi.errors import Error, InsufficientCapacity, NotFound, Unavailable, Unknown
from harness.spi.objects import DataStore, TemplateObject, VolumeObject
from harness.spi.states import StoreRefEvent, StoreRefState

_log = logging.getLogger("harness.cloudstack.template")

CHECK_URL_WAIT = 30.0
DOWNLOAD_WAIT = 3600.0
"""Seconds the secondary storage role may fetch one image."""


class TemplateManager:
    def __init__(self, context: Context) -> None:
        self._context = context

    def fetch(self, template_id: int) -> None:
        """Have the secondary storage role fetch the template; the outcome is in `template_store_ref`.

        Called again after a restart, it fetches again what was not finished.
        """
        with self._context.records.transaction("template download") as tx:
            ref = tx.find(TemplateStore, template_id=template_id)
            template = tx.get(Template, template_id)
            if ref is None or ref.state not in (StoreRefState.ALLOCATED, StoreRefState.CREATING):
                return
            ref = tx.update(ref, asked_at=tx.now)
            if ref.state is StoreRefState.ALLOCATED:
                ref = tx.transition(ref, StoreRefEvent.CREATE_ONLY_REQUESTED, download_state="DOWNLOAD_IN_PROGRESS")
            store = objects.image_store(tx, ref.store_id)
        try:
            answer = self._download(template, ref, store)
        except Error as error:
            self._not_fetched(ref, error)
            return
        with self._context.records.transaction("template downloaded") as tx:
            size = answer.virtual_size or 0
            tx.transition(
                ref,
                StoreRefEvent.OPERATION_SUCCEEDED,
                download_state="DOWNLOADED",
                install_path=answer.install_path or ref.install_path,
                size=size,
                physical_size=answer.physical_size or 0,
                error_str=None,
            )
            tx.update(template, size=size)

    def direct_size(self, url: str) -> int:
        """Bytes of the disk at a URL that hosts are to fetch themselves, as the first of them that answers says."""
        with self._context.records.read() as tx:
            hosts = tx.select(HostRow, f"{USABLE} ORDER BY id")
        problem: Error = InsufficientCapacity("no host is Up and Enabled to look at the template's URL")
        for host in hosts:
            try:
                answer = self._context.agents.send(host.id, CheckUrlCommand(url=url, wait=CHECK_URL_WAIT))
            except (Unavailable, Unknown) as error:
                problem = error
                continue
            if isinstance(answer, CheckUrlAnswer):
                return answer.virtual_size
        raise problem

    def clone(self, volume: Volume) -> VolumeObject:
        """Make the volume, which has a pool, from its template; seeds the pool's cache first where that is needed.

        The cache entry's lock is held by clones too, so that nobody evicts it meanwhile. A cached snapshot that
        StorPool has lost is seeded once more.
        """
        template_id, pool_id = volume.template_id, volume.pool_id
        if template_id is None or pool_id is None:
            raise NotFound(f"volume {volume.name} has no template or no pool")
        with self._context.records.read() as tx:
            patience = settings.seconds(tx, "storage.pool.max.waitseconds")
        with self._context.template_locks.hold(f"{template_id} on pool {pool_id}", patience):
            self._finish_eviction(template_id, pool_id)
            source = self._cached(template_id, pool_id) or self._seed(template_id, pool_id)
            try:
                return self._copy_to_volume(source, volume)
            except NotFound as error:
                _log.warning("template %s on pool %s is gone, seeding it again: %s", source.name, pool_id, error)
            self._forget(template_id, pool_id)
            return self._copy_to_volume(self._seed(template_id, pool_id), volume)

    def evict(self, template_id: int, pool_id: int, *, unused_only: bool = False) -> None:
        """Delete the template's cached snapshot from the pool; volumes cloned from it are not touched."""
        with self._context.records.read() as tx:
            patience = settings.seconds(tx, "storage.pool.max.waitseconds")
        with self._context.template_locks.hold(f"{template_id} on pool {pool_id}", patience):
            with self._context.records.transaction("template evict") as tx:
                entry = tx.find(TemplatePool, pool_id=pool_id, template_id=template_id)
                if entry is None:
                    return
                if unused_only and entry.state is StoreRefState.READY and is_used(tx, template_id, pool_id):
                    tx.update(entry, marked_for_gc=False)
                    return
                tx.transition(entry, StoreRefEvent.DESTROY_REQUESTED)
            self._finish_eviction(template_id, pool_id)

    def _finish_eviction(self, template_id: int, pool_id: int) -> None:
        """Of an entry that is Destroying, also one that an eviction left which failed. The caller holds its lock."""
        with self._context.records.read() as tx:
            entry = tx.find(TemplatePool, pool_id=pool_id, template_id=template_id, state=StoreRefState.DESTROYING)
            if entry is None:
                return
            item = objects.template_on_pool(tx, entry)
        if item.path is not None:
            self._context.driver.delete(item)
        with self._context.records.transaction("template evicted") as tx:
            tx.delete(tx.transition(entry, StoreRefEvent.OPERATION_SUCCEEDED))

    def _download(self, template: Template, ref: TemplateStore, store: DataStore) -> DownloadAnswer:
        wanted = TemplateObject(
            id=template.id,
            uuid=template.uuid,
            name=template.name,
            format=template.format,
            size=0,
            store=store,
            path=ref.install_path,
        )
        command = DownloadCommand(template=wanted, url=template.url, checksum=template.checksum, wait=DOWNLOAD_WAIT)
        answer = ask(self._context.secondary, command)
        if not isinstance(answer, DownloadAnswer) or not answer.virtual_size:
            raise Error(f"{self._context.secondary.name} answered a DownloadCommand without the image's size")
        return answer

    def _not_fetched(self, ref: TemplateStore, error: Error) -> None:
        with self._context.records.transaction("template not downloaded") as tx:
            ref = tx.transition(ref, StoreRefEvent.OPERATION_FAILED, download_state="DOWNLOAD_ERROR")
            tx.transition(ref, StoreRefEvent.OPERATION_FAILED, error_str=str(error))

    def _cached(self, template_id: int, pool_id: int) -> TemplateObject | None:
        with self._context.records.read() as tx:
            entry = tx.find(TemplatePool, pool_id=pool_id, template_id=template_id, state=StoreRefState.READY)
        if entry is not None and entry.marked_for_gc:
            with self._context.records.transaction("template used") as tx:
                entry = tx.update(entry, marked_for_gc=False)
        with self._context.records.read() as tx:
            return objects.template_on_pool(tx, entry) if entry else None

    def _seed(self, template_id: int, pool_id: int) -> TemplateObject:
        """Copy the template from the image store to the pool; the entry goes Allocated, Creating, Ready."""
        entry, source, destination = self._begin_seed(template_id, pool_id)
        try:
            made = self._context.driver.copy(source, destination)
        except Error:
            with self._context.records.transaction("template not seeded") as tx:
                # The row goes, as in CloudStack, so that whoever waits begins with a new one.
                tx.delete(tx.transition(entry, StoreRefEvent.OPERATION_FAILED))
            raise
        with self._context.records.transaction("template seeded") as tx:
            entry = tx.transition(
                entry,
                StoreRefEvent.OPERATION_SUCCEEDED,
                local_path=made.path,
                install_path=made.path,
                template_size=made.size,
                download_state="DOWNLOADED",
            )
            return objects.template_on_pool(tx, entry)

    def _begin_seed(self, template_id: int, pool_id: int) -> tuple[TemplatePool, TemplateObject, TemplateObject]:
        with self._context.records.transaction("template seed") as tx:
            source = objects.template_on_image_store(tx, template_id)
            entry = tx.find(TemplatePool, pool_id=pool_id, template_id=template_id)
            if entry is None:
                entry = tx.insert(
                    TemplatePool(
                        pool_id=pool_id,
                        template_id=template_id,
                        state=StoreRefState.ALLOCATED,
                        download_state="NOT_DOWNLOADED",
                        local_path=None,
                        install_path=None,
                        template_size=source.size,
                    )
                )
            if entry.state is StoreRefState.ALLOCATED:
                entry = tx.transition(entry, StoreRefEvent.CREATE_ONLY_REQUESTED)
            return entry, source, objects.template_on_pool(tx, entry)

    def _forget(self, template_id: int, pool_id: int) -> None:
        with self._context.records.transaction("template lost") as tx:
            entry = tx.find(TemplatePool, pool_id=pool_id, template_id=template_id)
            if entry is not None:
                entry = tx.transition(entry, StoreRefEvent.DESTROY_REQUESTED)
                tx.delete(tx.transition(entry, StoreRefEvent.OPERATION_SUCCEEDED))

    def _copy_to_volume(self, source: TemplateObject, volume: Volume) -> VolumeObject:
        with self._context.records.read() as tx:
            destination = objects.volume_object(tx, volume)
        made = self._context.driver.copy(source, destination)
        if not isinstance(made, VolumeObject):
            raise Error(f"the driver answered a copy to volume {volume.name} with something else")
        return made


def is_used(tx: Transaction, template_id: int, pool_id: int) -> bool:
    """Whether a volume on the pool that is not gone was made from the template."""
    sql = "SELECT 1 FROM volumes WHERE removed IS NULL AND template_id = ? AND pool_id = ? LIMIT 1"
    return tx.scalar(sql, (template_id, pool_id), Volume.TABLE) is not None
