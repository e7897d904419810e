"""Where a migration that nobody answered for ends: what the two hosts say of the VM decides, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cloud_rig import HOSTS, CloudError, FakeHost, FakeStorPool, Rig

from harness.cloudstack.orchestration import migration
from harness.cloudstack.orchestration.migration import MIGRATING, PREPARE
from harness.cloudstack.records import RecordsOfDriver
from harness.cloudstack.records.rows import HaWork, HostRow, ItWork, Vm
from harness.runtime.threads import ThreadRuntime
from harness.spi.commands import (
    AnyAnswer,
    AnyCommand,
    CancelMigrationCommand,
    CheckVirtualMachineAnswer,
    CheckVirtualMachineCommand,
    PrepareForMigrationAnswer,
    PrepareForMigrationCommand,
    StopCommand,
)
from harness.spi.errors import Error, Unknown
from harness.spi.objects import VmPower
from harness.spi.states import VmEvent

ON, OFF, PAUSED = VmPower.ON, VmPower.OFF, VmPower.PAUSED
SOURCE, DESTINATION = 1, 2


class Host(FakeHost):
    """One that says of the VM what it is told to."""

    power = OFF

    def _do(self, command: AnyCommand) -> AnyAnswer:
        match command:
            case PrepareForMigrationCommand():
                if command.rollback:
                    assert self.power is not ON, "a running guest was taken away"
                    self.power = OFF
                return PrepareForMigrationAnswer(result=True, destination="qemu+tcp://there/system")
            case CancelMigrationCommand() | CheckVirtualMachineCommand():
                if isinstance(command, CancelMigrationCommand) and command.resume and self.power is PAUSED:
                    self.power = ON
                return CheckVirtualMachineAnswer(result=True, power=self.power)
            case StopCommand():
                self.power = OFF
        return super()._do(command)


class Site:
    """A management server with a VM that runs on the first of two hosts."""

    def __init__(self, runtime: ThreadRuntime) -> None:
        storpool = FakeStorPool(runtime)
        self.hosts = [Host(runtime, name, storpool) for name in HOSTS]
        self.rig = Rig(runtime, storpool=storpool, hosts={host.name: host for host in self.hosts})
        self.rig.server.start()
        self.id = str(self.rig.deploy(*self.rig.ready())["id"])
        assert self.place == ("Running", SOURCE)
        self.hosts[0].power = ON
        self.ids = [str(host["id"]) for host in self.rig.call("listHosts")["host"]]

    def leave(self, step: str) -> None:
        """As a server leaves it that died at this step."""
        with self.rig.records.transaction("a server died") as tx:
            vm = tx.get(Vm, 1)
            tx.insert(ItWork(instance_id=1, step=step, source_id=SOURCE, resource_id=DESTINATION, created=tx.now))
            if step == MIGRATING:
                tx.transition(vm, VmEvent.MIGRATION_REQUESTED, host_id=DESTINATION, last_host_id=SOURCE)

    def settle(self, source: VmPower | None, destination: VmPower | None) -> None:
        """With hosts that say so; None for one that is away."""
        for host, power in zip(self.hosts, (source, destination), strict=True):
            host.down = power is None
            host.power = power or OFF
            host.calls.clear()
        self.rig.server.services.recovery.settle()

    @property
    def place(self) -> tuple[str, int | None]:
        (vm,) = self.rig.rows(Vm)
        return vm.state.value, vm.host_id

    @property
    def awaited(self) -> list[int]:
        """Hosts that must still confirm that the VM is not there."""
        return [work.host_id for work in self.rig.rows(HaWork)]

    @property
    def under_way(self) -> bool:
        return bool(self.rig.rows(ItWork))


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(migration, "PAUSE", 0.0)
    runtime = ThreadRuntime("management")
    site = Site(runtime)
    yield site
    assert site.rig.server.stop()
    runtime.kill()


@pytest.mark.parametrize(
    ("source", "destination", "host", "awaited"),
    [
        (ON, OFF, SOURCE, []),
        (ON, PAUSED, SOURCE, []),
        (ON, None, SOURCE, [DESTINATION]),
        (OFF, ON, DESTINATION, []),
        (PAUSED, ON, DESTINATION, []),
        (None, ON, DESTINATION, [SOURCE]),
        (OFF, PAUSED, DESTINATION, []),
        (OFF, OFF, SOURCE, []),
        (PAUSED, OFF, SOURCE, []),
        (PAUSED, PAUSED, SOURCE, []),
    ],
)
def test_a_vm_runs_where_its_guest_is(
    site: Site, source: VmPower | None, destination: VmPower | None, host: int, awaited: list[int]
) -> None:
    site.leave(MIGRATING)
    site.settle(source, destination)
    assert site.place == ("Running", host)
    assert not site.under_way
    assert site.awaited == awaited
    # Only a guest that stopped in the middle, and is surely not at the destination, is let go on.
    assert site.hosts[0].power is (ON if host == SOURCE and source is not OFF else OFF)
    if host == DESTINATION:
        assert site.hosts[1].power is destination


@pytest.mark.parametrize(("source", "destination"), [(None, OFF), (None, PAUSED), (OFF, None), (PAUSED, None)])
def test_nothing_is_decided_while_no_host_can_tell(
    site: Site, source: VmPower | None, destination: VmPower | None
) -> None:
    site.leave(MIGRATING)
    site.settle(source, destination)
    assert site.place == ("Migrating", DESTINATION)
    assert site.under_way
    assert all("Stop" not in call for host in site.hosts for call in host.calls)
    site.settle(OFF, ON)
    assert site.place == ("Running", DESTINATION)


@pytest.mark.parametrize(
    ("fenced", "source", "destination", "host", "awaited"),
    [
        (SOURCE, None, ON, DESTINATION, [SOURCE]),
        (SOURCE, None, OFF, SOURCE, []),
        (DESTINATION, OFF, None, SOURCE, [DESTINATION]),
        (DESTINATION, PAUSED, None, SOURCE, [DESTINATION]),
    ],
)
def test_a_host_that_was_fenced_runs_nothing(
    site: Site, fenced: int, source: VmPower | None, destination: VmPower | None, host: int, awaited: list[int]
) -> None:
    site.leave(MIGRATING)
    with site.rig.records.transaction("fenced") as tx:
        tx.update(tx.get(HostRow, fenced), status="Down", fenced=True)
    site.settle(source, destination)
    assert site.place == ("Running", host)
    assert site.awaited == awaited


def test_a_vm_with_an_iso_stays(site: Site) -> None:
    with site.rig.records.transaction("iso") as tx:
        tx.update(tx.get(Vm, 1), iso_changing=True)
    with pytest.raises(CloudError, match="ISO"):
        site.rig.call("migrateVirtualMachine", virtualmachineid=site.id, hostid=site.ids[1])
    assert not site.under_way and site.hosts[1].calls.count("PrepareForMigrationCommand") == 0


def test_before_the_source_was_asked_to_migrate_only_the_destination_is_cleaned(site: Site) -> None:
    site.leave(PREPARE)
    site.settle(ON, OFF)
    assert site.place == ("Running", SOURCE)
    assert (site.hosts[0].calls, site.hosts[1].calls) == ([], ["PrepareForMigrationCommand"])
    assert not site.under_way


@pytest.mark.parametrize("step", [PREPARE, MIGRATING])
def test_volumes_may_be_attached_at_both_hosts_until_it_is_over(site: Site, step: str) -> None:
    driver = RecordsOfDriver(site.rig.records)
    site.leave(step)
    record = driver.vm(site.id)
    assert record is not None and record.may_use(SOURCE) and record.may_use(DESTINATION)
    site.settle(ON, OFF)
    record = driver.vm(site.id)
    assert record is not None and record.may_use(SOURCE) and not record.may_use(DESTINATION)


def test_an_answer_that_was_lost_is_a_success_when_the_guest_came_through(site: Site) -> None:
    site.hosts[0].fail("MigrateCommand", Unknown("the connection broke"), after=True)
    site.hosts[0].power, site.hosts[1].power = OFF, ON
    site.rig.call("migrateVirtualMachine", virtualmachineid=site.id, hostid=site.ids[1])
    assert site.place == ("Running", DESTINATION)
    assert "StopCommand" in site.hosts[0].calls, "the source was not asked to let the disks go"


def test_a_refusal_leaves_the_vm_where_it_is_and_says_why(site: Site) -> None:
    site.hosts[0].fail("MigrateCommand", Error("QEMU said no"))
    with pytest.raises(CloudError, match="QEMU said no"):
        site.rig.call("migrateVirtualMachine", virtualmachineid=site.id, hostid=site.ids[1])
    assert site.place == ("Running", SOURCE)
    assert site.hosts[1].calls[-2:] == ["PrepareForMigrationCommand"] * 2
    assert "CancelMigrationCommand" not in site.hosts[0].calls


def test_a_stop_that_a_host_has_not_confirmed_keeps_the_vm_from_it(site: Site) -> None:
    site.leave(MIGRATING)
    site.settle(None, ON)
    assert site.awaited == [SOURCE]
    with pytest.raises(CloudError, match="has not confirmed"):
        site.rig.call("migrateVirtualMachine", virtualmachineid=site.id, hostid=site.ids[0])
    site.hosts[0].down = False
    site.rig.server.services.recovery.settle()
    assert site.awaited == [] and site.place == ("Running", DESTINATION)
