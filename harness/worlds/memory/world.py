"""The memory world: a whole cloud in one thread and virtual time; the same seed gives the same run."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from harness import checks
from harness.agent.config import AgentConfig
from harness.agent.operations import Record, Step
from harness.observers import Cloud, Environment, Guest, Host, Json, Secondary, StorPool
from harness.runtime.simulated import Simulation, Strike
from harness.worlds.memory.bootstrap import IDLE_URL, IMAGE_URL, ISO_URL, bootstrap, make_templates
from harness.worlds.memory.cloud import MemoryCloud
from harness.worlds.memory.faults import MemoryFaults
from harness.worlds.memory.image import guest_image, guest_iso, idle_image
from harness.worlds.memory.management import API_KEY, SECRET_KEY, Management
from harness.worlds.memory.model_guest import ModelGuest
from harness.worlds.memory.observers import MemoryHost, MemorySecondary, MemoryStorPool
from harness.worlds.memory.prepared import Prepared, PreparedCluster
from harness.worlds.memory.processes import MANAGEMENT, Processes
from harness.worlds.memory.site import SITES
from harness.worlds.several import SeveralStorPools

T = TypeVar("T")

POLL_SECONDS = 0.5
FENCED_SECONDS = 900.0
"""Until somebody switches a fenced host on again."""
PREPARING_SEED = -1 << 64
"""Of the run that makes a prepared cloud. No other run may have it: it would draw the same ids again."""


@functools.cache
def booted(site: str = "") -> Prepared:
    """A cloud of this site that has booted and that nobody has used."""
    return prepare(lambda _world: None, site)


def prepare(body: Callable[[MemoryWorld], None], site: str = "") -> Prepared:
    """Boot a cloud, have `body` do something to it, and keep what is durable then; always the same for one `body`.

    At the end the cloud must be at rest; `ValueError` says what is not.
    """

    def main(world: MemoryWorld) -> Prepared:
        body(world)
        return world.durable()

    return MemoryWorld(PREPARING_SEED, start=None, site=site).run(main)


def _at_rest(files: Mapping[str, str]) -> dict[str, str]:
    """Without the agent's records of what only settles: nothing was late where no fault struck.

    `ValueError` for one of an operation that is not over.
    """
    directory = AgentConfig(host_uuid="", host_name="").operations_directory
    kept = {}
    for path, text in files.items():
        if not path.startswith(f"{directory}/"):
            kept[path] = text
        elif (record := msgspec.json.decode(text, type=Record)).step is not Step.SETTLING:
            raise ValueError(f"the cloud cannot be kept as it is: {record} is open")
    return kept


class MemoryWorld:
    """`harness.observers.World` for one case, inside `run` only. `strike` is called at every point of the run.

    Two pools on StorPool templates of their own, two hosts, one zone. `simulation` has the journal and the digests.
    `start` gives the cloud that the world begins with; with None it boots one, on a schedule of the seed.
    `site` names one of `site.SITES`, which `start` must be of.
    """

    def __init__(
        self,
        seed: int,
        *,
        strike: Strike | None = None,
        start: Callable[[], Prepared] | None = booted,
        site: str = "",
    ) -> None:
        if site and start is booted:
            start = functools.partial(booted, site)
        prepared = self._prepared = None if start is None else start()
        self.simulation = Simulation(seed, elapsed=0.0 if prepared is None else prepared.elapsed)
        self._strike = strike
        self.processes = Processes(self.simulation, prepared, SITES[site])
        self.faults = MemoryFaults(self.processes, self.start)
        self.management = Management(self.processes, lambda host: self.faults.lose_host(host, FENCED_SECONDS))
        self._names = 0
        self._waited_for: set[str] = set()
        self._environment: Environment | None = None
        main = self.simulation.main
        machines = tuple(self.processes.machines.values())
        self._transports = [self.processes.transport(main, index) for index in range(len(self.processes.clusters))]
        observers = self._observers = [
            MemoryStorPool(
                transport,
                lambda: dict(self.processes.storpool().calls),
                self.processes.refusals,
                several=len(self._transports) > 1,
            )
            for transport in self._transports
        ]
        self._storpools = tuple(observers)
        self._storpool = observers[0] if len(observers) == 1 else SeveralStorPools(observers)
        self._cloud = MemoryCloud(main, lambda query: self.management.request(main, query), API_KEY, SECRET_KEY)
        self._hosts = tuple(MemoryHost(machine, main, self.faults) for machine in machines)

    def run(self, body: Callable[[MemoryWorld], T]) -> T:
        """Start everything, run `body` as the scenario's task, end everything. Once in a world's life.

        Raises what `body` raised, or what `Simulation.run` raises. Faults strike only while `body` runs.
        """
        try:
            return self.simulation.run(lambda: self._main(body))
        finally:
            self.management.close()

    def kill(self, process: str) -> None:
        """SIGKILL of a process by its name in `processes`; see `Simulation.kill`."""
        self.simulation.kill(process)

    def start(self, process: str) -> None:
        """Start a killed process again from what is durable; returns when it can be used. For the scenario's tasks."""
        if process == MANAGEMENT:
            self.management.start()
        else:
            self.processes.start(process)

    def durable(self) -> Prepared:
        """What is durable now, for worlds to start from. `ValueError` when the cloud is not at rest."""
        calls = dict(self._storpool.calls())
        wrong = [str(violation) for violation in checks.violations(checks.take(self))]
        if wrong:
            raise ValueError(f"the cloud cannot be kept as it is: {'; '.join(wrong)}")
        processes = self.processes
        return Prepared(
            records=self.management.image(),
            clusters=tuple(
                PreparedCluster(tuple(cluster.journal.replay()), cluster.blocks.copy())
                for cluster in processes.clusters
            ),
            calls=calls,
            domains={name: copy.deepcopy(machine.domains) for name, machine in processes.machines.items()},
            host_files={name: _at_rest(machine.files) for name, machine in processes.machines.items()},
            files=dict(processes.export.files),
            served=dict(processes.export.served),
            elapsed=self.simulation.elapsed,
            environment=self.environment,
        )

    @property
    def cloud(self) -> Cloud:
        return self._cloud

    @property
    def storpool(self) -> StorPool:
        return self._storpool

    @property
    def storpools(self) -> Sequence[StorPool]:
        return self._storpools

    @property
    def secondary(self) -> Secondary:
        return MemorySecondary(self.processes.export)

    @property
    def hosts(self) -> Sequence[Host]:
        return self._hosts

    @property
    def environment(self) -> Environment:
        if self._environment is None:
            raise RuntimeError("the memory world is not up; use it inside run")
        return self._environment

    @property
    def real(self) -> bool:
        return False

    def guest(self, vm_id: str) -> Guest:
        machines = tuple(self.processes.machines.values())
        return ModelGuest(self.simulation.main, machines, lambda: self._instance_name(vm_id), self._waited_for)

    def stored(self, global_id: str, offset: int, length: int, cluster: int = 0) -> bytes:
        """What StorPool has stored of a volume or snapshot, attached or not; `KeyError` when there is none.

        `cluster` is the index of its StorPool cluster in the site.
        """
        key = self.processes.storpool(cluster).object_keys()[global_id]
        return self.processes.pools[cluster].read(key, offset, length)

    def exports(self) -> list[Json]:
        """Snapshots that StorPool clusters export."""
        return [export for cluster in self._observers for export in cluster.exports()]

    def kill_management(self) -> None:
        self.kill(MANAGEMENT)

    def start_management(self) -> None:
        self.start(MANAGEMENT)

    def name(self, stem: str) -> str:
        self._names += 1
        return f"{stem}-{self._names}"

    @contextmanager
    def check(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            error.add_note(f"check: {name}")
            raise

    def wait_until(self, what: str, condition: Callable[[], bool], timeout: float = 60) -> None:
        main = self.simulation.main
        deadline = main.monotonic() + timeout
        while not condition():
            if main.monotonic() >= deadline:
                raise TimeoutError(f"{what}: not in {timeout:g} s")
            main.sleep(POLL_SECONDS)

    def _instance_name(self, vm_id: str) -> str:
        answer = self._cloud.call("listVirtualMachines", id=vm_id, listall=True)
        return str(answer["virtualmachine"][0]["instancename"])

    def _main(self, body: Callable[[MemoryWorld], T]) -> T:
        for process in self.processes.names:
            self.processes.start(process)
        if self._prepared is None:
            self.processes.export.served[IMAGE_URL] = guest_image().qcow2()
            for transport in self._transports:
                make_templates(transport)
            self.processes.export.served[ISO_URL] = guest_iso()
            self.processes.export.served[IDLE_URL] = idle_image().qcow2()
            self.management.start()
            self._environment = bootstrap(self, self.processes.site)
        else:
            self.management.resume(self._prepared.records)
            self._environment = self._prepared.environment
        self.simulation.strike = self._strike
        try:
            return body(self)
        finally:
            self.simulation.strike = None
