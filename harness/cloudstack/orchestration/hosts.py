"""Hosts: connected with every pool, pinged, their power states read (spec/cloudstack-plugin.md 5.2)."""

from __future__ import annotations

import logging

from harness.cloudstack import settings
from harness.cloudstack.orchestration import objects
from harness.cloudstack.orchestration.agents import ask
from harness.cloudstack.orchestration.context import Context
from harness.cloudstack.orchestration.encryption import set_host_encrypts
from harness.cloudstack.orchestration.vm import VmManager
from harness.cloudstack.primary import default_driver
from harness.cloudstack.primary.drivers import is_default
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.inventory import CLUSTER_ID, NOT_SET
from harness.cloudstack.records.rows import HostRow, StoragePool, StoragePoolHost
from harness.spi.commands import PingAnswer, PingCommand
from harness.spi.errors import Error, InvalidParameter, Unavailable
from harness.spi.objects import DataStore, Host

_log = logging.getLogger("harness.cloudstack.hosts")

PING_WAIT = 10.0


class HostManager:
    def __init__(self, context: Context, vms: VmManager, ping_interval: float) -> None:
        """`ping_interval` is how often somebody calls `poll`, in seconds."""
        self._context = context
        self._vms = vms
        self._ping_interval = ping_interval
        self._unanswered: dict[int, float] = {}
        """When the first ping since a host's last answer was sent; only the ping task works on it."""

    def silent_for(self, host_id: int) -> float:
        """Seconds that polls have not been answered; those in which nobody polled do not count."""
        since = self._unanswered.get(host_id)
        return 0.0 if since is None else self._context.runtime.monotonic() - since

    def patience(self, tx: Transaction, host: HostRow) -> float:
        """Seconds without an answer after which the host is Down."""
        intervals = settings.value(tx, settings.PING_TIMEOUT, zone_id=host.data_center_id)
        return self._ping_interval * float(intervals or 0)

    def poll(self) -> None:
        """Ping every host once; connect those that were away, and pools that were not usable before."""
        with self._context.records.read() as tx:
            hosts = tx.all(HostRow)
        for host in hosts:
            asked = self._context.runtime.monotonic()
            if self.ping(host):
                self._unanswered.pop(host.id, None)
            else:
                self._unanswered.setdefault(host.id, asked)

    def ping(self, host: HostRow) -> bool:
        """Whether it answered. Up or Down follows from that; from the answer, the power states of the host's VMs."""
        before = self._vms.running_on(host.id)
        endpoint = self._context.agents.configured(host.name)
        try:
            if endpoint is None:
                raise Error(f"host {host.name} has no agent in the configuration")
            answer = ask(endpoint, PingCommand(wait=PING_WAIT))
            if not isinstance(answer, PingAnswer):
                raise Error(f"{endpoint.name} answered a ping with {type(answer).__name__}")
        except Error as error:
            self._silent(host, error)
            return False
        self._context.agents.progress.told(host.name, answer.copies)
        self._answered(host, answer)
        self._connect_pools(host.id)
        self._vms.power_report(host.id, answer.vms, before)
        return True

    def connect_pool(self, host_id: int, pool_id: int) -> None:
        """The host listener's work for one host and pool; raises when the host cannot use the pool."""
        with self._context.records.read() as tx:
            row = tx.get(HostRow, host_id)
            pool = objects.pool_store(tx, pool_id)
        connected = self._listen(host_object(row), pool)
        with self._context.records.transaction("pool connected") as tx:
            client = connected.storpool_client_id
            details = tx.details("cluster_details", row.cluster_id)
            if connected.storpool_cluster_id is not None and details.get(CLUSTER_ID) in (None, "", NOT_SET):
                tx.set_detail("cluster_details", row.cluster_id, CLUSTER_ID, connected.storpool_cluster_id)
            if not is_default(pool):
                tx.update(tx.get(HostRow, host_id), parent=None if client is None else str(client))
            if tx.find(StoragePoolHost, pool_id=pool_id, host_id=host_id) is None:
                tx.insert(
                    StoragePoolHost(pool_id=pool_id, host_id=host_id, local_path=tx.get(StoragePool, pool_id).path)
                )

    def _listen(self, host: Host, pool: DataStore) -> Host:
        """What the listener of the pool's provider does."""
        if is_default(pool):
            default_driver.connect(self._context.agents, host.id, pool)
            return host
        return self._context.provider.host_listener.host_connected(host, pool)

    def reconnect(self, host_id: int) -> None:
        """Forget what the host has connected, ping it, and connect every pool anew; raises when one cannot be."""
        with self._context.records.transaction("host reconnect") as tx:
            host = tx.get(HostRow, host_id)
            tx.execute("DELETE FROM storage_pool_host_ref WHERE host_id = ?", (host_id,))
        self.ping(host)
        with self._context.records.read() as tx:
            host = tx.get(HostRow, host_id)
        if host.status != "Up":
            raise Unavailable(f"host {host.name} does not answer; it is {host.status}")
        failures = self._connect_pools(host_id)
        if failures:
            raise Error(f"host {host.name} is connected, but cannot use every storage pool: {'; '.join(failures)}")

    def maintain(self, host_id: int) -> None:
        """Enabled -> Maintenance, for a host that no VM is on. VMs are not migrated by it."""
        with self._context.records.transaction("host maintenance") as tx:
            host = tx.get(HostRow, host_id)
            check_host_maintainable(tx, host)
            tx.update(host, resource_state="Maintenance")

    def cancel_maintenance(self, host_id: int) -> None:
        """Maintenance -> Enabled; pools that were added meanwhile are connected now (#9295)."""
        with self._context.records.transaction("host maintenance ends") as tx:
            host = tx.get(HostRow, host_id)
            if host.resource_state != "Maintenance":
                raise InvalidParameter(f"host {host.name} is not in maintenance; it is {host.resource_state}")
            tx.update(host, resource_state="Enabled")
            tx.execute("DELETE FROM storage_pool_host_ref WHERE host_id = ?", (host_id,))
        self._connect_pools(host_id)

    def _connect_pools(self, host_id: int) -> list[str]:
        """Why the host cannot use pools that it should."""
        with self._context.records.read() as tx:
            host = tx.get(HostRow, host_id)
            if host.resource_state != "Enabled":
                return []
            connected = {ref.pool_id for ref in tx.all(StoragePoolHost, host_id=host_id)}
            pools = tx.all(StoragePool, removed=None, status="Up", data_center_id=host.data_center_id)
        failures = []
        for pool in pools:
            if pool.id in connected or not serves(pool, host):
                continue
            try:
                self.connect_pool(host_id, pool.id)
            except Error as error:
                _log.warning("host %s cannot use storage pool %s: %s", host_id, pool.name, error)
                failures.append(f"{pool.name}: {error}")
        return failures

    def _answered(self, host: HostRow, answer: PingAnswer) -> None:
        with self._context.records.transaction("host answered") as tx:
            row = tx.get(HostRow, host.id)
            if row.status != "Up":
                # What a host that was away still has connected is not known: its listener runs again.
                tx.execute("DELETE FROM storage_pool_host_ref WHERE host_id = ?", (host.id,))
            tx.update(row, status="Up", last_ping=tx.now, fenced=False)
            set_host_encrypts(tx, row.id, answer.volume_encryption)

    def _silent(self, host: HostRow, error: Error) -> None:
        with self._context.records.transaction("host silent") as tx:
            row = tx.get(HostRow, host.id)
            if row.status == "Up" and tx.now - row.last_ping < self.patience(tx, row):
                return
            if row.status != "Down":
                _log.warning("host %s is Down: %s", host.name, error)
                tx.update(row, status="Down")


def serves(pool: StoragePool, host: HostRow) -> bool:
    """Whether the pool is for this host: one of the zone, or of the host's cluster."""
    return pool.data_center_id == host.data_center_id and pool.cluster_id in (None, host.cluster_id)


def host_object(row: HostRow) -> Host:
    client = int(row.parent) if row.parent and row.parent.isdigit() else None
    return Host(id=row.id, uuid=row.uuid, name=row.name, cluster_id=row.cluster_id, storpool_client_id=client)


def check_host_maintainable(tx: Transaction, host: HostRow) -> None:
    if host.resource_state != "Enabled":
        raise InvalidParameter(f"host {host.name} cannot go into maintenance: it is {host.resource_state}")
    count = tx.integer("SELECT COUNT(*) FROM vm_instance WHERE host_id = ? AND removed IS NULL", (host.id,))
    if count:
        raise InvalidParameter(
            f"host {host.name} cannot go into maintenance: {count} VMs are on it; migrate or stop them first"
        )
