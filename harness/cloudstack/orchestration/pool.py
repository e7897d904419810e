"""Primary storage pools: added, put into maintenance and taken out of it, deleted (spec/cloudstack-plugin.md 5.1).

States: Initialized, Up, Disabled, PrepareForMaintenance, Maintenance, ErrorInMaintenance, Removed; and Error of a pool
that could not be added, until nothing of it is left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from harness.cloudstack.orchestration.context import LOCK_TIMEOUT, Context
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.orchestration.hosts import HostManager, serves
from harness.cloudstack.orchestration.template import TemplateManager
from harness.cloudstack.orchestration.vm import VmManager
from harness.cloudstack.orchestration.volume import VolumeManager
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.inventory import POOL_DETAIL
from harness.cloudstack.records.rows import (
    HostRow,
    StoragePool,
    StoragePoolTag,
    StoragePoolWork,
    TemplatePool,
    Vm,
    Volume,
    Zone,
)
from harness.spi.driver import PoolDescription, PoolRequest
from harness.spi.errors import Conflict, Error, InvalidParameter, Unavailable
from harness.spi.locks import KeyedLocks
from harness.spi.states import VmState

_log = logging.getLogger("harness.cloudstack.pool")

GOING = (VmState.STARTING, VmState.RUNNING, VmState.STOPPING, VmState.MIGRATING)


class PoolManager:
    """One operation at a time on a pool, and one adding of a pool: the provider compares a new one with all others."""

    def __init__(
        self,
        context: Context,
        vms: VmManager,
        volumes: VolumeManager,
        templates: TemplateManager,
        hosts: HostManager,
    ) -> None:
        self._context = context
        self._vms = vms
        self._volumes = volumes
        self._templates = templates
        self._hosts = hosts
        self._locks = KeyedLocks(context.runtime, "pool")

    def add(self, wanted: PoolRequest, zone: Zone) -> StoragePool:
        """Check the pool with its provider, record it, connect it on every host that is Up. Up, or nothing is left."""
        with self._locks.hold("add", LOCK_TIMEOUT):
            with self._context.records.read() as tx:
                if tx.find(StoragePool, name=wanted.name, removed=None):
                    raise InvalidParameter(f"a storage pool named {wanted.name} exists already")
            description = self._context.provider.life_cycle.initialize(wanted)
            with self._context.records.transaction("storage pool") as tx:
                row = self._insert(tx, wanted, description, zone)
            return self._connect(row)

    def add_by(self, insert: Callable[[Transaction], StoragePool]) -> StoragePool:
        """As `add`, for a pool of CloudStack's own provider, whose row `insert` makes."""
        with self._locks.hold("add", LOCK_TIMEOUT):
            with self._context.records.transaction("storage pool") as tx:
                row = insert(tx)
            return self._connect(row)

    def maintain(self, pool_id: int) -> StoragePool:
        """Stop every VM that has a volume on the pool, then Maintenance; ErrorInMaintenance when one cannot be."""
        with self._locks.hold(str(pool_id), LOCK_TIMEOUT):
            with self._context.records.transaction("storage pool maintenance") as tx:
                row = tx.get(StoragePool, pool_id)
                check_maintainable(tx, row)
                row = tx.update(row, status="PrepareForMaintenance")
                vms = _vms_on(tx, pool_id)
                for vm in vms:
                    if tx.find(StoragePoolWork, pool_id=pool_id, vm_id=vm.id) is None:
                        tx.insert(StoragePoolWork(pool_id=pool_id, vm_id=vm.id))
            try:
                for vm in vms:
                    self._vms.stop(vm.id)
            except Error as error:
                self._set(row, "ErrorInMaintenance")
                raise reworded(error, f"Unable to put pool {row.name} into maintenance; {error}") from error
            return self._set(row, "Maintenance")

    def cancel(self, pool_id: int) -> StoragePool:
        """Connect the pool on every host again, then Up, and start the VMs that were stopped for the maintenance.

        Hosts that came back meanwhile have not connected a pool in maintenance: that is why all are asked (#11764).
        """
        with self._locks.hold(str(pool_id), LOCK_TIMEOUT):
            with self._context.records.transaction("storage pool maintenance ends") as tx:
                row = tx.get(StoragePool, pool_id)
                check_cancellable(row)
                tx.execute("DELETE FROM storage_pool_host_ref WHERE pool_id = ?", (pool_id,))
            failures = self._connect_hosts(row)
            if failures and not self._connected(pool_id):
                raise Unavailable(
                    f"Unable to establish connection from any host to pool {row.name}: {'; '.join(failures)}"
                )
            row = self._set(row, "Up")
            self._start_vms(pool_id)
            return row

    def delete(self, pool_id: int, *, forced: bool) -> None:
        """Remove what the provider and the template cache have on the pool, then the pool.

        `forced` expunges volumes that are destroyed and not expunged yet. May be called again after an error.
        """
        with self._locks.hold(str(pool_id), LOCK_TIMEOUT):
            with self._context.records.read() as tx:
                row = tx.get(StoragePool, pool_id)
                check_deletable(tx, row, forced=forced)
                destroyed = tx.all(Volume, pool_id=pool_id, removed=None)
            for volume in destroyed:
                self._volumes.expunge(volume.id)
            self._take_off(row)

    def change_connection(self, pool_id: int, url: str) -> None:
        """Another token, or other addresses of the same StorPool cluster; after an error the old ones are used on."""
        with self._locks.hold(str(pool_id), LOCK_TIMEOUT):
            details = self._context.provider.life_cycle.change_connection(pool_id, url)
            with self._context.records.transaction("storage pool connection") as tx:
                tx.get(StoragePool, pool_id)
                for key, value in details.items():
                    tx.set_detail("storage_pool_details", pool_id, key, value)

    def settle(self) -> None:
        """Now and then: finish what a server left that died; start VMs that were stopped for a maintenance."""
        with self._context.records.read() as tx:
            begun = tx.select(StoragePool, "removed IS NULL AND status IN ('Initialized', 'Error') ORDER BY id")
            preparing = tx.all(StoragePool, status="PrepareForMaintenance", removed=None)
            stopped = tx.texts(
                "SELECT DISTINCT CAST(w.pool_id AS TEXT) FROM storage_pool_work w JOIN storage_pool p"
                " ON p.id = w.pool_id WHERE p.status = 'Up'"
            )
        for row in begun:
            self._try("add", self._finish, row.id)
        for row in preparing:
            self._try(str(row.id), self._fail_maintenance, row.id)
        for pool_id in stopped:
            self._try(pool_id, self._start_vms, int(pool_id))

    def _try(self, key: str, work: Callable[[int], None], pool_id: int) -> None:
        try:
            with self._locks.hold(key, 0.0):
                work(pool_id)
        except Conflict:
            return
        except Error as error:
            _log.warning("storage pool %s is left as it was: %s", pool_id, error)

    def _finish(self, pool_id: int) -> None:
        with self._context.records.read() as tx:
            row = tx.get(StoragePool, pool_id)
        if row.status == "Error":
            self._take_off(row)
        elif row.status == "Initialized":
            self._connect(row)

    def _fail_maintenance(self, pool_id: int) -> None:
        """Who asked for it is gone: it can be asked for again, or cancelled."""
        with self._context.records.transaction("storage pool maintenance interrupted") as tx:
            row = tx.get(StoragePool, pool_id)
            if row.status == "PrepareForMaintenance":
                tx.update(row, status="ErrorInMaintenance")

    def _connect(self, row: StoragePool) -> StoragePool:
        failures = self._connect_hosts(row)
        if not failures or self._connected(row.id):
            return self._set(row, "Up")
        row = self._set(row, "Error")
        text = f"No host can use storage pool {row.name}, it was not added: {'; '.join(failures)}"
        try:
            self._take_off(row)
        except Error as error:
            text += f"; what is left of it is removed later: {error}"
        raise Error(text)

    def _connect_hosts(self, row: StoragePool) -> list[str]:
        """Why hosts cannot use the pool; a host that is away is connected when it comes back."""
        with self._context.records.read() as tx:
            hosts = [host for host in tx.all(HostRow, status="Up", resource_state="Enabled") if serves(row, host)]
        failures = []
        for host in hosts:
            try:
                self._hosts.connect_pool(host.id, row.id)
            except Error as error:
                failures.append(f"{host.name}: {error}")
        return failures

    def _connected(self, pool_id: int) -> int:
        with self._context.records.read() as tx:
            return tx.integer("SELECT COUNT(*) FROM storage_pool_host_ref WHERE pool_id = ?", (pool_id,))

    def _take_off(self, row: StoragePool) -> None:
        """Cached templates, then what the provider made, then the rows."""
        with self._context.records.read() as tx:
            cached = tx.all(TemplatePool, pool_id=row.id)
        for entry in cached:
            self._templates.evict(entry.template_id, row.id)
        if row.storage_provider_name == self._context.provider.name:
            self._context.provider.life_cycle.remove(row.id)
        with self._context.records.transaction("storage pool deleted") as tx:
            tx.update(tx.get(StoragePool, row.id), removed=tx.now, status="Removed")
            for table, column in (
                ("storage_pool_host_ref", "pool_id"),
                ("storage_pool_tags", "pool_id"),
                ("storage_pool_work", "pool_id"),
                ("storage_pool_details", "resource_id"),
            ):
                tx.execute(f"DELETE FROM {table} WHERE {column} = ?", (row.id,))

    def _start_vms(self, pool_id: int) -> None:
        with self._context.records.read() as tx:
            works = tx.all(StoragePoolWork, pool_id=pool_id)
        for work in works:
            with self._context.records.read() as tx:
                vm = tx.get(Vm, work.vm_id)
            if vm.removed is None and vm.state is VmState.STOPPED:
                try:
                    self._vms.start(vm.id)
                except Error as error:
                    _log.warning("VM %s was stopped for a maintenance and does not start: %s", vm.instance_name, error)
            with self._context.records.transaction("started after maintenance") as tx:
                tx.delete(work)

    def _set(self, row: StoragePool, status: str) -> StoragePool:
        with self._context.records.transaction(f"storage pool {status}") as tx:
            return tx.update(tx.get(StoragePool, row.id), status=status)

    def _insert(self, tx: Transaction, wanted: PoolRequest, description: PoolDescription, zone: Zone) -> StoragePool:
        row = tx.insert(
            StoragePool(
                uuid=description.uuid,
                name=wanted.name,
                status="Initialized",
                path=description.path,
                scope=wanted.scope,
                storage_provider_name=self._context.provider.name,
                pool_type="StorPool",
                data_center_id=zone.id,
                capacity_bytes=wanted.capacity_bytes or 0,
                capacity_iops=wanted.capacity_iops,
                created=tx.now,
            )
        )
        set_tags(tx, row, description.tags)
        for key, value in description.details.items():
            tx.set_detail("storage_pool_details", row.id, key, value)
        return row


