"""What an operation costs does not grow with the cloud: the same SQL statements and StorPool calls among many records.

`scenarios/scale.py` has as many objects, and sees the calls only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from harness.cloudstack.config import CloudConfig
from harness.cloudstack.records import Transaction, store
from harness.cloudstack.records.database import MemoryDatabase
from harness.cloudstack.records.rows import Nic, Vm, Volume
from harness.cloudstack.server import ManagementServer
from harness.observers import Json
from harness.runtime.messages import MessageFault
from harness.spi.objects import VolumeType
from harness.spi.states import VmState, VolumeState
from harness.worlds.memory import management
from harness.worlds.memory.processes import MANAGEMENT
from harness.worlds.memory.site import Site
from harness.worlds.memory.world import MemoryWorld
from scenarios import scale, snapshots, steps

VMS = 500
"""Each with two volumes."""
QUIET_SECONDS = 86_400.0
"""Between turns of the background tasks, whose work is no part of an operation: longer than the test."""
LITERAL = re.compile(r"'(?:[^']|'')*'|x'[0-9a-f]*'|\b\d[\d.e+-]*")
"""Values in the text of a statement that was run."""

Cost = tuple[Counter[str], Counter[str]]
"""SQL statements without their values, and StorPool calls by name."""


class Meter:
    """Counts what one API command costs at a time: its request and its job, and what the agents do meanwhile."""

    def __init__(self) -> None:
        self.world: MemoryWorld | None = None
        self._command: str | None = None
        self._statements: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()

    def statement(self, sql: str) -> None:
        """Of the stand-in's database."""
        if self._is_meant():
            self._statements[LITERAL.sub("?", sql)] += 1

    def strike(self, process: str, kind: str, detail: str) -> MessageFault | None:
        """What a `MemoryWorld` is given."""
        what, _, name = detail.partition(" ")
        if kind == "send" and what == "StorPool" and (process != MANAGEMENT or self._is_meant()):
            self._calls[name.partition(" at ")[0]] += 1
        return None

    def cost(self, command: str, operation: Callable[[], object]) -> Cost:
        self._command, self._statements, self._calls = command, Counter(), Counter()
        operation()
        self._command = None
        assert self._statements, f"{command} was not seen"
        return self._statements, self._calls

    def _is_meant(self) -> bool:
        """Not the requests with which the observer waits and looks."""
        task = None if self.world is None else self.world.simulation.current
        meant = (f"API request {self._command}", f"job {self._command}")
        return self._command is not None and task is not None and task.name in meant


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    """Of the next memory world, whose records keep nothing that was read: they are as if they were in a file."""
    meter = Meter()

    class Metered(MemoryDatabase):
        def __init__(self, image: bytes) -> None:
            super().__init__(image)
            self.found = None
            self.connection.set_trace_callback(meter.statement)
            self._metered = self.connection

        def close(self) -> None:
            self._metered.set_trace_callback(None)
            super().close()

    def quiet(site: Site) -> CloudConfig:
        return msgspec.structs.replace(configuration(site), ping_interval=QUIET_SECONDS)

    configuration = management.configuration
    monkeypatch.setattr(store, "MemoryDatabase", Metered)
    monkeypatch.setattr(management, "configuration", quiet)
    return meter


def life(world: MemoryWorld, meter: Meter, template_id: str, offering_id: str) -> dict[str, Cost]:
    """What a VM of a template that its pool has, and a volume of it, cost from the deploy to the end."""
    request = steps.deploy_parameters(world, template_id, diskofferingid=offering_id, size=1)
    volume = steps.data_volume(world, offering_id=offering_id)
    made: dict[str, Json] = {}

    def deploy() -> None:
        made["vm"] = steps.one(world.cloud.call("deployVirtualMachine", **request), "virtualmachine")

    def snap() -> None:
        made["snapshot"] = snapshots.take(world, volume)

    costs = {"deploy": meter.cost("deployVirtualMachine", deploy)}
    vm = made["vm"]
    world.guest(str(vm["id"])).ready()
    for name, command, operation in (
        ("attach", "attachVolume", lambda: steps.attach(world, volume, vm)),
        ("snapshot", "createSnapshot", snap),
        ("delete snapshot", "deleteSnapshot", lambda: snapshots.delete(world, made["snapshot"])),
        ("detach", "detachVolume", lambda: steps.detach(world, volume)),
        ("delete", "deleteVolume", lambda: world.cloud.call("deleteVolume", id=volume["id"])),
        ("stop", "stopVirtualMachine", lambda: steps.stop(world, vm)),
        ("start", "startVirtualMachine", lambda: steps.start(world, vm)),
        ("expunge", "destroyVirtualMachine", lambda: steps.expunge(world, vm)),
    ):
        costs[name] = meter.cost(command, operation)
        if name == "start":
            world.guest(str(vm["id"])).ready()
    return costs


