"""The processes of the memory world, and how each is started from what is durable.

A killed process is started again with the same function: StorPool from its journal, the management server from its
records, an agent from its host's files and domains.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from functools import partial

from harness.agent.agent import Agent
from harness.agent.config import AgentConfig
from harness.agent.following import FollowingTransport
from harness.agent.secondary import QemuNfs
from harness.runtime.generator import Generator
from harness.runtime.process import SimulatedRuntime
from harness.runtime.simulated import Simulation
from harness.storpool import Connection, HostConfiguration, LoggedTransport, Secret, StorPoolClient, Transport
from harness.worlds.memory.bridges import MemoryBridges
from harness.worlds.memory.devices import AllBlocks, HostDevices
from harness.worlds.memory.machine import Machine
from harness.worlds.memory.model_host import ModelHost
from harness.worlds.memory.model_hypervisor import ModelHypervisor
from harness.worlds.memory.model_secondary import ModelExport, ModelSecondaryRole
from harness.worlds.memory.model_storage import Devices
from harness.worlds.memory.prepared import Prepared, PreparedCluster
from harness.worlds.memory.safety import Watched
from harness.worlds.memory.site import FIRST, ONE, ClusterSite, HostSite, Site
from harness.worlds.memory.transports import (
    DyingEffects,
    Listener,
    Network,
    Refusals,
    StorPoolServer,
    StorPoolTransport,
)
from simulator.blocks.memory import MemoryBlocks
from simulator.journal.memory import MemoryJournal
from simulator.service import Service

STORPOOL = FIRST.process
SECONDARY = "secondary"
MANAGEMENT = "management"
HOSTS = ("kvm1", "kvm2")
"""Of every site."""
ENDPOINT = FIRST.endpoint
EXPORT = "nfs://secondary/export"
STORPOOL_TOKEN = FIRST.token
BRIDGE = "cloudbr0"
POOL_BYTES = 4 << 40
"""Of all disks of the StorPool cluster together."""
CALLS = "harness.worlds.memory.StorPool"
"""Loggers of StorPool calls are called so, followed by the process that made them."""
STORPOOL_CONF = "/etc/storpool.conf"


def _server(cluster: StorPoolParts) -> StorPoolServer:
    if cluster.server is None:
        raise RuntimeError(f"{cluster.site.process} was never started")
    return cluster.server


def agent_of(host: str) -> str:
    """Name of the process that is the agent of this host."""
    return f"agent-{host}"


class StorPoolParts:
    """What one StorPool cluster is made of; what is durable outlives its process."""

    def __init__(self, site: Site, index: int, durable: PreparedCluster | None) -> None:
        self.site: ClusterSite = site.clusters[index]
        self.settings = site.settings(index)
        self.blocks = MemoryBlocks(POOL_BYTES) if durable is None else durable.blocks.copy()
        self.journal = MemoryJournal() if durable is None else MemoryJournal(durable.journal)
        self.server: StorPoolServer | None = None


class Processes:
    """Everything beside the management server: StorPool, hosts, agents and the secondary storage role."""

    def __init__(self, simulation: Simulation, prepared: Prepared | None = None, site: Site = ONE) -> None:
        self.simulation = simulation
        self.site = site
        self.export = ModelExport(EXPORT)
        self.network = Network(simulation.process("network"))
        parties = (*(host.name for host in site.hosts), SECONDARY)
        self.listeners = {name: Listener(name, self.network) for name in parties}
        self.effects = DyingEffects()
        self.refusals: Refusals = {}
        """Calls that StorPool does not carry out for now, whichever cluster is asked."""
        self._bridges = MemoryBridges()
        self._calls: dict[str, int] = {}
        self.clusters = [
            StorPoolParts(site, index, None if prepared is None else prepared.clusters[index])
            for index in range(len(site.clusters))
        ]
        if prepared is not None:
            self.export.files.update(prepared.files)
            self.export.served.update(prepared.served)
            self._calls.update(prepared.calls)
        self.machines = {host.name: self._machine(host, place) for place, host in enumerate(site.hosts, start=1)}
        for name, machine in self.machines.items():
            machine.peers.update((other, peer) for other, peer in self.machines.items() if other != name)
        if prepared is not None:
            for name, machine in self.machines.items():
                machine.files.update(prepared.host_files[name])
                machine.domains.update(copy.deepcopy(prepared.domains[name]))

    @property
    def blocks(self) -> MemoryBlocks:
        """Of the first StorPool cluster."""
        return self.clusters[0].blocks

    @property
    def pools(self) -> tuple[MemoryBlocks, ...]:
        """Of every StorPool cluster."""
        return tuple(cluster.blocks for cluster in self.clusters)

    @property
    def watched(self) -> Watched:
        """The blocks of every StorPool cluster, for whoever watches them."""
        return self.blocks if len(self.clusters) == 1 else AllBlocks(self.site, self.pools)

    @property
    def names(self) -> tuple[str, ...]:
        """Every process that `start` knows."""
        storpool = (cluster.process for cluster in self.site.clusters)
        return (*storpool, SECONDARY, *(agent_of(host.name) for host in self.site.hosts))

    def start(self, name: str) -> None:
        """Start a process that does not run; returns once it serves. `KeyError` for an unknown name.

        For the scenario's tasks.
        """
        starts: dict[str, Callable[[], None]] = {SECONDARY: self._start_secondary}
        starts |= {cluster.site.process: partial(self._start_storpool, cluster) for cluster in self.clusters}
        starts |= {agent_of(host.name): partial(self._start_agent, host.name) for host in self.site.hosts}
        starts[name]()

    def _start_storpool(self, cluster: StorPoolParts) -> None:
        process, own = cluster.site.process, cluster.site.known.cluster_id
        runtime = self.simulation.process(process)
        clock = partial(self.simulation.clock, process)
        alone = len(self.clusters) == 1
        service = Service(
            cluster.blocks,
            cluster.journal,
            cluster.settings,
            clock,
            cluster.site.token,
            self.effects.of(process),
            bridges=None if alone else self._bridges.of(own),
        )
        shown = "" if process == STORPOOL else process
        server = cluster.server = StorPoolServer(runtime, service, self.network, self._calls, shown, self.refusals)
        if not alone:
            service.moved = server.wake
            self._bridges.exchange.join(own, service, cluster.blocks, cluster.site.token)
            runtime.at_death[server] = partial(self._bridges.died, own)

    def _start_agent(self, host: str) -> None:
        runtime = self.simulation.process(agent_of(host))
        machine = self.machines[host]
        cluster = self.clusters[next(site.cluster for site in self.site.hosts if site.name == host)]
        model, config = ModelHost(machine, runtime, self.export), self._agent_config(host)

        def connect(settings: HostConfiguration) -> Transport:
            named = cluster.site.endpoint in settings.endpoints
            return self._transport(runtime, cluster, settings.token, lambda: named and machine.cuts == 0)

        transport = FollowingTransport(model, config, connect)
        hypervisor, client = ModelHypervisor(machine, runtime), StorPoolClient(transport, runtime)
        agent = Agent(runtime, model, hypervisor, QemuNfs(), client, config)
        listener = self.listeners[host]
        served = self.simulation.main.event(f"the agent of {host} serves")

        def serve() -> None:
            agent.recovery.start()
            listener.listen(runtime, agent.handle)
            served.deliver()

        # Killed as it starts, it never serves; whoever waits for it learns it from the next command.
        runtime.at_death[served] = served.deliver
        runtime.spawn("start", serve)
        served.wait()

    def _start_secondary(self) -> None:
        runtime = self.simulation.process(SECONDARY)
        self.listeners[SECONDARY].listen(runtime, ModelSecondaryRole(runtime, self.export).handle)

    def storpool(self, index: int = 0) -> StorPoolServer:
        """The process of this StorPool cluster, dead or alive."""
        return _server(self.clusters[index])

    def connect(self, runtime: SimulatedRuntime, connection: Connection) -> StorPoolClient:
        """A client of the API that a pool's connection names; any other endpoint does not answer."""
        found = next((each for each in self.clusters if each.site.endpoint in connection.endpoints), None)
        cluster = found or self.clusters[0]
        return StorPoolClient(self._transport(runtime, cluster, connection.token, lambda: found is not None), runtime)

    def transport(self, runtime: SimulatedRuntime, index: int) -> StorPoolTransport:
        """To this StorPool cluster."""
        cluster = self.clusters[index]
        return StorPoolTransport(runtime, partial(_server, cluster), Secret(cluster.site.token))

    def _transport(
        self, runtime: SimulatedRuntime, cluster: StorPoolParts, token: Secret, reached: Callable[[], bool]
    ) -> Transport:
        log = logging.getLogger(f"{CALLS}.{runtime.process}")
        transport = StorPoolTransport(runtime, partial(_server, cluster), token, reached)
        return LoggedTransport(transport, runtime.monotonic, log)

    def _machine(self, host: HostSite, place: int) -> Machine:
        cluster = self.site.clusters[host.cluster]
        name, own = host.name, cluster.known.cluster_id
        conf = (
            f"SP_CLUSTER_ID={own}\nSP_API_HTTP_HOST={cluster.endpoint.partition(':')[0]}\n"
            f"SP_API_HTTP_PORT=81\nSP_AUTH_TOKEN={cluster.token}\n[{name}]\nSP_OURID={host.client_id}\n"
        )
        alone = len(self.clusters) == 1
        devices: Devices = self.blocks if alone else HostDevices(self.pools, host.cluster)
        return Machine(
            self.simulation.process(name),
            name,
            host.client_id,
            devices,
            {STORPOOL_CONF: conf},
            cluster_id="" if alone else own,
            place=place,
            nfs=self.export,
        )

    def _agent_config(self, host: str) -> AgentConfig:
        return AgentConfig(
            host_uuid=Generator.of(0, f"host:{host}").uuid(),
            host_name=host,
            storpool_conf=STORPOOL_CONF,
            storpool_conf_directory=None,
            bridge=BRIDGE,
        )
