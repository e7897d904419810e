"""ISOs in CD drives: what the agent holds for a domain, and lets go."""

from __future__ import annotations

import msgspec
import pytest
from agent_fakes import Rig

from harness.agent.domain_xml import read_cd
from harness.spi.commands import AttachIsoCommand, StartCommand, StopCommand
from harness.spi.errors import ErrorClass, Unavailable
from harness.spi.objects import DataStore, ImageFormat, StoreRole, TemplateObject, VirtualMachine

VM = "i-2-7-VM"
STORE = DataStore(id=1, uuid="s", name="secondary", role=StoreRole.IMAGE, provider="NFS", url="nfs://10.0.0.9/export")


def iso(name: str) -> TemplateObject:
    return TemplateObject(
        id=3, uuid=name, name=name, format=ImageFormat.ISO, size=1, store=STORE, path=f"template/{name}.iso"
    )


def with_iso(rig: Rig) -> VirtualMachine:
    return msgspec.structs.replace(rig.vm(1), iso=iso("a"))


def test_a_domain_is_started_with_its_iso_which_is_held_until_it_is_stopped() -> None:
    rig = Rig()
    agent = rig.agent()
    assert agent.handle(StartCommand(vm=with_iso(rig))).result
    assert read_cd(rig.domains[VM]) == "/mnt/store/template/a.iso"
    assert rig.held == {VM: "template/a.iso"}
    assert agent.handle(StopCommand(vm_name=VM, force=True)).result
    assert rig.held == {}


@pytest.mark.parametrize("step", ["hold", "attach d.n.1", "create", "start domain"])
def test_a_start_that_fails_lets_the_iso_go(step: str) -> None:
    rig = Rig()
    rig.fail(step, Unavailable("away"), times=9)
    answer = rig.agent().handle(StartCommand(vm=with_iso(rig)))
    assert (answer.result, answer.error_class) == (False, ErrorClass.TRANSIENT)
    assert rig.held == {} and rig.attached == set() and VM not in rig.domains


def test_the_drive_of_a_running_domain_is_changed_and_emptied() -> None:
    rig = Rig()
    agent = rig.agent()
    assert agent.handle(StartCommand(vm=with_iso(rig))).result
    for wanted in ("b", "b", None):
        command = AttachIsoCommand(vm_name=VM, iso=None if wanted is None else iso(wanted))
        assert agent.handle(command).result
        assert read_cd(rig.domains[VM]) == (None if wanted is None else f"/mnt/store/template/{wanted}.iso")
        assert rig.held == ({} if wanted is None else {VM: f"template/{wanted}.iso"})
    assert len(rig.sources(VM)) == 1, "the disk stays"


def test_a_drive_that_was_not_changed_is_an_error_and_a_domain_that_is_off_need_not_be_told() -> None:
    rig = Rig()
    agent = rig.agent()
    assert agent.handle(AttachIsoCommand(vm_name=VM, iso=iso("b"))).result
    assert rig.held == {}
    assert agent.handle(StartCommand(vm=rig.vm(1))).result
    rig.fail("update_device", Unavailable("locked"))
    answer = agent.handle(AttachIsoCommand(vm_name=VM, iso=iso("b")))
    assert not answer.result and read_cd(rig.domains[VM]) is None
