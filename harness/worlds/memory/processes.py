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
from harness.worlds.memory.machine import Machine
from harness.worlds.memory.model_host import ModelHost
from harness.worlds.memory.model_hypervisor import ModelHypervisor
from harness.worlds.memory.model_secondary import ModelExport, ModelSecondaryRole
from harness.worlds.memory.prepared import Prepared
from harness.worlds.memory.transports import DyingEffects, Listener, Network, StorPoolServer, StorPoolTransport
from simulator.blocks.memory import MemoryBlocks
from simulator.journal.memory import MemoryJournal
from simulator.service import Service
from simulator.settings import Settings

STORPOOL = "storpool"
SECONDARY = "secondary"
MANAGEMENT = "management"
HOSTS = ("kvm1", "kvm2")
ENDPOINT = "storpool-api:81"
EXPORT = "nfs://secondary/export"
STORPOOL_TOKEN = "12345=67890="
"""With what could be taken for something else in a URL and in storpool.conf."""
BRIDGE = "cloudbr0"
POOL_BYTES = 4 << 40
"""Of all disks of the StorPool cluster together."""
CALLS = "harness.worlds.memory.StorPool"
"""Loggers of StorPool calls are called so, followed by the process that made them."""
STORPOOL_CONF = "/etc/storpool.conf"


def agent_of(host: str) -> str:
    """Name of the process that is the agent of this host."""
    return f"agent-{host}"


class Processes:
    """Everything beside the management server: StorPool, hosts, agents and the secondary storage role."""

    def __init__(self, simulation: Simulation, prepared: Prepared | None = None) -> None:
        self.simulation = simulation
        self.settings = Settings()
        self.export = ModelExport(EXPORT)
        self.network = Network(simulation.process("network"))
        self.listeners = {name: Listener(name, self.network) for name in (*HOSTS, SECONDARY)}
        self.effects = DyingEffects()
        self._calls: dict[str, int] = {}
        if prepared is None:
            self.blocks = MemoryBlocks(POOL_BYTES)
            self.journal = MemoryJournal()
        else:
            self.blocks = prepared.blocks.copy()
            self.journal = MemoryJournal(prepared.journal)
            self.export.files.update(prepared.files)
            self.export.served.update(prepared.served)
            self._calls.update(prepared.calls)
        self.machines = {name: self._machine(name, client) for client, name in enumerate(HOSTS, start=1)}
        if prepared is not None:
            for name, machine in self.machines.items():
                machine.files.update(prepared.host_files[name])
                machine.domains.update(copy.deepcopy(prepared.domains[name]))
        self._storpool: StorPoolServer | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every process that `start` knows."""
        return (STORPOOL, SECONDARY, *map(agent_of, HOSTS))

    def start(self, name: str) -> None:
        """Start a process that does not run; returns once it serves. `KeyError` for an unknown name.

        For the scenario's tasks.
        """
        starts: dict[str, Callable[[], None]] = {STORPOOL: self._start_storpool, SECONDARY: self._start_secondary}
        starts |= {agent_of(host): partial(self._start_agent, host) for host in HOSTS}
        starts[name]()

    def _start_storpool(self) -> None:
        runtime = self.simulation.process(STORPOOL)
        clock = partial(self.simulation.clock, STORPOOL)
        service = Service(self.blocks, self.journal, self.settings, clock, STORPOOL_TOKEN, self.effects)
        self._storpool = StorPoolServer(runtime, service, self.network, self._calls)

    def _start_agent(self, host: str) -> None:
        runtime = self.simulation.process(agent_of(host))
        machine = self.machines[host]
        model, config = ModelHost(machine, runtime, self.export), self._agent_config(host)

        def connect(settings: HostConfiguration) -> Transport:
            named = ENDPOINT in settings.endpoints
            return self._transport(runtime, settings.token, lambda: named and machine.cuts == 0)

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

    def storpool(self) -> StorPoolServer:
        """The process of StorPool, dead or alive."""
        if self._storpool is None:
            raise RuntimeError("StorPool was never started")
        return self._storpool

    def connect(self, runtime: SimulatedRuntime, connection: Connection) -> StorPoolClient:
        """A client of the API that a pool's connection names; any other endpoint does not answer."""
        reached = ENDPOINT in connection.endpoints
        return StorPoolClient(self._transport(runtime, connection.token, lambda: reached), runtime)

    def _transport(self, runtime: SimulatedRuntime, token: Secret, reached: Callable[[], bool]) -> Transport:
        log = logging.getLogger(f"{CALLS}.{runtime.process}")
        return LoggedTransport(StorPoolTransport(runtime, self.storpool, token, reached), runtime.monotonic, log)

    def _machine(self, name: str, client_id: int) -> Machine:
        conf = (
            f"SP_CLUSTER_ID={self.settings.cluster_id}\nSP_API_HTTP_HOST={ENDPOINT.partition(':')[0]}\n"
            f"SP_API_HTTP_PORT=81\nSP_AUTH_TOKEN={STORPOOL_TOKEN}\n[{name}]\nSP_OURID={client_id}\n"
        )
        machine = Machine(self.simulation.process(name), name, client_id, self.blocks, {STORPOOL_CONF: conf})
        machine.image = self.export.read
        return machine

    def _agent_config(self, host: str) -> AgentConfig:
        return AgentConfig(
            host_uuid=Generator.of(0, f"host:{host}").uuid(),
            host_name=host,
            storpool_conf=STORPOOL_CONF,
            storpool_conf_directory=None,
            bridge=BRIDGE,
        )
