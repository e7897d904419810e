"""Telling a guest of a new size: which disk, when, and what the answer says of what the guest sees."""

from __future__ import annotations

import msgspec
import pytest
from agent_fakes import MIB, Rig

from harness.spi.commands import ResizeVolumeAnswer, StartCommand, StorPoolResizeVolumeCommand
from harness.spi.errors import ErrorClass, Unavailable, Unknown
from harness.spi.ports import DomainState

VM = "i-2-7-VM"
OLD, NEW = 64 * MIB, 96 * MIB


def started() -> Rig:
    """A VM that runs with three disks, the last of which has grown on StorPool and on this host."""
    rig = Rig()
    assert rig.agent().handle(StartCommand(vm=rig.vm())).result
    rig.guest_sizes = {(VM, target): OLD for target in ("vda", "vdb", "vdc")}
    rig.volumes["d.n.3"] = NEW
    return rig


def resize(rig: Rig, volume: str = "d.n.3", size: int = NEW) -> ResizeVolumeAnswer:
    command = StorPoolResizeVolumeCommand(vm_name=VM, path=f"/dev/storpool-byid/{volume}", size=size, wait=30)
    answer = rig.agent().handle(command)
    assert isinstance(answer, ResizeVolumeAnswer) or not answer.result, answer
    return ResizeVolumeAnswer(result=answer.result, details=answer.details, error_class=answer.error_class)


def told(rig: Rig) -> dict[str, int]:
    """What the guest sees of disks that it saw otherwise before."""
    return {target: size for (_, target), size in rig.guest_sizes.items() if size != OLD}


def test_the_disk_of_this_path_is_told_and_no_other() -> None:
    rig = started()
    assert resize(rig).result
    assert told(rig) == {"vdc": NEW}


def test_a_disk_whose_path_holds_that_of_another_is_not_taken_for_it() -> None:
    rig = Rig()
    vm = rig.vm(2)
    longer = msgspec.structs.replace(rig.volume(32), device_id=2)
    shorter = msgspec.structs.replace(rig.volume(2), device_id=3)
    assert longer.path.startswith(shorter.path)
    assert rig.agent().handle(StartCommand(vm=msgspec.structs.replace(vm, disks=(*vm.disks, longer, shorter)))).result
    rig.guest_sizes = {(VM, target): OLD for target in ("vda", "vdb", "vdc", "vdd")}
    rig.volumes["d.n.3"] = NEW
    assert resize(rig).result
    assert told(rig) == {"vdd": NEW}


def test_a_guest_that_was_not_told_is_an_error_that_changed_nothing() -> None:
    rig = started()
    rig.fail("resize_disk", Unavailable("blockresize: no such job"))
    answer = resize(rig)
    assert not answer.result and answer.error_class is not ErrorClass.UNKNOWN
    assert "was not told" in answer.details and "no such job" in answer.details
    assert told(rig) == {}


@pytest.mark.parametrize("late", [False, True])
def test_a_lost_answer_of_libvirt_is_success_only_when_the_guest_sees_the_size(late: bool) -> None:
    rig = started()
    rig.fail("resize_disk", Unknown("libvirtd died"), late=late)
    answer = resize(rig)
    assert answer.result is late
    if not late:
        assert answer.error_class is ErrorClass.UNKNOWN


def test_a_guest_is_not_told_before_the_device_has_the_size() -> None:
    rig = started()
    rig.device_size = OLD
    answer = resize(rig)
    assert not answer.result and answer.error_class is ErrorClass.TRANSIENT
    assert "resize_disk" not in rig.steps and told(rig) == {}


def test_a_domain_that_does_not_run_has_nobody_to_tell() -> None:
    rig = started()
    rig.states[VM] = DomainState.SHUT_OFF
    assert resize(rig).result
    assert "resize_disk" not in rig.steps