def set_tags(tx: Transaction, row: StoragePool, tags: tuple[str, ...] | list[str]) -> None:
    tx.execute("DELETE FROM storage_pool_tags WHERE pool_id = ?", (row.id,))
    for tag in dict.fromkeys(tags):
        tx.insert(StoragePoolTag(pool_id=row.id, tag=tag))


def check_maintainable(tx: Transaction, row: StoragePool) -> None:
    if row.status not in ("Up", "ErrorInMaintenance"):
        raise InvalidParameter(
            f"Primary storage with id {row.uuid} is not ready for maintenance, as the status is: {row.status}"
        )
    busy = tx.find(StoragePool, status="PrepareForMaintenance", removed=None)
    if busy is not None:
        raise InvalidParameter(f"There already is a storage pool, {busy.name}, in PrepareForMaintenance")


def check_cancellable(row: StoragePool) -> None:
    if row.status not in ("Maintenance", "ErrorInMaintenance"):
        raise InvalidParameter(
            f"Primary storage with id {row.uuid} is not ready to complete maintenance, as the status is: {row.status}"
        )


def check_deletable(tx: Transaction, row: StoragePool, *, forced: bool) -> None:
    """CloudStack's own refusals, and the plugin's: what was snapshotted or is used is never deleted with a pool."""
    if row.status != "Maintenance":
        raise InvalidParameter(
            f"Unable to delete storage due to it is not in Maintenance state, pool: {row.name} is {row.status}"
        )
    volumes = tx.integer("SELECT COUNT(*) FROM volumes WHERE pool_id = ? AND removed IS NULL", (row.id,))
    kept = tx.integer(
        "SELECT COUNT(*) FROM volumes WHERE pool_id = ? AND removed IS NULL AND state != 'Destroy'", (row.id,)
    )
    snapshots = tx.integer(
        "SELECT COUNT(*) FROM snapshot_store_ref WHERE store_role = 'Primary' AND store_id = ?", (row.id,)
    )
    templates = tx.integer(
        "SELECT COUNT(*) FROM vm_template_details WHERE name = ? AND value = ?", (POOL_DETAIL, str(row.id))
    )
    if templates:
        raise InvalidParameter(
            f"Cannot delete pool {row.name} as {templates} templates were made on it and have their StorPool snapshots"
            " there; delete these templates first"
        )
    if kept or snapshots or (volumes and not forced):
        which = "non-destroyed volumes" if forced else "volumes"
        count = kept if forced else volumes
        raise InvalidParameter(
            f"Cannot delete pool {row.name} as there are associated {count} {which} and {snapshots} snapshots for this"
            " pool"
        )


def _vms_on(tx: Transaction, pool_id: int) -> list[Vm]:
    return [
        vm
        for vm in tx.select(
            Vm,
            "removed IS NULL AND id IN (SELECT instance_id FROM volumes WHERE pool_id = ? AND removed IS NULL)"
            " ORDER BY id",
            (pool_id,),
        )
        if vm.state in GOING
    ]
