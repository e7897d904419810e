"""Encrypted disks: what libvirt is lent and for how long, what programs are told, and what a failure leaves."""

from __future__ import annotations

import itertools
import logging

import msgspec
import pytest
from agent_fakes import MIB, Rig

from harness.agent.operations import SETTLE_TIME
from harness.spi.commands import (
    AttachCommand,
    CheckVirtualMachineCommand,
    PingAnswer,
    PingCommand,
    PrepareForMigrationCommand,
    StartCommand,
    StopCommand,
    StorPoolSetVolumeEncryptionAnswer,
    StorPoolSetVolumeEncryptionCommand,
)
from harness.spi.errors import Conflict, Dead, ErrorClass, Unavailable, Unknown
from harness.spi.objects import LUKS_HEADER, Disk, VirtualMachine
from harness.spi.passphrase import Passphrase
from harness.spi.ports import CommandResult, DomainState

VM = "i-2-7-VM"
SIZE = 64 * MIB


def key(rig: Rig) -> Passphrase:
    return Passphrase(rig.passphrase.decode())


def encrypted(rig: Rig, disk: Disk) -> Disk:
    return msgspec.structs.replace(disk, encrypted=True, passphrase=key(rig))


def vm(rig: Rig) -> VirtualMachine:
    """Its first and its last disk are encrypted."""
    plain = rig.vm(3)
    first, second, third = plain.disks
    return msgspec.structs.replace(plain, disks=(encrypted(rig, first), second, encrypted(rig, third)))


def test_libvirt_knows_the_passphrases_while_the_domain_is_made_and_no_longer() -> None:
    rig, seen = Rig(), []
    wanted = vm(rig)
    rig.after["create"] = lambda: seen.append(dict(rig.secrets))
    answer = rig.agent().handle(StartCommand(vm=wanted))
    assert answer.result, answer.details
    assert seen == [{disk.path: rig.passphrase for disk in wanted.disks if disk.encrypted}]
    assert not rig.secrets and not rig.files
    assert rig.domains[VM].count('format="luks"') == 2
    assert rig.passphrase.decode() not in rig.domains[VM]


def test_an_answer_to_an_attach_has_no_passphrase() -> None:
    rig = Rig()
    agent = rig.agent()
    agent.handle(StartCommand(vm=rig.vm(1)))
    answer = agent.handle(AttachCommand(vm_name=VM, disk=encrypted(rig, rig.volume(1))))
    assert answer.result, answer.details
    assert rig.passphrase not in msgspec.json.encode(answer)
    assert not rig.secrets


def test_an_encrypted_disk_without_its_passphrase_is_refused_and_left_detached() -> None:
    rig = Rig()
    agent = rig.agent()
    agent.handle(StartCommand(vm=rig.vm(1)))
    bare = msgspec.structs.replace(rig.volume(1), encrypted=True)
    answer = agent.handle(AttachCommand(vm_name=VM, disk=bare))
    assert not answer.result and "no passphrase" in answer.details
    assert rig.attached == {"d.n.1"}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [Unavailable("away"), Unknown("perhaps")])
def test_whatever_step_of_a_start_fails_no_passphrase_stays_with_libvirt(error: Exception, late: bool) -> None:
    for number in itertools.count():
        rig = Rig()
        command = StartCommand(vm=vm(rig))
        rig.strike = (number, error, late)
        agent = rig.agent()
        agent.handle(command)
        if len(rig.steps) <= number:
            break
        rig.strike = None
        agent.recovery.look_at_all()
        assert not rig.secrets, f"after step {number}, {rig.steps[number]}"
    assert number > 8


