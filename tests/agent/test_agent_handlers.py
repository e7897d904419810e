"""Start, stop, attach, detach and the pool check: what the agent leaves behind when any step fails."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from agent_fakes import CLIENT, MIB, Rig, unreachable

from harness.spi.commands import (
    GUEST_WAIT,
    AnyAnswer,
    AnyCommand,
    AttachAnswer,
    AttachCommand,
    DeleteCommand,
    DettachCommand,
    PingAnswer,
    PingCommand,
    StartCommand,
    StopCommand,
    StorPoolModifyStoragePoolAnswer,
    StorPoolModifyStoragePoolCommand,
)
from harness.spi.errors import Conflict, Dead, ErrorClass, InvalidParameter, MisuseError, Unavailable, Unknown
from harness.spi.objects import DataStore, StoreRole, VmPower
from harness.spi.ports import DomainState

VM = "i-2-7-VM"
POOL = DataStore(id=1, uuid="p", name="pool", role=StoreRole.PRIMARY, provider="StorPool", url="storpool:ssd")


def ok(answer: AnyAnswer) -> AnyAnswer:
    assert answer.result, answer.details
    assert answer.error_class is None
    return answer


def refused(answer: AnyAnswer, error_class: ErrorClass, *words: str) -> None:
    assert not answer.result
    assert answer.error_class is error_class, answer.details
    for word in words:
        assert word in answer.details


def started(rig: Rig, disks: int = 2) -> AnyCommand:
    """A rig whose VM runs; the command that started it."""
    command = StartCommand(vm=rig.vm(disks))
    ok(rig.agent().handle(command))
    rig.steps.clear()
    return command


def test_a_command_that_arrives_after_a_later_one_of_its_vm_does_nothing() -> None:
    rig = Rig()
    agent = rig.agent()
    ok(agent.handle(StopCommand(vm_name=VM, force=True, sequence=6)))
    rig.steps.clear()
    refused(agent.handle(StartCommand(vm=rig.vm(2), sequence=5)), ErrorClass.CONFLICT, "came late", VM)
    assert VM not in rig.states and not rig.attached
    other = msgspec.structs.replace(rig.vm(2), name="i-2-8-VM")
    ok(agent.handle(StartCommand(vm=other, sequence=5)))
    ok(agent.handle(StopCommand(vm_name="i-2-8-VM", force=True)))


def test_start_attaches_every_disk_before_the_domain_runs_with_it() -> None:
    rig = Rig()
    vm = rig.vm(3)
    ok(rig.agent().handle(StartCommand(vm=vm)))
    assert rig.states[VM] is DomainState.RUNNING
    assert rig.sources(VM) == [disk.path for disk in vm.disks]
    assert rig.attached == set(rig.volumes)


@pytest.mark.parametrize(
    ("step", "late"),
    [
        ("attach d.n.1", False),
        ("attach d.n.3", False),
        ("attach d.n.2", True),
        ("create", False),
        ("start domain", False),
    ],
)
@pytest.mark.parametrize("error", [Unavailable("cut"), Unknown("lost"), Conflict("held"), InvalidParameter("no")])
def test_a_start_that_fails_leaves_no_domain_and_no_attachment(step: str, late: bool, error: Exception) -> None:
    rig = Rig()
    rig.fail(step, error, late=late, times=9)
    answer = rig.agent().handle(StartCommand(vm=rig.vm(3)))
    assert not answer.result
    assert str(error) in answer.details
    assert answer.error_class is not None
    assert VM not in rig.domains
    if late and isinstance(error, Unavailable | InvalidParameter):
        # These say that nothing was done there; an API that lies about that is beyond an agent.
        assert rig.attached <= {"d.n.2"}
    else:
        assert rig.attached == set()


def test_start_detaches_in_reverse_and_reports_the_first_error_first() -> None:
    rig = Rig()
    rig.fail("create", Unavailable("no memory"))
    rig.fail("detach d.n.2", Conflict("held by somebody"), times=99)
    answer = rig.agent().handle(StartCommand(vm=rig.vm(3)))
    refused(answer, ErrorClass.TRANSIENT, "no memory", "/dev/storpool-byid/d.n.2 could not be detached")
    assert answer.details.startswith("no memory")
    assert rig.attached == {"d.n.2"}
    detached = list(dict.fromkeys(step for step in rig.steps if step.startswith("detach")))
    assert detached == ["detach d.n.3", "detach d.n.2", "detach d.n.1"]


def test_start_of_a_running_domain_is_success_and_starts_nothing() -> None:
    rig = Rig()
    command = started(rig)
    ok(rig.agent().handle(command))
    assert "create" not in rig.steps


def test_start_of_a_running_domain_without_the_disk_is_a_conflict_and_takes_nothing_away() -> None:
    rig = Rig()
    started(rig, disks=1)
    before = set(rig.attached)
    answer = rig.agent().handle(StartCommand(vm=rig.vm(2)))
    refused(answer, ErrorClass.CONFLICT, "d.n.2")
    assert rig.attached == before
    assert rig.states[VM] is DomainState.RUNNING


def test_a_lost_answer_of_libvirt_does_not_undo_a_domain_that_runs() -> None:
    rig = Rig()
    rig.fail("create", Unknown("libvirtd died"), late=True)
    ok(rig.agent().handle(StartCommand(vm=rig.vm(2))))
    assert rig.attached == set(rig.volumes)


def test_disks_stay_attached_when_nobody_can_say_whether_the_domain_runs() -> None:
    rig = Rig()
    rig.fail("create", Unknown("libvirtd died"), late=True)
    rig.after["create"] = lambda: rig.fail("domains", unreachable())
    answer = rig.agent().handle(StartCommand(vm=rig.vm(1)))
    refused(answer, ErrorClass.UNKNOWN, "stay attached")
    assert rig.attached == {"d.n.1"}


def test_an_attach_whose_answer_was_lost_is_asked_for_again() -> None:
    rig = Rig()
    rig.fail("attach d.n.1", Unknown("lost"), late=True, times=2)
    ok(rig.agent().handle(StartCommand(vm=rig.vm(2))))
    assert rig.steps.count("attach d.n.1") == 3
    assert rig.attached == set(rig.volumes)


def test_two_commands_do_not_work_on_one_vm_or_one_volume_at_a_time() -> None:
    rig = Rig()
    vm = rig.vm(2)
    other = StartCommand(vm=msgspec.structs.replace(vm, name="i-2-8-VM", disks=vm.disks[1:]), wait=5)
    agent = rig.agent()
    answers: list[AnyAnswer] = []

    def meanwhile() -> None:
        rig.after.clear()
        answers.append(agent.handle(StopCommand(vm_name=VM, wait=5)))
        answers.append(agent.handle(other))

    rig.after["create"] = meanwhile
    ok(agent.handle(StartCommand(vm=vm)))
    for answer, held in zip(answers, (VM, vm.disks[1].path), strict=True):
        refused(answer, ErrorClass.CONFLICT, held, "another operation")
    ok(agent.handle(StopCommand(vm_name=VM)))


def test_an_attach_that_was_lost_once_is_undone_although_the_api_is_then_away() -> None:
    rig = Rig()
    rig.fail("attach d.n.1", Unknown("lost"), late=True)
    rig.after["attach d.n.1"] = lambda: rig.fail("attach d.n.1", unreachable())
    answer = rig.agent().handle(StartCommand(vm=rig.vm(2)))
    refused(answer, ErrorClass.UNKNOWN, "lost")
    assert rig.attached == set()


def test_an_attachment_is_undone_when_storpool_cannot_say_its_size() -> None:
    rig = Rig()
    path = rig.volume(0, size=512).path
    rig.after["attach d.n.1"] = lambda: rig.volumes.update({"d.n.1": 511})
    answer = rig.agent().handle(StorPoolModifyStoragePoolCommand(pool=POOL, volume_path=path))
    assert not answer.result
    assert rig.attached == set()


def test_a_device_that_comes_late_is_waited_for() -> None:
    rig = Rig(device_delay=5.0)
    ok(rig.agent().handle(StartCommand(vm=rig.vm(2))))
    assert rig.clock.time >= 1005.0


@pytest.mark.parametrize(("delay", "size", "word"), [(900.0, None, "no block device"), (0.0, 4096, "4096 bytes")])
def test_a_device_that_never_comes_or_has_the_wrong_size_fails_and_is_detached(
    delay: float, size: int | None, word: str
) -> None:
    rig = Rig(device_delay=delay, device_size=size)
    answer = rig.agent().handle(StartCommand(vm=rig.vm(2)))
    refused(answer, ErrorClass.TRANSIENT, word, "kvm1", "d.n.1")
    assert rig.attached == set()
    assert "create" not in rig.steps


def test_a_device_must_have_the_size_that_the_records_say() -> None:
    rig = Rig()
    vm = rig.vm(1)
    rig.volumes["d.n.1"] += MIB
    answer = rig.agent().handle(StartCommand(vm=vm))
    refused(answer, ErrorClass.TRANSIENT, str(64 * MIB), str(65 * MIB))
    assert rig.attached == set()


def test_a_host_that_is_cut_from_the_api_says_so_and_has_nothing_to_undo() -> None:
    rig = Rig()
    rig.fail("attach d.n.1", unreachable())
    answer = rig.agent().handle(StartCommand(vm=rig.vm(1)))
    refused(answer, ErrorClass.TRANSIENT, "kvm1", "does not reach the StorPool API")
    assert "detach d.n.1" not in rig.steps


def test_a_host_that_is_no_client_of_the_cluster_is_named_as_such() -> None:
    rig = Rig(registered=False)
    answer = rig.agent().handle(StartCommand(vm=rig.vm(1)))
    refused(answer, ErrorClass.PERMANENT, "No such client registered", "client 2", "storpool_block")


def test_stop_powers_off_detaches_and_forgets() -> None:
    rig = Rig()
    started(rig)
    extra = rig.volume(5)
    rig.attached.add("d.n.6")
    ok(rig.agent().handle(StopCommand(vm_name=VM, volumes_to_disconnect=(extra.path,))))
    assert rig.attached == set()
    assert rig.domains == {}
    assert "destroy" not in rig.steps


def test_stop_asks_a_booting_guest_again_and_destroys_a_deaf_one() -> None:
    rig = Rig(ignored_shutdowns=1)
    started(rig)
    ok(rig.agent().handle(StopCommand(vm_name=VM, wait=60)))
    assert rig.steps.count("shutdown") == 2
    assert "destroy" not in rig.steps

    deaf = Rig(ignored_shutdowns=1000)
    started(deaf)
    ok(deaf.agent().handle(StopCommand(vm_name=VM, wait=60)))
    assert "destroy" in deaf.steps
    assert deaf.clock.time <= 1000 + 45, "half of the time is left for what follows"
    assert deaf.attached == set()


def test_a_forced_stop_and_a_stop_of_a_paused_guest_ask_nobody() -> None:
    for force, state in ((True, DomainState.RUNNING), (False, DomainState.PAUSED)):
        rig = Rig()
        started(rig)
        rig.states[VM] = state
        ok(rig.agent().handle(StopCommand(vm_name=VM, force=force)))
        assert "shutdown" not in rig.steps
        assert rig.attached == set()


def test_stop_of_a_domain_that_is_gone_still_detaches_the_volumes_it_is_told() -> None:
    rig = Rig()
    disk = rig.volume(0)
    rig.attached.add("d.n.1")
    gone = rig.volume(1)
    del rig.volumes["d.n.2"]
    ok(rig.agent().handle(StopCommand(vm_name=VM, volumes_to_disconnect=(disk.path, gone.path))))
    assert rig.attached == set()


def test_a_stop_that_cannot_detach_one_disk_detaches_the_others_and_can_be_repeated() -> None:
    rig = Rig()
    started(rig, disks=3)
    rig.fail("detach d.n.2", Conflict("open at client 2"), times=99)
    answer = rig.agent().handle(StopCommand(vm_name=VM))
    refused(answer, ErrorClass.CONFLICT, "d.n.2", "kvm1")
    assert rig.attached == {"d.n.2"}
    rig.failures.clear()
    ok(rig.agent().handle(StopCommand(vm_name=VM)))
    assert rig.attached == set()
    assert rig.domains == {}


def test_detach_is_repeated_while_the_device_is_open_and_never_forced() -> None:
    rig = Rig()
    started(rig, disks=1)
    rig.busy_detaches = 5
    ok(rig.agent().handle(StopCommand(vm_name=VM)))
    assert rig.steps.count("detach d.n.1") == 6


def test_attach_gives_the_disk_to_the_guest_and_a_second_attach_changes_nothing() -> None:
    rig = Rig()
    started(rig)
    disk = rig.volume(4)
    answer = ok(rig.agent().handle(AttachCommand(vm_name=VM, disk=disk)))
    assert isinstance(answer, AttachAnswer)
    assert answer.disk == disk
    xml = rig.domains[VM]
    ok(rig.agent().handle(AttachCommand(vm_name=VM, disk=disk)))
    assert rig.domains[VM] == xml
    assert rig.steps.count("attach_device") == 1


def test_an_attach_that_libvirt_refuses_leaves_the_volume_detached() -> None:
    rig = Rig()
    started(rig)
    before = set(rig.attached)
    rig.fail("attach_device", Unavailable("no free port"))
    answer = rig.agent().handle(AttachCommand(vm_name=VM, disk=rig.volume(4)))
    refused(answer, ErrorClass.TRANSIENT, "no free port")
    assert rig.attached == before


def test_an_attach_whose_answer_libvirt_lost_is_success_when_the_disk_is_there() -> None:
    rig = Rig()
    started(rig)
    disk = rig.volume(4)
    rig.fail("attach_device", Unknown("libvirtd died"), late=True)
    ok(rig.agent().handle(AttachCommand(vm_name=VM, disk=disk)))
    assert disk.path in rig.sources(VM)
    assert "d.n.5" in rig.attached


def test_attach_to_a_place_that_another_disk_has_is_refused_before_anything_is_attached() -> None:
    rig = Rig()
    started(rig, disks=2)
    other = rig.volume(7)
    answer = rig.agent().handle(AttachCommand(vm_name=VM, disk=msgspec.structs.replace(other, device_id=1)))
    refused(answer, ErrorClass.CONFLICT, "vdb")
    assert "d.n.8" not in rig.attached


def test_attach_to_a_domain_that_does_not_run_attaches_nothing() -> None:
    rig = Rig()
    answer = rig.agent().handle(AttachCommand(vm_name=VM, disk=rig.volume(1)))
    refused(answer, ErrorClass.PERMANENT, VM, "does not run")
    assert rig.attached == set()


def test_detach_repeats_itself_when_libvirt_said_ok_and_the_disk_is_still_there() -> None:
    rig = Rig(lying_detaches=2)
    command = started(rig)
    assert isinstance(command, StartCommand)
    disk = command.vm.disks[1]
    ok(rig.agent().handle(DettachCommand(vm_name=VM, disk=disk)))
    assert disk.path not in rig.sources(VM)
    assert rig.attached == {"d.n.1"}
    assert rig.steps.count("detach_device") == 3


@pytest.mark.parametrize("seconds", [4.0, GUEST_WAIT])
def test_a_guest_that_keeps_the_disk_keeps_the_attachment_too(seconds: float) -> None:
    """And has as long as the command says; one that says nothing means `GUEST_WAIT`."""
    rig = Rig(lying_detaches=10_000)
    command = started(rig)
    assert isinstance(command, StartCommand)
    disk = command.vm.disks[1]
    before = rig.clock.time
    answer = rig.agent().handle(DettachCommand(vm_name=VM, disk=disk, guest_wait=seconds))
    refused(answer, ErrorClass.TRANSIENT, "did not let", disk.path, VM, f"within {seconds:g} s")
    assert rig.attached == {"d.n.1", "d.n.2"}
    assert not [step for step in rig.steps if step.startswith("detach d.n")]
    assert seconds <= rig.clock.time - before <= seconds + 1


def test_a_suspended_guest_is_not_asked_so_that_it_keeps_the_disk_when_it_is_resumed() -> None:
    rig = Rig()
    command = started(rig)
    assert isinstance(command, StartCommand)
    disk = command.vm.disks[1]
    rig.states[VM] = DomainState.PAUSED
    answer = rig.agent().handle(DettachCommand(vm_name=VM, disk=disk))
    refused(answer, ErrorClass.TRANSIENT, "suspended", disk.path, VM)
    assert "detach_device" not in rig.steps
    assert "d.n.2" in rig.attached


def test_a_guest_that_was_asked_is_given_time_before_a_later_command_asks_it_again() -> None:
    rig = Rig(lying_detaches=10_000)
    command = started(rig)
    assert isinstance(command, StartCommand)
    disk = command.vm.disks[1]
    agent = rig.agent()
    assert not agent.handle(DettachCommand(vm_name=VM, disk=disk)).result
    rig.steps.clear()
    rig.states[VM] = DomainState.PAUSED
    asked: list[float] = []
    resumed = rig.clock.time + 3.0
    rig.after["domains"] = lambda: rig.states.update({VM: DomainState.RUNNING}) if rig.clock.time >= resumed else None
    rig.after["detach_device"] = lambda: asked.append(rig.clock.time)
    assert not agent.handle(DettachCommand(vm_name=VM, disk=disk)).result
    assert asked[0] - resumed >= 1.9, "it is about to let go of what it was asked before"
    assert all(later - earlier >= 1.9 for earlier, later in itertools.pairwise(asked))

    rig.lying_detaches = 0
    ok(agent.handle(DettachCommand(vm_name=VM, disk=disk)))
    ok(agent.handle(AttachCommand(vm_name=VM, disk=disk)))
    before = rig.clock.time
    ok(agent.handle(DettachCommand(vm_name=VM, disk=disk)))
    assert rig.clock.time - before < 1, "what is gone is not remembered"


def test_detach_of_what_the_guest_does_not_have_detaches_the_volume() -> None:
    rig = Rig()
    started(rig, disks=1)
    disk = rig.volume(3)
    rig.attached.add("d.n.4")
    ok(rig.agent().handle(DettachCommand(vm_name=VM, disk=disk)))
    ok(rig.agent().handle(DettachCommand(vm_name="i-2-99-VM", disk=disk)))
    assert rig.attached == {"d.n.1"}
    assert "detach_device" not in rig.steps


def test_the_pool_check_proves_the_device_and_leaves_the_check_volume_detached() -> None:
    rig = Rig()
    path = rig.volume(0, size=512).path
    answer = ok(rig.agent().handle(StorPoolModifyStoragePoolCommand(pool=POOL, volume_path=path)))
    assert isinstance(answer, StorPoolModifyStoragePoolAnswer)
    assert (answer.client_node_id, answer.cluster_id) == (CLIENT, "d.n")
    assert rig.attached == set()

    stale = Rig(device_size=MIB)
    path = stale.volume(0, size=512).path
    refused(
        stale.agent().handle(StorPoolModifyStoragePoolCommand(pool=POOL, volume_path=path)),
        ErrorClass.TRANSIENT,
        "stale",
    )
    assert stale.attached == set()


def test_a_path_of_a_snapshot_is_attached_read_only_and_detached() -> None:
    rig = Rig()
    path = rig.volume(0).path
    rig.snapshots.add("d.n.1")
    ok(rig.agent().handle(StorPoolModifyStoragePoolCommand(pool=POOL, volume_path=path)))
    assert [step for step in rig.steps if "record" not in step] == ["attach d.n.1", "detach d.n.1"]
    assert rig.attached == set()


def test_ping_reports_every_domain_with_its_power() -> None:
    rig = Rig(states={"a": DomainState.RUNNING, "b": DomainState.PAUSED, "c": DomainState.CRASHED})
    answer = ok(rig.agent().handle(PingCommand()))
    assert isinstance(answer, PingAnswer)
    assert answer.vms == {"a": VmPower.ON, "b": VmPower.PAUSED, "c": VmPower.OFF}
    assert answer.host_uuid == "h-1"


def test_libvirt_that_is_away_makes_a_transient_answer() -> None:
    rig = Rig()
    rig.fail("domains", unreachable())
    refused(rig.agent().handle(PingCommand()), ErrorClass.TRANSIENT, "refused")


@pytest.mark.parametrize("path", ["/dev/sda", "/dev/storpool-byid/", "/dev/storpool-byid/../sda", "relative"])
def test_only_storpool_devices_are_ever_attached_or_detached(path: str) -> None:
    rig = Rig()
    answer = rig.agent().handle(StopCommand(vm_name=VM, volumes_to_disconnect=(path,)))
    refused(answer, ErrorClass.PERMANENT, "not a path of a StorPool object")


def test_a_command_of_the_secondary_storage_role_is_refused() -> None:
    refused(Rig().agent().handle(DeleteCommand(store=POOL, path="x")), ErrorClass.PERMANENT, "DeleteCommand")


@pytest.mark.parametrize("error", [Dead("killed"), MisuseError("bug")])
def test_death_and_broken_rules_are_no_answers(error: BaseException) -> None:
    rig = Rig()
    rig.fail("attach d.n.2", error)
    with pytest.raises(type(error)):
        rig.agent().handle(StartCommand(vm=rig.vm(3)))
    if isinstance(error, Dead):
        assert rig.attached == {"d.n.1"}, "a dead process tidies nothing up"
