"""The management server's process in the memory world: its records outlive it, everything else is made anew."""

from __future__ import annotations

from collections.abc import Callable

from harness.cloudstack.config import CloudConfig, GuestAddress
from harness.cloudstack.jobs import IN_PROGRESS
from harness.cloudstack.records import Records, RecordsOfDriver
from harness.cloudstack.records.rows import AsyncJob, HostRow, Operation
from harness.cloudstack.server import ManagementServer
from harness.driver import StorPoolProvider
from harness.runtime.process import SimulatedRuntime
from harness.spi.driver import OperationRecord
from harness.spi.ports import Endpoint
from harness.worlds.memory.cloud import Query
from harness.worlds.memory.processes import BRIDGE, EXPORT, HOSTS, MANAGEMENT, SECONDARY, Processes
from harness.worlds.memory.site import Site
from harness.worlds.memory.transports import MemoryEndpoint, NoAnswer, exchange

API_KEY = "memory-api-key"
SECRET_KEY = "memory-secret-key"
DATABASE_KEY = "memory-database-key"
GUESTS = 64
API_TIMEOUT = 300.0
BOOT_TIMEOUT = 3600.0
IMAGE_TIMEOUT = 60.0


class Management:
    """One management server at a time, over records in memory."""

    def __init__(self, processes: Processes, lose_host: Callable[[str], None]) -> None:
        """`lose_host` cuts a host's power; it comes back by itself later."""
        self._processes = processes
        self._lose_host = lose_host
        self._records: Records | None = None
        self._runtime: SimulatedRuntime | None = None
        self._server: ManagementServer | None = None

    def start(self) -> None:
        """Start the server, from its records when there was one before; returns when its API may be used.

        For the scenario's task.
        """
        simulation = self._processes.simulation
        runtime = self._runtime = simulation.process(MANAGEMENT)
        self._server = None
        records = self._records = (
            Records.open(None, runtime) if self._records is None else self._records.reopen(runtime)
        )

        def boot() -> ManagementServer:
            server = self._assemble(runtime, records)
            server.start()
            return server

        self._server = exchange(
            simulation.main, runtime, "start of the management server", boot, BOOT_TIMEOUT, self._processes.network
        )

    def resume(self, image: bytes) -> None:
        """As if the server that left these records, with nothing to finish, had gone on; once, instead of `start`."""
        runtime = self._runtime = self._processes.simulation.process(MANAGEMENT)
        records = self._records = Records.open(None, runtime, image)
        self._server = self._assemble(runtime, records)
        self._server.serve()

    def image(self) -> bytes:
        """The server's records, for `resume`. `ValueError` while a job or an operation of the driver is open."""
        runtime, records = self._runtime, self._records
        if runtime is None or records is None:
            raise RuntimeError("the management server was never started")

        def look() -> tuple[list[str], bytes]:
            with records.read() as tx:
                left = [f"job {job.job_cmd} runs" for job in tx.all(AsyncJob, job_status=IN_PROGRESS)]
                left += [f"operation {work.kind} is open" for work in tx.all(Operation, outcome=None)]
                left += [f"host {host.name} is {host.status}" for host in tx.all(HostRow) if host.status != "Up"]
            return left, records.image()

        processes = self._processes
        main, what = processes.simulation.main, "image of the records"
        left, image = exchange(main, runtime, what, look, IMAGE_TIMEOUT, processes.network)
        if left:
            raise ValueError(f"the management server is not at rest: {'; '.join(left)}")
        return image

    def request(self, sender: SimulatedRuntime, query: Query) -> tuple[int, bytes]:
        """Carry out one API request in the server's process; raises `ConnectionError` without an answer."""
        runtime, server = self._runtime, self._server
        if runtime is None or server is None:
            raise ConnectionRefusedError("the management server does not run")
        what = f"API request {dict(query).get('command', '')}"
        try:
            reply = exchange(sender, runtime, what, lambda: server.api(query), API_TIMEOUT, self._processes.network)
        except NoAnswer as error:
            raise ConnectionResetError(str(error)) from error
        return reply.status, reply.body

    def open_operations(self) -> list[OperationRecord]:
        """What the driver has not finished."""
        if self._records is None:
            return []
        # Through the scenario's runtime: whoever looks is no task of the server, which may be dead.
        return RecordsOfDriver(self._records.reopen(self._processes.simulation.main)).open_operations()

    def work(self, what: str, function: Callable[[ManagementServer], None]) -> None:
        """Have a task of the server's process do something beside what else goes on; it must be running."""
        runtime, server = self._runtime, self._server
        if runtime is None or server is None:
            raise RuntimeError("the management server does not run")
        runtime.spawn(what, lambda: function(server))

    def close(self) -> None:
        """Forget the records; after the run."""
        if self._records is not None:
            self._records.close()

    def _assemble(self, runtime: SimulatedRuntime, records: Records) -> ManagementServer:
        return ManagementServer(
            runtime,
            records,
            lambda driver_records, endpoints: StorPoolProvider(
                runtime,
                driver_records,
                endpoints,
                lambda connection: self._processes.connect(runtime, connection),
            ),
            {name: self._endpoint(runtime, name) for name in HOSTS},
            self._endpoint(runtime, SECONDARY),
            configuration(self._processes.site),
            {name: MemoryFence(runtime, name, self._lose_host) for name in HOSTS},
        )

    def _endpoint(self, runtime: SimulatedRuntime, name: str) -> Endpoint:
        return MemoryEndpoint(runtime, self._processes.listeners[name])


class MemoryFence:
    """The power supply of a model host."""

    def __init__(self, runtime: SimulatedRuntime, host: str, lose_host: Callable[[str], None]) -> None:
        self._runtime = runtime
        self._host = host
        self._lose_host = lose_host

    def fence(self) -> None:
        self._runtime.point("effect-begin", f"{self._host}: fence")
        self._lose_host(self._host)
        self._runtime.point("effect-end", f"{self._host}: fence")


def configuration(site: Site) -> CloudConfig:
    """The zones, clusters and hosts of the site, and addresses for `GUESTS` guests."""
    addresses = tuple(
        GuestAddress(mac=f"02:00:00:00:00:{number:02x}", ip=f"10.77.0.{number}") for number in range(1, GUESTS + 1)
    )
    return CloudConfig(
        hosts=site.cloud_hosts,
        further_clusters=site.further,
        image_store_url=EXPORT,
        guest_addresses=addresses,
        bridge=BRIDGE,
        api_key=API_KEY,
        secret_key=SECRET_KEY,
        database_key=DATABASE_KEY,
    )