@pytest.mark.parametrize("late", [False, True])
def test_what_an_agent_that_died_lent_is_taken_back_by_the_next_one(late: bool) -> None:
    for number in itertools.count():
        rig = Rig()
        command = StartCommand(vm=vm(rig))
        rig.strike = (number, Dead("killed"), late)
        try:
            rig.agent().handle(command)
        except Dead:
            pass
        if len(rig.steps) <= number:
            break
        rig.strike = None
        rig.agent().recovery.look_at_all()
        assert not rig.secrets, f"after step {number}, {rig.steps[number]}"


def test_a_passphrase_that_cannot_be_taken_back_keeps_the_operation_open_and_the_vm_running() -> None:
    rig = Rig()
    rig.fail("undefine secret", Unavailable("libvirtd is away"), times=2)
    agent = rig.agent()
    assert agent.handle(StartCommand(vm=vm(rig))).result
    assert rig.running(VM) and len(rig.secrets) == 2 and len(rig.records()) == 1
    agent.recovery.look_at_all()
    assert not rig.secrets and rig.running(VM)
    assert rig.attached == set(rig.volumes)


def test_passphrases_without_a_record_are_taken_back_when_the_agent_starts() -> None:
    rig = Rig()
    stray = rig.volume(1).path
    rig.secrets |= {stray: b"x", "/dev/somebody-elses": b"y"}
    rig.agent().recovery._take_back_strays()
    assert list(rig.secrets) == ["/dev/somebody-elses"]


def programs(rig: Rig, failing: str = "") -> list[tuple[str, ...]]:
    """Let programs succeed but for one; every command line that is run."""
    ran: list[tuple[str, ...]] = []

    def run(argv: tuple[str, ...]) -> CommandResult:
        ran.append(argv)
        failed = failing and failing in argv
        return CommandResult(argv, 1 if failed else 0, b"", b"Device or resource busy\n" if failed else b"")

    rig.programs = run
    return ran


def command(rig: Rig, *, source: bool) -> StorPoolSetVolumeEncryptionCommand:
    volume, template = rig.volume(0, SIZE + LUKS_HEADER), rig.volume(1, SIZE)
    rig.snapshots.add("d.n.2")
    return StorPoolSetVolumeEncryptionCommand(
        path=volume.path, size=volume.size, passphrase=key(rig), source=template.path if source else None
    )


@pytest.mark.parametrize("source", [False, True])
def test_a_volume_is_encrypted_checked_and_detached(source: bool) -> None:
    rig = Rig()
    ran = programs(rig)
    answer = rig.agent().handle(command(rig, source=source))
    assert isinstance(answer, StorPoolSetVolumeEncryptionAnswer) and answer.result, answer.details
    assert answer.size == SIZE
    verbs = [argv[1] for argv in ran]
    assert verbs == ["luksFormat", "convert", "open"] if source else ["luksFormat", "open"]
    assert str(LUKS_HEADER // 512) in ran[0]
    assert not rig.attached


@pytest.mark.parametrize("failing", ["luksFormat", "convert", "open"])
def test_a_program_that_fails_is_an_error_and_leaves_nothing_attached(failing: str) -> None:
    """Weakness 1: the original answered a success then."""
    rig = Rig()
    programs(rig, failing)
    answer = rig.agent().handle(command(rig, source=True))
    assert not answer.result and "busy" in answer.details
    assert not rig.attached


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [Unavailable("away"), Unknown("perhaps"), Conflict("busy")])
def test_whatever_step_of_it_fails_it_is_an_error_or_all_of_it_was_done(error: Exception, late: bool) -> None:
    for number in itertools.count():
        rig = Rig()
        ran = programs(rig)
        rig.strike = (number, error, late)
        agent = rig.agent()
        answer = agent.handle(command(rig, source=True))
        if len(rig.steps) <= number:
            break
        assert not answer.result or [argv[1] for argv in ran] == ["luksFormat", "convert", "open"], rig.steps
        rig.strike = None
        agent.recovery.look_at_all()
        assert not rig.attached, f"after step {number}, {rig.steps[number]}"
    assert number > 5


