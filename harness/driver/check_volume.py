"""The small volume whose attachment proves that a host reaches StorPool; one for each pool and CloudStack cluster."""

from __future__ import annotations

from contextlib import AbstractContextManager

from harness.driver import tags
from harness.driver.creation import Creation
from harness.driver.operations import Operation, Operations
from harness.driver.pools import CHECK_VOLUME_DETAIL, Pool, Pools
from harness.driver.removal import remover
from harness.spi.driver import DriverRecords
from harness.spi.errors import Error, InvalidParameter, Unknown
from harness.spi.objects import device_path, storpool_id
from harness.storpool import StorPoolClient, VolumeCreateDesc, exists

SIZE = 512
DETAIL = CHECK_VOLUME_DETAIL


def use(pool_id: int, detail: str, host_id: int) -> str:
    """What is held while this host is asked to attach the check volume."""
    return f"pool:{pool_id}/{detail}/host:{host_id}"


class CheckVolumes:
    """Finds or makes the check volume. Steps: create, made. Hosts share it, so it is never removed because of one."""

    kind = "check-volume"

    def __init__(self, operations: Operations, pools: Pools, records: DriverRecords) -> None:
        self._operations = operations
        self._pools = pools
        self._records = records

    def path(self, pool_id: int, cluster_id: int) -> str:
        """Device path of the check volume; made anew when StorPool lost it."""
        pool = self._pools.get(pool_id)
        key = f"{DETAIL}{cluster_id}"
        with self._operations.exclusive(f"pool:{pool_id}/{key}"):
            path = self._records.pool_details(pool_id).get(key)
            if path is None or not exists(pool.client.volume, storpool_id(path)):
                path = self._make(pool, key)
            return path

    def in_use(self, pool_id: int, cluster_id: int, host_id: int) -> AbstractContextManager[None]:
        """While the host may have the check volume attached because it was asked to."""
        return self._operations.exclusive(use(pool_id, f"{DETAIL}{cluster_id}", host_id))

    def check(self, pool_id: int, client: StorPoolClient) -> None:
        """Whether the client reaches the cluster that the pool is on: the one that has its check volumes."""
        for key, path in sorted(self._records.pool_details(pool_id).items()):
            if not key.startswith(DETAIL):
                continue
            if not exists(client.volume, storpool_id(path)):
                raise InvalidParameter(
                    f"pool {pool_id}: the StorPool API at the new address does not have the pool's volume {path}, so it"
                    " is of another cluster; add another pool"
                )

    def remove(self, pool_id: int) -> None:
        """Delete the pool's check volumes, which no host needs any more. Never by force; one that is gone is done.

        The detail goes last: whoever asks again after a lost answer finds it, and asks for the same volume.
        """
        pool = self._pools.get(pool_id)
        for key, path in sorted(self._records.pool_details(pool_id).items()):
            if not key.startswith(DETAIL):
                continue
            with self._operations.exclusive(f"pool:{pool_id}/{key}"):
                remover(pool.client, "volume")(storpool_id(path))
                self._records.set_pool_detail(pool_id, key, None)

    def recover(self, operation: Operation) -> str:
        pool = self._pools.get(int(operation.data["pool"]))
        creation = Creation(self._operations, operation, "volume", pool.client)
        recorded = self._records.pool_details(pool.id).get(operation.data["detail"])
        if creation.global_id is not None and recorded == device_path(creation.global_id):
            operation.done()
            return f"{operation}: done"
        doubt = creation.doubt()
        if doubt is not None:
            return f"{operation}: {doubt}"
        if not creation.unmake(remover(pool.client, "volume")):
            return f"{operation}: nothing there; open until a lost create can no longer arrive"
        operation.undone()
        return f"{operation}: undone"

    def _make(self, pool: Pool, key: str) -> str:
        def send(name: str) -> str:
            desc = VolumeCreateDesc(name=name, size=SIZE, template=pool.template, tags=dict(tags.CHECK_VOLUME))
            return pool.client.volume_create(desc).global_id

        data = {"pool": str(pool.id), "detail": key}
        operation = self._operations.begin(self.kind, f"pool:{pool.id}/{key}", "create", data)
        creation = Creation(self._operations, operation, "volume", pool.client)
        try:
            path = device_path(creation.make(send, "made"))
        except Unknown:
            raise
        except Error:
            if creation.settled:
                operation.undone()
            raise
        self._records.set_pool_detail(pool.id, key, path)
        # It keeps its name, so a lost create cannot make a second one.
        operation.done()
        return path
