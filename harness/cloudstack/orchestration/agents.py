"""Agents of the KVM hosts, and the framework's choice among them (spec/cloudstack-plugin.md section 1.5)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from harness.cloudstack.orchestration.encryption import CAPABLE_HOST, with_passphrases
from harness.cloudstack.orchestration.errors import checked
from harness.cloudstack.progress import JobProgress, WatchedEndpoint
from harness.cloudstack.records import Records
from harness.cloudstack.records.inventory import CLUSTER_ID
from harness.cloudstack.records.passphrases import Passphrases
from harness.cloudstack.records.rows import HostRow, Sequence
from harness.spi.commands import AnyAnswer, AnyCommand
from harness.spi.errors import InsufficientCapacity, NotFound, Unavailable
from harness.spi.objects import DataStore
from harness.spi.ports import Endpoint
from harness.spi.runtime import Runtime

USABLE = "status = 'Up' AND resource_state = 'Enabled'"
ANSWER_GRACE = 15.0
"""Seconds an answer may take beyond the time that the agent may work."""
STARTS = "management.server.starts"
"""Name of the sequence that grows with every start of a management server, by the seconds since the one before."""
COMMANDS_A_START = 1 << 30
"""So many before the next start comes. Seconds times this fit 63 bits until the year 2242."""


class Agents:
    """Implements `harness.spi.driver.HostEndpoints`."""

    def __init__(
        self, runtime: Runtime, records: Records, endpoints: Mapping[str, Endpoint], passphrases: Passphrases
    ) -> None:
        self._runtime = runtime
        self._records = records
        self.progress = JobProgress(runtime)
        self._endpoints = {name: WatchedEndpoint(endpoint, self.progress) for name, endpoint in endpoints.items()}
        self._passphrases = passphrases
        self._guard = runtime.lock("command sequence")
        self._last_sequence = 0

    def select(
        self,
        pool: DataStore,
        storpool_cluster_id: str | None = None,
        *,
        encrypting: bool = False,
        also: DataStore | None = None,
    ) -> Endpoint:
        """An agent of any usable host that has the pool connected, as CloudStack in no fixed order.

        Of the CloudStack cluster with exactly this `sp.cluster.id`, if one of its hosts will do.
        """
        capable = f" AND {CAPABLE_HOST}" if encrypting else ""
        pools = [pool] if also is None else [pool, also]
        connected = " AND id IN (SELECT host_id FROM storage_pool_host_ref WHERE pool_id = ?)" * len(pools)
        with self._records.read() as tx:
            hosts = tx.select(
                HostRow,
                f"{USABLE}{connected}{capable} ORDER BY id",
                tuple(each.id for each in pools),
            )
            clusters = {host.cluster_id: tx.details("cluster_details", host.cluster_id) for host in hosts}
        near = [host for host in hosts if clusters[host.cluster_id].get(CLUSTER_ID) == storpool_cluster_id]
        hosts = near or hosts
        if not hosts and encrypting:
            raise InsufficientCapacity(
                f"no host that is Up and Enabled has storage pool {pool.name} connected and supports encrypted"
                " volumes; see encryptionsupported in listHosts, and install cryptsetup on a host"
            )
        if not hosts:
            names = " and ".join(each.name for each in pools)
            raise InsufficientCapacity(
                f"no host that is Up and Enabled has storage pool {names} connected; see listHosts and the agents"
            )
        return self._endpoint(hosts[int(self._runtime.random() * len(hosts))])

    def host(self, host_id: int) -> Endpoint:
        """The agent of a host that is Up and Enabled."""
        with self._records.read() as tx:
            row = tx.find(HostRow, id=host_id)
        if row is None:
            raise NotFound(f"there is no host {host_id}")
        if row.status != "Up" or row.resource_state != "Enabled":
            raise Unavailable(f"host {row.name} is {row.status} and {row.resource_state}; its agent gets no commands")
        return self._endpoint(row)

    def named(self, name: str) -> Endpoint:
        with self._records.read() as tx:
            rows = tx.select(HostRow, "name = ? AND status = 'Up'", (name,))
        if not rows:
            raise Unavailable(f"there is no host {name} that is Up")
        return self._endpoint(rows[0])

    def configured(self, name: str) -> Endpoint | None:
        """The agent of a host whatever its state, or None when the host has none."""
        return self._endpoints.get(name)

    def send(self, host_id: int, command: AnyCommand) -> AnyAnswer:
        """Deliver a command to a host; raises what a negative answer stands for (`checked`).

        With the passphrases of encrypted disks that are about to be opened there: nobody else has them in his hands.
        """
        endpoint = self.host(host_id)
        command = with_passphrases(self._records, self._passphrases, command)
        return ask(endpoint, msgspec.structs.replace(command, sequence=self._next_sequence()))

    def tell(self, host_id: int, command: AnyCommand) -> AnyAnswer:
        return self.send(host_id, command)

    def _next_sequence(self) -> int:
        """Later than every number that this server, or one before it, has given."""
        with self._guard:
            if not self._last_sequence:
                with self._records.read() as tx:
                    starts = tx.find(Sequence, name=STARTS)
                self._last_sequence = (starts.value if starts else 0) * COMMANDS_A_START
            self._last_sequence += 1
            return self._last_sequence

    def _endpoint(self, host: HostRow) -> Endpoint:
        found = self._endpoints.get(host.name)
        if found is None:
            raise Unavailable(f"host {host.name} has no agent in the configuration")
        return found


def ask(endpoint: Endpoint, command: AnyCommand) -> AnyAnswer:
    """Send and check."""
    return checked(endpoint.send(command, timeout=command.wait + ANSWER_GRACE), endpoint.name)