def test_a_template_larger_than_the_guests_part_is_refused() -> None:
    rig = Rig()
    programs(rig)
    wanted = command(rig, source=True)
    rig.volumes["d.n.2"] = SIZE + 512
    answer = rig.agent().handle(wanted)
    assert not answer.result and answer.error_class is ErrorClass.PERMANENT and "room" in answer.details
    assert not rig.attached


@pytest.mark.parametrize("there", [False, True])
def test_a_ping_tells_whether_the_host_can_encrypt(there: bool) -> None:
    rig = Rig(cryptsetup=there)
    answer = rig.agent().handle(PingCommand())
    assert isinstance(answer, PingAnswer) and answer.volume_encryption is there


def test_a_passphrase_is_in_no_text_that_is_made_of_a_command(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    start = StartCommand(vm=vm(rig))
    texts = [repr(start), str(start), f"{start}", repr(command(rig, source=True))]
    with caplog.at_level(logging.DEBUG):
        rig.fail("create", Unavailable("refused"))
        agent = rig.agent()
        texts.append(agent.handle(start).details)
        agent.handle(StopCommand(vm_name=VM, force=True))
    assert not any(rig.passphrase.decode() in text for text in (*texts, caplog.text))
    assert rig.passphrase in msgspec.json.encode(start), "or the host could not open the disk"


def prepared(rig: Rig) -> PrepareForMigrationCommand:
    return PrepareForMigrationCommand(vm=vm(rig))


def test_the_destination_of_a_migration_knows_the_passphrases_until_the_domain_runs_there() -> None:
    rig = Rig()
    agent, command, look = rig.agent(), prepared(rig), CheckVirtualMachineCommand(vm_name=VM)
    assert agent.handle(command).result
    assert sorted(rig.secrets) == [disk.path for disk in command.vm.disks if disk.encrypted]
    agent.handle(look)
    assert len(rig.secrets) == 2, "it has not come yet"
    rig.domains[VM], rig.states[VM] = "<domain/>", DomainState.PAUSED
    agent.handle(look)
    assert len(rig.secrets) == 2, "its QEMU may not have opened the disks yet"
    rig.states[VM] = DomainState.RUNNING
    agent.handle(look)
    assert not rig.secrets


def test_a_passphrase_that_is_lent_for_a_migration_is_not_taken_back_as_that_of_an_older_operation() -> None:
    rig = Rig()
    command = prepared(rig)
    rig.fail("create", Dead("killed"))
    with pytest.raises(Dead):
        rig.agent().handle(StartCommand(vm=command.vm))
    agent = rig.agent()
    rig.fail("secrets", Unavailable("libvirtd is away"))
    assert agent.handle(command).result
    assert not agent.recovery.look_at_all()
    assert len(rig.secrets) == 2 and rig.attached == set(rig.volumes), "its QEMU has not opened the disks yet"
    rig.clock.time += SETTLE_TIME
    assert not agent.recovery.look_at_all()
    assert not rig.secrets


def test_a_migration_that_does_not_come_leaves_no_passphrase() -> None:
    rig = Rig()
    agent, command = rig.agent(), prepared(rig)
    assert agent.handle(command).result
    assert agent.handle(msgspec.structs.replace(command, rollback=True)).result
    assert not rig.secrets and not rig.attached


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [Unavailable("away"), Unknown("perhaps"), Dead("killed")])
def test_whatever_step_of_a_preparation_fails_no_passphrase_stays(error: BaseException, late: bool) -> None:
    for number in itertools.count():
        rig = Rig()
        command = prepared(rig)
        rig.strike = (number, error, late)
        try:
            answer = rig.agent().handle(command)
        except Dead:
            answer = None
        if len(rig.steps) <= number:
            break
        rig.strike = None
        if answer is None or not answer.result:
            rig.agent().recovery.look_at_all()
            assert not rig.secrets, f"after step {number}, {rig.steps[number]}"
    assert number > 5
