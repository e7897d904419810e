"""Both ends of a live migration: what each leaves attached, whatever fails at any step."""

from __future__ import annotations

import msgspec
import pytest
from agent_fakes import Rig, unreachable
from test_agent_handlers import VM, ok, refused, started

from harness.agent.domain_xml import domain_xml, with_console
from harness.agent.operations import SETTLE_TIME, Kind, Step
from harness.spi.commands import (
    CancelMigrationCommand,
    CheckVirtualMachineAnswer,
    CheckVirtualMachineCommand,
    MigrateCommand,
    PrepareForMigrationAnswer,
    PrepareForMigrationCommand,
)
from harness.spi.errors import Dead, Error, ErrorClass, Unavailable, Unknown
from harness.spi.objects import VmPower
from harness.spi.ports import DomainState

MIGRATE = MigrateCommand(vm_name=VM, destination="qemu+tcp://kvm2/system")


def looked_at(rig: Rig) -> None:
    """Recovery's next round, once everything that is open has settled."""
    rig.clock.time += SETTLE_TIME
    assert not rig.agent().recovery.look_at_all()


# The destination.


def test_the_destination_attaches_beside_the_source_and_says_where_it_is_reached() -> None:
    rig = Rig()
    vm = rig.vm(3)
    rig.elsewhere = dict.fromkeys(rig.volumes, True)
    answer = ok(rig.agent().handle(PrepareForMigrationCommand(vm=vm)))
    assert isinstance(answer, PrepareForMigrationAnswer)
    assert answer.destination == "qemu+tcp://kvm1/system"
    assert rig.attached == set(rig.volumes)
    assert rig.elsewhere == dict.fromkeys(rig.volumes, True), "the source lost a disk"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_destination_that_fails_at_any_disk_has_none_of_them(number: int, late: bool) -> None:
    """Users' scenario: the preparation of a migration fails on the second of three disks."""
    rig = Rig()
    vm = rig.vm(3)
    rig.fail(f"attach d.n.{number}", unreachable() if not late else Unavailable("StorPool gave up"), late=late)
    refused(rig.agent().handle(PrepareForMigrationCommand(vm=vm)), ErrorClass.TRANSIENT)
    assert rig.attached == set()


def test_a_domain_of_that_name_keeps_the_destination_from_preparing() -> None:
    rig = Rig()
    started(rig)
    refused(rig.agent().handle(PrepareForMigrationCommand(vm=rig.vm(2))), ErrorClass.CONFLICT, VM, "already")
    assert not [step for step in rig.steps if "tach" in step]


def test_a_rollback_takes_away_what_waits_and_never_a_guest_that_runs() -> None:
    rig = Rig()
    vm = rig.vm(2)
    agent = rig.agent()
    ok(agent.handle(PrepareForMigrationCommand(vm=vm)))
    rig.domains[VM], rig.states[VM] = domain_xml(vm, rig.config), DomainState.RUNNING
    refused(agent.handle(PrepareForMigrationCommand(vm=vm, rollback=True)), ErrorClass.CONFLICT, VM, "runs")
    assert rig.states[VM] is DomainState.RUNNING and rig.attached
    rig.states[VM] = DomainState.PAUSED
    ok(agent.handle(PrepareForMigrationCommand(vm=vm, rollback=True)))
    assert VM not in rig.states and rig.attached == set()
    ok(agent.handle(PrepareForMigrationCommand(vm=vm, rollback=True)))


def test_a_vm_that_never_comes_leaves_nothing_attached_and_one_that_is_awaited_keeps_its_disks() -> None:
    rig = Rig()
    agent = rig.agent()
    ok(agent.handle(PrepareForMigrationCommand(vm=rig.vm(2))))
    # Another operation of the host's past is looked at while the domain is not there yet.
    assert not agent.recovery.look_at_all()
    assert rig.attached == set(rig.volumes)
    rig.clock.time += SETTLE_TIME
    assert not agent.recovery.look_at_all()
    assert rig.attached == set()
    assert rig.records() == []


# The source.


def test_the_source_lets_the_disks_go_once_the_domain_has_left() -> None:
    rig = Rig()
    started(rig)
    rig.after["migrate"] = lambda: rig.steps.append(f"left with {sorted(rig.attached)}")
    ok(rig.agent().handle(MIGRATE))
    assert rig.attached == set()
    assert "left with ['d.n.1', 'd.n.2']" in rig.steps
    assert [(record.kind, record.step) for record in rig.records()] == [(Kind.MIGRATE, Step.SETTLING)]
    # A copy of an old attach comes after all.
    rig.attached.add("d.n.1")
    looked_at(rig)
    assert rig.attached == set() and rig.records() == []


def test_a_disk_that_stays_at_the_source_does_not_make_the_migration_fail() -> None:
    rig = Rig()
    started(rig)
    rig.fail("detach d.n.2", unreachable())
    agent = rig.agent()
    answer = ok(agent.handle(MIGRATE))
    assert "d.n.2" in answer.details and rig.attached == {"d.n.2"}
    assert not agent.recovery.look_at_all()
    assert rig.attached == set()