def many_more(tx: Transaction, vm_uuid: str) -> None:
    """Records of `VMS` more VMs like this one, and of their disks, in the states that a cloud in use has."""
    vm = tx.find(Vm, uuid=vm_uuid)
    assert vm is not None
    (nic,) = tx.all(Nic, instance_id=vm.id)
    root, data = tx.all(Volume, instance_id=vm.id)
    assert (root.volume_type, data.volume_type) == (VolumeType.ROOT, VolumeType.DATADISK)
    for number in range(VMS):
        state = VmState.DESTROYED if number % 10 == 0 else VmState.STOPPED if number % 10 < 4 else VmState.RUNNING
        running = state is VmState.RUNNING
        name = f"many-{number}"
        one = msgspec.structs.replace(
            vm,
            uuid=f"{name}-vm",
            name=name,
            instance_name=name,
            display_name=name,
            state=state,
            host_id=1 + number % 2 if running else None,
            last_host_id=1 + number % 2,
        )
        one = tx.insert(one)
        address = f"10.99.{number // 250}.{number % 250}"
        tx.insert(msgspec.structs.replace(nic, uuid=f"{name}-nic", instance_id=one.id, ip4_address=address))
        tx.set_detail("user_vm_details", one.id, "rootdisksize", "1")
        disk = msgspec.structs.replace(
            root,
            uuid=f"{name}-root",
            name=f"ROOT-{one.id}",
            instance_id=one.id,
            path=f"/dev/storpool-byid/many.r.{number}",
            state=VolumeState.DESTROY if state is VmState.DESTROYED else VolumeState.READY,
        )
        tx.insert(disk)
        tx.insert(_data(data, name, one, number))


def _data(data: Volume, name: str, vm: Vm, number: int) -> Volume:
    """Of a VM that is destroyed, of nobody; of one that was never used, on no pool yet; else attached."""
    disk = msgspec.structs.replace(
        data, uuid=f"{name}-data", name=f"DATA-{vm.id}", path=f"/dev/storpool-byid/m.d.{number}"
    )
    if vm.state is VmState.DESTROYED:
        return msgspec.structs.replace(disk, instance_id=None, device_id=None, attached=None)
    if number % 10 == 1:
        return msgspec.structs.replace(
            disk, instance_id=None, device_id=None, attached=None, state=VolumeState.ALLOCATED, pool_id=None, path=None
        )
    return msgspec.structs.replace(disk, instance_id=vm.id)


def change(world: MemoryWorld, what: str, function: Callable[[Transaction], None]) -> None:
    """Change the records behind the cloud's back, in one transaction."""
    done: list[bool] = []

    def work(server: ManagementServer) -> None:
        with server.services.records.transaction(what) as tx:
            function(tx)
        done.append(True)

    world.management.work(what, work)
    world.wait_until(what, lambda: bool(done))


@pytest.mark.parametrize("seed", [1, 2])
def test_an_operation_costs_the_same_statements_and_calls_among_500_vms_and_1000_volumes(
    meter: Meter, seed: int
) -> None:
    def both(world: MemoryWorld) -> tuple[dict[str, Cost], dict[str, Cost]]:
        meter.world = world
        template_id, offering_id = steps.idle_template(world), steps.disk_offering(world)
        with scale.roomy(world, 3 * VMS), steps.setting(world, snapshots.BACKUP, "false", "true"):
            pattern = steps.deploy(world, template_id, diskofferingid=offering_id, size=1)
            few = life(world, meter, template_id, offering_id)
            change(world, "many more records", lambda tx: many_more(tx, str(pattern["id"])))
            return few, life(world, meter, template_id, offering_id)

    few, full = MemoryWorld(seed, strike=meter.strike).run(both)
    assert few["deploy"][0].total() > 20 and few["deploy"][1].total() > 2, few["deploy"]
    for name, (statements, calls) in full.items():
        before = few[name]
        assert calls == before[1], f"{name} makes the calls {calls} among many records, {before[1]} among few"
        assert not set(calls) & set(scale.LISTS), f"{name} reads a list: {calls}"
        more, fewer = statements - before[0], before[0] - statements
        assert statements.total() == before[0].total(), (
            f"{name} runs {statements.total()} SQL statements among many records, {before[0].total()} among few:"
            f" more of {dict(more)}, fewer of {dict(fewer)}"
        )
        assert not more and not fewer, f"{name} runs other statements: {dict(more)} for {dict(fewer)}"
