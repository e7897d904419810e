"""What an agent keeps of its operations, and what the next look makes of what was left open."""

from __future__ import annotations

import msgspec
import pytest
from agent_fakes import FakeHost, Rig, unreachable

from harness.agent.adaptor import LEAST_DETACH_SECONDS
from harness.agent.operations import SETTLE_TIME, Kind, Operations, Record, Step
from harness.agent.recovery import LOOK_SECONDS
from harness.spi.commands import (
    AttachCommand,
    DettachCommand,
    PingCommand,
    StartCommand,
    StopCommand,
    StorPoolDownloadTemplateCommand,
)
from harness.spi.errors import Dead, ErrorClass, MisuseError, Unavailable, Unknown
from harness.spi.objects import DataStore, Disk, ImageFormat, StoreRole, TemplateObject
from harness.spi.ports import DomainState
from harness.storpool import AnswerLost

VM = "i-2-7-VM"
LOOKS = ("domains", "xml")
DIRECTORY = "/var/lib/splab-agent/operations"
POOL = DataStore(id=1, uuid="p", name="pool", role=StoreRole.PRIMARY, provider="StorPool", url="storpool:ssd")
STORE = DataStore(id=2, uuid="s", name="secondary", role=StoreRole.IMAGE, provider="NFS", url="nfs://10.0.0.9/x")


def up(rig: Rig, disks: int = 1) -> tuple[Disk, ...]:
    command = StartCommand(vm=rig.vm(disks))
    assert rig.agent().handle(command).result
    return command.vm.disks


def put(rig: Rig, kind: Kind, *disks: Disk, vm: str | None = VM, id: str = "op-1") -> Record:
    """A record that a dead agent left."""
    record = Record(id=id, kind=kind, vm=vm, paths=tuple(disk.path for disk in disks), began_at=rig.clock.time)
    rig.files[f"{DIRECTORY}/{id}.json"] = msgspec.json.encode(record).decode()
    return record


def look(rig: Rig) -> bool:
    rig.steps.clear()
    return rig.agent().recovery.look_at_all()


def settle(rig: Rig) -> bool:
    rig.clock.time += SETTLE_TIME + 1
    return look(rig)


def detaches(rig: Rig) -> list[str]:
    return [step for step in rig.steps if step.startswith("detach d.n")]


def test_the_record_is_written_before_the_first_effect_and_removed_after_the_last() -> None:
    rig = Rig()
    (disk,) = up(rig)
    effects = [step for step in rig.steps if step not in LOOKS]
    assert effects == ["write record", "attach d.n.1", "create", "start domain", "remove record"]
    rig.steps.clear()
    assert rig.agent().handle(PingCommand()).result
    assert rig.agent().handle(StopCommand(vm_name=VM, volumes_to_disconnect=(disk.path,))).result
    effects = [step for step in rig.steps if step not in LOOKS]
    assert effects == ["write record", "shutdown", "detach d.n.1", "undefine", "remove record"]


def test_nothing_is_done_when_the_intent_cannot_be_written() -> None:
    rig = Rig()
    rig.fail("write record", Unavailable("disk full"))
    answer = rig.agent().handle(StartCommand(vm=rig.vm(1)))
    assert (answer.result, answer.error_class, answer.details) == (False, ErrorClass.TRANSIENT, "disk full")
    assert (rig.attached, rig.domains, rig.files) == (set(), {}, {})


