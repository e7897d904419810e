"""What scenarios that migrate VMs share: other hosts, and a guest that writes all the time."""

from __future__ import annotations

from harness.observers import Host, Json, World
from scenarios.looks import reread, serial
from scenarios.steps import host_of, many

BLOCK = 4096
COUNTER_AT = 16 << 20
"""Where a counter begins on a disk: what else a case writes is before it."""


def other_host(world: World, vm: Json) -> Host:
    """One that the VM does not run on."""
    return next(host for host in world.hosts if host.name != host_of(world, vm).name)


def host_id(world: World, host: Host) -> str:
    """CloudStack's."""
    listed = many(world.cloud.call("listHosts", type="Routing"), "host")
    return next(str(item["id"]) for item in listed if item["name"] == host.name)


def migrate(world: World, vm: Json, host: Host) -> Json:
    world.cloud.call("migrateVirtualMachine", virtualmachineid=vm["id"], hostid=host_id(world, host))
    return reread(world, vm)


def start_migrating(world: World, vm: Json, host: Host) -> str:
    """The job."""
    return world.cloud.start("migrateVirtualMachine", virtualmachineid=vm["id"], hostid=host_id(world, host))


def job_ended(world: World, job: str) -> bool:
    running = many(world.cloud.call("listAsyncJobs", listall=True), "asyncjobs")
    return all(item["jobid"] != job for item in running)


class Counter:
    """The guest of a VM writes numbers to a disk, each to a block of its own, and flushes each."""

    def __init__(self, world: World, vm: Json, volume: Json, at: int = COUNTER_AT) -> None:
        self._world = world
        self._guest = world.guest(str(vm["id"]))
        self._serial = serial(volume)
        self._at = at
        self.count = 0

    def write(self) -> None:
        """The next number; returns when the guest has flushed it."""
        self._guest.write(self._serial, self._at + self.count * BLOCK, _block(self.count))
        self.count += 1

    def write_until_ended(self, job: str, timeout: float = 300) -> None:
        def step() -> bool:
            self.write()
            return job_ended(self._world, job)

        self._world.wait_until(f"job {job} has ended", step, timeout)

    @property
    def written(self) -> bytes:
        """What must be on the disk."""
        return b"".join(_block(number) for number in range(self.count))

    def is_there(self) -> None:
        seen = self._guest.read(self._serial, self._at, self.count * BLOCK)
        wrong = [n for n in range(self.count) if seen[n * BLOCK : (n + 1) * BLOCK] != _block(n)]
        assert not wrong, f"of {self.count} numbers that the guest wrote these are not there: {wrong}"


def _block(number: int) -> bytes:
    return f"number {number}".encode().ljust(BLOCK, b".")