def test_the_domain_becomes_at_the_destination_what_that_asked_for() -> None:
    rig = Rig()
    rig.config = msgspec.structs.replace(rig.config, log_directory="/here")
    prepared = rig.agent().handle(PrepareForMigrationCommand(vm=rig.vm(2)))
    assert isinstance(prepared, PrepareForMigrationAnswer) and prepared.console == f"/here/{VM}.console"
    started(rig)
    ok(rig.agent().handle(msgspec.structs.replace(MIGRATE, console="/there/console")))
    assert "/here" not in rig.moved[VM] and rig.moved[VM].count("/there/console") == 2


@pytest.mark.parametrize("error", [Error("QEMU said no"), Unavailable("libvirtd is away"), Unknown("no answer")])
def test_after_an_error_a_domain_that_runs_on_keeps_everything(error: Error) -> None:
    rig = Rig()
    started(rig)
    rig.fail("migrate", error)
    refused(rig.agent().handle(MIGRATE), ErrorClass.PERMANENT, str(error), "runs there as before")
    assert rig.states[VM] is DomainState.RUNNING and rig.attached == set(rig.volumes)
    assert rig.records() == []


@pytest.mark.parametrize("state", [None, DomainState.PAUSED, DomainState.SHUT_OFF])
def test_where_a_domain_is_that_does_not_run_here_any_more_is_not_for_the_source_to_say(
    state: DomainState | None,
) -> None:
    rig = Rig()
    started(rig)

    def end() -> None:
        if state is not None:
            rig.states[VM], rig.domains[VM] = state, xml

    xml = rig.domains[VM]
    rig.after["migrate"] = end
    rig.fail("migrate", Error("it broke"), late=True)
    agent = rig.agent()
    refused(agent.handle(MIGRATE), ErrorClass.UNKNOWN, "it broke")
    assert rig.attached == set(rig.volumes), "taken from a domain that may have them"
    assert not agent.recovery.look_at_all()
    # libvirt may have left it paused, and the destination may not have it: then its disks are needed again.
    assert rig.attached == (set(rig.volumes) if state is DomainState.PAUSED else set())


def test_what_cannot_be_read_after_an_error_is_not_known() -> None:
    rig = Rig()
    started(rig)
    rig.fail("migrate", Error("it broke"))
    rig.fail("cancel_migration", Unavailable("libvirtd is away"))
    refused(rig.agent().handle(MIGRATE), ErrorClass.UNKNOWN, "it broke", "libvirtd is away")
    assert rig.attached == set(rig.volumes)


@pytest.mark.parametrize("late", [False, True])
def test_the_next_agent_ends_a_migration_and_looks_where_the_domain_is(late: bool) -> None:
    rig = Rig()
    started(rig)
    (rig.late_failures if late else rig.failures)["migrate"] = [Dead("killed")]
    with pytest.raises(Dead):
        rig.agent().handle(MIGRATE)
    rig.steps.clear()
    assert not rig.agent().recovery.look_at_all()
    assert rig.steps[0] == "cancel_migration"
    assert rig.attached == (set() if late else set(rig.volumes))


def test_a_destination_is_a_libvirtd_and_nothing_else() -> None:
    rig = Rig()
    started(rig)
    command = MigrateCommand(vm_name=VM, destination="test:///default")
    refused(rig.agent().handle(command), ErrorClass.PERMANENT, "test:///default")
    assert rig.steps == []


def test_a_paused_domain_is_let_go_on_only_when_that_is_asked_for() -> None:
    rig = Rig()
    started(rig)
    rig.states[VM] = DomainState.PAUSED
    agent = rig.agent()
    for resume, power in ((False, VmPower.PAUSED), (True, VmPower.ON)):
        answer = ok(agent.handle(CancelMigrationCommand(vm_name=VM, resume=resume)))
        assert isinstance(answer, CheckVirtualMachineAnswer) and answer.power is power
    assert "cancel_migration" in rig.steps
    answer = ok(agent.handle(CheckVirtualMachineCommand(vm_name="i-2-9-VM")))
    assert isinstance(answer, CheckVirtualMachineAnswer) and answer.power is VmPower.OFF


def test_the_console_goes_to_a_file_of_the_destination() -> None:
    rig = Rig()
    xml = '<domain><devices><disk type="file"><source file="/a"/></disk>{}</devices></domain>'
    file = '<{0} type="file"><source path="{1}" append="on"/></{0}>'
    here, there = (xml.format(file.format("serial", path) + file.format("console", path)) for path in ("/here", "/x"))
    assert with_console(here, "/x").replace(" />", "/>") == there
    assert with_console(here, None).replace(" />", "/>") == here
    assert "pty" in domain_xml(rig.vm(1), rig.config)