@pytest.mark.parametrize("force", [False, True])
def test_a_vm_is_stopped_and_a_disk_detached_when_no_record_can_be_written(
    force: bool, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()
    first, second = up(rig, 2)
    agent = rig.agent()
    rig.fail("write record", Unavailable("disk full"), times=2)
    assert agent.handle(DettachCommand(vm_name=VM, disk=second)).result
    assert (rig.sources(VM), rig.attached) == ([first.path], {"d.n.1"})
    assert agent.handle(StopCommand(vm_name=VM, force=force, volumes_to_disconnect=(first.path,))).result
    assert (rig.domains, rig.attached, rig.files) == ({}, set(), {})
    assert caplog.text.count("goes on without a record: disk full") == 2


def test_a_stop_without_a_record_that_fails_is_finished_by_the_same_agent_nevertheless() -> None:
    rig = Rig()
    (disk,) = up(rig)
    agent = rig.agent()
    rig.fail("write record", Unavailable("disk full"))
    rig.fail("detach d.n.1", Unavailable("cut"))
    assert not agent.handle(StopCommand(vm_name=VM, force=True, volumes_to_disconnect=(disk.path,))).result
    assert not rig.running(VM)
    assert not agent.recovery.look_at_all()
    assert (rig.domains, rig.attached) == ({}, set())


def test_a_record_that_cannot_be_removed_is_no_failure_and_goes_later() -> None:
    rig = Rig()
    rig.fail("remove record", Unavailable("read-only"))
    up(rig)
    assert [record.step for record in rig.records()] == [Step.ACTING]
    assert not look(rig)
    assert not settle(rig)
    assert (rig.records(), rig.attached) == ([], {"d.n.1"})


def test_what_a_handler_undid_is_over_and_what_it_could_not_undo_stays_open() -> None:
    rig = Rig()
    up(rig)
    disk = rig.volume(4)
    rig.fail("attach_device", Unavailable("no slot"))
    assert not rig.agent().handle(AttachCommand(vm_name=VM, disk=disk)).result
    assert (rig.records(), rig.attached) == ([], {"d.n.1"})
    rig.fail("attach_device", Unavailable("no slot"))
    rig.fail("detach d.n.5", Unavailable("cut"))
    agent = rig.agent()
    assert not agent.handle(AttachCommand(vm_name=VM, disk=disk)).result
    assert rig.attached == {"d.n.1", "d.n.5"}
    assert not agent.recovery.look_at_all()
    assert rig.attached == {"d.n.1"}
    assert [record.step for record in rig.records()] == [Step.SETTLING]


def test_an_attach_that_comes_late_is_found_when_it_can_come_no_more() -> None:
    rig = Rig()
    up(rig)
    disk = rig.volume(4)
    rig.fail("attach d.n.5", AnswerLost("lost"))
    assert rig.agent().handle(AttachCommand(vm_name=VM, disk=disk)).result
    assert [record.kind for record in rig.records()] == [Kind.LATE_ATTACH]
    assert not look(rig)
    assert detaches(rig) == []
    assert rig.agent().handle(DettachCommand(vm_name=VM, disk=disk)).result
    rig.attached.add("d.n.5")
    assert not settle(rig)
    assert (rig.attached, rig.records()) == ({"d.n.1"}, [])


def test_an_attach_that_storpool_gave_up_waiting_for_is_looked_for_and_one_that_was_not_sent_is_not() -> None:
    for error, kinds in ((Unavailable("client is down"), {Kind.LATE_ATTACH}), (AnswerLost("lost"), {Kind.LATE_ATTACH})):
        rig = Rig()
        up(rig)
        disk = rig.volume(4)
        rig.fail("attach d.n.5", error, times=3)
        assert not rig.agent().handle(AttachCommand(vm_name=VM, disk=disk)).result
        assert {record.kind for record in rig.records() if record.step is Step.SETTLING} == kinds
    rig = Rig()
    up(rig)
    rig.fail("attach d.n.5", unreachable(), times=3)
    assert not rig.agent().handle(AttachCommand(vm_name=VM, disk=rig.volume(4))).result
    assert rig.records() == []


def test_many_lost_answers_for_one_volume_leave_one_record() -> None:
    rig = Rig()
    disk = up(rig)[0]
    agent = rig.agent()
    for _ in range(3):
        rig.fail("attach d.n.1", AnswerLost("lost"))
        assert agent.handle(StartCommand(vm=rig.vm(1))).result
    (record,) = rig.records()
    assert (record.kind, record.paths) == (Kind.LATE_ATTACH, (disk.path,))


@pytest.mark.parametrize("kind", [Kind.START, Kind.STOP, Kind.ATTACH, Kind.DETTACH, Kind.CHECK, Kind.LATE_ATTACH])
@pytest.mark.parametrize("state", [DomainState.RUNNING, DomainState.PAUSED])
def test_a_disk_of_a_domain_that_is_on_is_not_even_asked_for(kind: Kind, state: DomainState) -> None:
    rig = Rig()
    disks = up(rig, 2)
    rig.states[VM] = state
    put(rig, kind, *disks, vm=None if kind in (Kind.CHECK, Kind.LATE_ATTACH) else "i-2-8-VM")
    assert not look(rig)
    assert detaches(rig) == []
    assert not settle(rig)
    assert detaches(rig) == []
    assert (rig.attached, rig.files) == ({"d.n.1", "d.n.2"}, {})


@pytest.mark.parametrize("kind", [Kind.START, Kind.STOP])
def test_a_domain_that_is_off_is_forgotten_once_all_its_disks_are_detached(kind: Kind) -> None:
    rig = Rig()
    disks = up(rig, 2)
    rig.states[VM] = DomainState.SHUT_OFF
    put(rig, kind, disks[0])
    rig.fail("detach d.n.1", Unavailable("cut"))
    assert look(rig)
    assert VM in rig.domains
    assert not look(rig)
    assert (rig.domains, rig.attached) == ({}, set())


def test_a_domain_that_is_off_stays_while_its_disk_is_kept_open() -> None:
    rig = Rig()
    (disk,) = up(rig)
    rig.states[VM] = DomainState.SHUT_OFF
    put(rig, Kind.STOP, disk)
    rig.busy_detaches = 10_000
    assert not look(rig)
    assert (set(rig.domains), rig.attached) == ({VM}, {"d.n.1"})
    rig.busy_detaches = 0
    assert not settle(rig)
    assert (rig.domains, rig.attached, rig.files) == ({}, set(), {})


def test_a_volume_that_something_else_keeps_open_is_told_and_given_up_when_it_has_settled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    up(rig)
    disk = rig.volume(4)
    rig.attached.add("d.n.5")
    put(rig, Kind.DETTACH, disk)
    rig.busy_detaches = 10_000
    assert not look(rig)
    assert [record.step for record in rig.records()] == [Step.SETTLING]
    assert not settle(rig)
    assert rig.records() == []
    assert rig.attached == {"d.n.1", "d.n.5"}
    assert f"{disk.path} is still open on host kvm1" in caplog.text


def test_a_command_finishes_what_is_open_of_its_vm_or_volume_first_and_leaves_the_rest() -> None:
    rig = Rig()
    up(rig)
    stale, other = rig.volume(4), rig.volume(5)
    rig.attached |= {"d.n.5", "d.n.6"}
    put(rig, Kind.ATTACH, stale, id="op-1")
    put(rig, Kind.ATTACH, other, vm="i-2-9-VM", id="op-2")
    assert rig.agent().handle(StartCommand(vm=rig.vm(1))).result
    assert rig.attached == {"d.n.1", "d.n.6"}
    assert rig.agent().handle(DettachCommand(vm_name=VM, disk=other)).result
    assert rig.attached == {"d.n.1"}
    assert {record.step for record in rig.records()} == {Step.SETTLING}


def test_what_cannot_be_finished_does_not_keep_a_vm_from_being_stopped() -> None:
    rig = Rig()
    (disk,) = up(rig)
    put(rig, Kind.ATTACH, rig.volume(4))
    rig.fail("detach d.n.5", Unavailable("cut"), times=99)
    assert rig.agent().handle(StopCommand(vm_name=VM, volumes_to_disconnect=(disk.path,))).result
    assert rig.domains == {}
    assert [record.kind for record in rig.records()] == [Kind.ATTACH]


def test_a_command_that_fails_again_and_again_leaves_one_record() -> None:
    rig = Rig()
    (disk,) = up(rig)
    put(rig, Kind.DETTACH, disk, id="dettach-1")
    put(rig, Kind.DETTACH, rig.volume(4), id="another")
    rig.fail("detach d.n.1", Unavailable("cut"), times=99)
    agent = rig.agent()
    for _ in range(3):
        rig.clock.time += 1
        assert not agent.handle(StopCommand(vm_name=VM, volumes_to_disconnect=(disk.path,))).result
        assert not agent.handle(DettachCommand(vm_name=VM, disk=disk)).result
    kinds = sorted((record.kind, record.paths) for record in rig.records())
    assert kinds == sorted(
        [
            (Kind.DETTACH, (rig.volume(4).path,)),
            (Kind.DETTACH, (disk.path,)),
            (Kind.STOP, (disk.path,)),
        ]
    )


def test_a_copy_that_may_still_be_written_keeps_its_own_record() -> None:
    rig = Rig()
    operations = Operations(rig.clock, FakeHost(rig), DIRECTORY)
    for _ in range(2):
        with pytest.raises(Unknown), operations.begin(Kind.DOWNLOAD, None, ("/dev/storpool-byid/d.n.1",)):
            raise Unknown("qemu-img may still run")
        rig.clock.time += 1
    assert len(rig.records()) == 2


def test_a_look_does_not_hold_its_vm_for_longer_than_it_may_when_storpool_does_not_answer() -> None:
    rig = Rig()
    disks = [rig.volume(number) for number in range(4)]
    put(rig, Kind.START, *disks)
    rig.api_hangs = True
    began = rig.clock.time
    assert look(rig)
    assert rig.clock.time - began < LOOK_SECONDS + LEAST_DETACH_SECONDS + 1
    rig.api_hangs = False
    rig.attached |= {"d.n.1", "d.n.4"}
    assert not look(rig)
    assert rig.attached == set()


@pytest.mark.parametrize("wait", [1.0, 120.0])
def test_a_vm_is_stopped_in_the_time_its_command_has_when_storpool_does_not_answer(wait: float) -> None:
    rig = Rig()
    disks = up(rig, 4)
    put(rig, Kind.ATTACH, rig.volume(4))
    rig.api_hangs = True
    began = rig.clock.time
    stop = StopCommand(vm_name=VM, force=True, wait=wait, volumes_to_disconnect=tuple(disk.path for disk in disks))
    answer = rig.agent().handle(stop)
    assert answer.error_class is ErrorClass.UNKNOWN
    assert not rig.running(VM)
    assert rig.clock.time - began < wait + 4 * (LEAST_DETACH_SECONDS + 1)
    rig.api_hangs = False
    rig.attached.add("d.n.5")
    assert not look(rig)
    assert (rig.domains, rig.attached) == ({}, set())


def test_nothing_is_done_with_a_volume_that_a_program_may_still_write_to() -> None:
    rig = Rig()
    disk = rig.volume(0)
    rig.attached.add("d.n.1")
    put(rig, Kind.DOWNLOAD, disk, vm=None)
    rig.fail("end programs", Unknown("processes 77 were killed but are still there"), times=2)
    image = TemplateObject(id=1, uuid="t", name="t", format=ImageFormat.QCOW2, size=0, store=STORE, path="t.qcow2")
    onto = TemplateObject(id=1, uuid="t", name="t", format=ImageFormat.RAW, size=0, store=POOL, path=disk.path)
    for command in (StorPoolDownloadTemplateCommand(source=image, destination=onto), StartCommand(vm=rig.vm(1))):
        answer = rig.agent().handle(command)
        assert (answer.result, answer.error_class) == (False, ErrorClass.UNKNOWN)
        assert "still there" in answer.details
    assert (rig.attached, rig.domains) == ({"d.n.1"}, {})
    assert rig.agent().handle(StartCommand(vm=rig.vm(1))).result


@pytest.mark.parametrize(("vm", "number"), [(VM, 5), ("i-2-9-VM", 4)])
def test_a_vm_or_volume_that_a_command_works_on_is_left_alone(vm: str, number: int) -> None:
    rig = Rig()
    up(rig)
    disk, stale = rig.volume(4), rig.volume(number)
    put(rig, Kind.ATTACH, stale, vm=vm)
    agent = rig.agent()
    failed: list[bool] = []
    rig.after["attach d.n.5"] = lambda: failed.append(agent.recovery.look_at_all())
    assert agent.handle(AttachCommand(vm_name=VM, disk=disk)).result
    assert failed == [True]
    rig.after.clear()
    assert not agent.recovery.look_at_all()
    assert rig.attached == {"d.n.1", "d.n.5"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"version":2,"id":"op-1","kind":"attach","began_at":1}',
        '{"id":"op-1","kind":"att',
        "\0\0\0\0",
        '{"id":"op-1","kind":"attach","began_at":1,"colour":"blue"}',
        "[]",
    ],
)
def test_a_record_that_cannot_be_read_is_told_and_left_and_stops_nothing(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()
    rig.files[f"{DIRECTORY}/op-1.json"] = text
    up(rig)
    assert not settle(rig)
    assert rig.files == {f"{DIRECTORY}/op-1.json": text}
    assert rig.attached == {"d.n.1"}
    assert f"{DIRECTORY}/op-1.json cannot be read" in caplog.text


@pytest.mark.parametrize("what", ["list records", "read record"])
def test_records_that_could_not_be_read_at_the_start_are_read_later(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()
    up(rig)
    rig.attached.add("d.n.5")
    put(rig, Kind.ATTACH, rig.volume(4))
    rig.files[f"{DIRECTORY}/op-0.json"] = "torn"
    rig.fail(what, Unavailable("input/output error"), times=4)
    agent = rig.agent()
    operations = agent._tools.operations
    while operations.incomplete:
        assert operations.left() == []
        operations.load()
    # An operation that this agent has begun meanwhile is its own.
    assert agent.handle(AttachCommand(vm_name=VM, disk=rig.volume(6))).result
    assert not agent.recovery.look_at_all()
    assert rig.attached == {"d.n.1", "d.n.7"}
    assert caplog.text.count("op-0.json cannot be read:") == 1
    assert caplog.text.count("was left open") == 1


def test_a_half_written_record_is_left_alone_once_commands_are_served() -> None:
    rig = Rig()
    rig.fail("list records", Unavailable("input/output error"))
    agent = rig.agent()
    rig.files[f"{DIRECTORY}/op-3.json.new"] = ""
    agent._tools.operations.load()
    assert not agent._tools.operations.incomplete
    assert list(rig.files) == [f"{DIRECTORY}/op-3.json.new"]


def test_a_record_under_another_name_is_left_and_a_half_written_one_goes() -> None:
    rig = Rig()
    put(rig, Kind.ATTACH, rig.volume(4))
    record = rig.files.pop(f"{DIRECTORY}/op-1.json")
    rig.files = {f"{DIRECTORY}/op-2.json": record, f"{DIRECTORY}/op-3.json.new": record}
    assert not look(rig)
    assert list(rig.files) == [f"{DIRECTORY}/op-2.json"]
    assert detaches(rig) == []


@pytest.mark.parametrize("late", [False, True])
def test_a_look_that_fails_is_tried_again_whatever_is_away(late: bool) -> None:
    for number in range(4):
        rig = Rig()
        up(rig)
        rig.attached.add("d.n.5")
        put(rig, Kind.ATTACH, rig.volume(4))
        agent = rig.agent()
        rig.strike = (number, Unavailable("away"), late)
        rig.steps.clear()
        assert agent.recovery.look_at_all()
        rig.strike = None
        assert [record.id for record in rig.records()] == ["op-1"]
        assert not agent.recovery.look_at_all()
        rig.clock.time += SETTLE_TIME + 1
        assert not agent.recovery.look_at_all()
        assert (rig.attached, rig.files) == ({"d.n.1"}, {})


def test_one_operation_that_breaks_the_look_ends_neither_the_look_nor_the_command(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    (disk,) = up(rig)
    rig.attached |= {"d.n.5", "d.n.6"}
    put(rig, Kind.ATTACH, rig.volume(4), id="op-1")
    put(rig, Kind.ATTACH, rig.volume(5), id="op-2")
    agent = rig.agent()
    rig.fail("detach d.n.5", ValueError("strange answer"), times=2)
    assert agent.recovery.look_at_all()
    assert rig.attached == {"d.n.1", "d.n.5"}
    assert "Traceback" in caplog.text
    assert "strange answer" in caplog.text
    assert agent.handle(StartCommand(vm=rig.vm(1))).result
    assert not agent.recovery.look_at_all()
    assert rig.attached == {"d.n.1"}
    assert rig.sources(VM) == [disk.path]


def test_a_broken_rule_of_the_runtime_is_not_hidden_by_a_look() -> None:
    rig = Rig()
    up(rig)
    put(rig, Kind.ATTACH, rig.volume(4))
    rig.fail("detach d.n.5", MisuseError("called inside a transaction"), times=2)
    agent = rig.agent()
    with pytest.raises(MisuseError):
        agent.recovery.look_at_all()
    with pytest.raises(MisuseError):
        agent.handle(StartCommand(vm=rig.vm(1)))


def test_a_look_that_is_killed_is_looked_again() -> None:
    for number in range(4):
        rig = Rig()
        up(rig)
        rig.attached.add("d.n.5")
        put(rig, Kind.ATTACH, rig.volume(4))
        rig.strike = (number, Dead("killed"), True)
        rig.steps.clear()
        with pytest.raises(Dead):
            rig.agent().recovery.look_at_all()
        rig.strike = None
        assert not look(rig)
        assert not settle(rig)
        assert (rig.attached, rig.files) == ({"d.n.1"}, {})
