"""The storage cleanup task's part for templates: cached copies that nothing uses leave their pools
(spec/cloudstack-plugin.md section 6)."""

from __future__ import annotations

import logging

from harness.cloudstack import settings
from harness.cloudstack.orchestration.context import Context
from harness.cloudstack.orchestration.template import TemplateManager, is_used
from harness.cloudstack.records.rows import TemplatePool
from harness.spi.errors import Error
from harness.spi.states import StoreRefState

_log = logging.getLogger("harness.cloudstack.template")


class TemplateCollector:
    """As in CloudStack a copy is marked by one round and evicted by the next, unless it was used between them."""

    def __init__(self, context: Context, templates: TemplateManager) -> None:
        self._context = context
        self._templates = templates
        self._last: float | None = None

    def tend(self) -> None:
        """A round, when `storage.cleanup.interval` has passed since the last; the first comes at a random time, so that
        it comes also where servers are started again often."""
        with self._context.records.read() as tx:
            interval = settings.seconds(tx, "storage.cleanup.interval")
            switches = ("storage.cleanup.enabled", "storage.template.cleanup.enabled")
            wanted = all(settings.flag(tx, name) for name in switches)
        now = self._context.runtime.monotonic()
        if self._last is None:
            self._last = now - self._context.runtime.random() * interval
        if wanted and interval > 0 and now - self._last >= interval:
            self._last = now
            self.collect()

    def collect(self) -> None:
        """One round. What cannot be evicted is tried again by the next."""
        with self._context.records.read() as tx:
            entries = [
                entry
                for entry in tx.all(TemplatePool)
                if entry.state in (StoreRefState.READY, StoreRefState.DESTROYING)
            ]
        for entry in entries:
            try:
                self._look_at(entry)
            except Error as error:
                _log.warning("template %s stays on pool %s for now: %s", entry.template_id, entry.pool_id, error)

    def _look_at(self, entry: TemplatePool) -> None:
        if entry.marked_for_gc or entry.state is StoreRefState.DESTROYING:
            self._templates.evict(entry.template_id, entry.pool_id, unused_only=True)
            return
        with self._context.records.transaction("template marked") as tx:
            now = tx.find(TemplatePool, id=entry.id)
            if now is not None and not is_used(tx, entry.template_id, entry.pool_id):
                tx.update(now, marked_for_gc=True)
