"""A running VM goes to another host, and volumes of it to other pools (spec/cloudstack-plugin.md 4.18b).

CloudStack makes a new volume for each and copies it through QEMU; a failure leaves rows in Migrating and volumes behind
(weakness 22). Within a StorPool cluster nothing is copied: each volume is placed by another StorPool template, one
after the other, and the host comes last. What fails is taken back, volume by volume.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.cloudstack.orchestration.context import Context
from harness.cloudstack.orchestration.migration import MigrationManager
from harness.cloudstack.orchestration.storage_migration import Move, StorageMigrationManager
from harness.cloudstack.records.rows import Volume
from harness.spi.errors import Error, Unknown


class VolumesMigrationManager:
    """Each volume is on one pool, and the VM on one host, at every moment: a server that dies leaves what was done."""

    def __init__(self, context: Context, vms: MigrationManager, volumes: StorageMigrationManager) -> None:
        self._context = context
        self._vms = vms
        self._volumes = volumes

    def migrate(self, vm_id: int, host_id: int | None, pools: Mapping[int, int]) -> None:
        """`pools` by volume. After an error nothing has changed, unless its text says otherwise, or it is `Unknown`."""
        before: list[tuple[int, int]] = []
        try:
            for volume_id, pool_id in pools.items():
                with self._context.records.read() as tx:
                    now = tx.get(Volume, volume_id).pool_id
                self._volumes.migrate(volume_id, Move(pool_id=pool_id, live=True))
                if now is not None:
                    before.append((volume_id, now))
            if host_id is not None:
                self._vms.migrate(vm_id, host_id)
        except Unknown:
            # The guest may be at the other host: whoever looks at it decides about the volumes, too.
            raise
        except Error as error:
            self._take_back(before, error)
            raise

    def _take_back(self, before: list[tuple[int, int]], error: Error) -> None:
        left = []
        for volume_id, pool_id in reversed(before):
            try:
                self._volumes.migrate(volume_id, Move(pool_id=pool_id, live=True))
            except Error as problem:
                left.append(str(problem))
        if left:
            error.args = (f"{error}; not all volumes are on their pools of before: {'; '.join(left)}",)
