"""The memory world: a whole cloud in one thread and virtual time; the same seed gives the same run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from harness.observers import Cloud, Environment, Guest, Host, StorPool
from harness.runtime.simulated import Simulation, Strike
from harness.storpool import Secret
from harness.worlds.memory.bootstrap import IMAGE_URL, bootstrap, make_templates
from harness.worlds.memory.cloud import MemoryCloud
from harness.worlds.memory.faults import MemoryFaults
from harness.worlds.memory.image import guest_image
from harness.worlds.memory.management import API_KEY, SECRET_KEY, Management
from harness.worlds.memory.model_guest import ModelGuest
from harness.worlds.memory.observers import MemoryHost, MemoryStorPool
from harness.worlds.memory.processes import MANAGEMENT, STORPOOL_TOKEN, Processes
from harness.worlds.memory.transports import StorPoolTransport

T = TypeVar("T")

POLL_SECONDS = 0.5


class MemoryWorld:
    """`harness.observers.World` for one case, inside `run` only. `strike` is called at every point of the run.

    Two pools on StorPool templates of their own, two hosts, one zone. `simulation` has the journal and the digests.
    """

    def __init__(self, seed: int, *, strike: Strike | None = None) -> None:
        self.simulation = Simulation(seed)
        self._strike = strike
        self.processes = Processes(self.simulation, seed)
        self.management = Management(self.processes)
        self.faults = MemoryFaults(self.processes, self.start)
        self._names = 0
        self._environment: Environment | None = None
        main = self.simulation.main
        machines = tuple(self.processes.machines.values())
        transport = StorPoolTransport(main, self.processes.storpool, Secret(STORPOOL_TOKEN))
        self._transport = transport
        self._storpool = MemoryStorPool(transport, lambda: dict(self.processes.storpool().calls))
        self._cloud = MemoryCloud(main, lambda query: self.management.request(main, query), API_KEY, SECRET_KEY)
        self._hosts = tuple(MemoryHost(machine, main) for machine in machines)

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

    @property
    def cloud(self) -> Cloud:
        return self._cloud

    @property
    def storpool(self) -> StorPool:
        return self._storpool

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
        return ModelGuest(
            self.simulation.main, tuple(self.processes.machines.values()), lambda: self._instance_name(vm_id)
        )

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
        self.processes.export.served[IMAGE_URL] = guest_image().qcow2()
        for process in self.processes.names:
            self.processes.start(process)
        make_templates(self._transport)
        self.management.start()
        self._environment = bootstrap(self)
        self.simulation.strike = self._strike
        try:
            return body(self)
        finally:
            self.simulation.strike = None
