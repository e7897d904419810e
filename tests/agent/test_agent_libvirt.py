"""The agent on a real libvirtd and a real QEMU, whose guest has no system and so never lets a disk go."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from agent_fakes import FakeApi, FakeHost, FakeSecondary, Rig
from private_libvirtd import PrivateLibvirtd, loop_devices, missing_tools, private_libvirtd, wait_until

from harness.agent.agent import Agent
from harness.agent.config import Accelerator
from harness.agent.domain_xml import disk_xml, domain_xml, read_disks
from harness.agent.libvirt_hypervisor import LibvirtHypervisor
from harness.runtime.threads import ThreadRuntime
from harness.spi.commands import (
    AnyCommand,
    AttachCommand,
    DettachCommand,
    PingAnswer,
    PingCommand,
    StartCommand,
    StopCommand,
)
from harness.spi.errors import Conflict, ErrorClass, InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.objects import Disk, VirtualMachine, VmPower
from harness.spi.ports import DomainState
from harness.storpool import RetryPolicy, StorPoolClient

pytestmark = pytest.mark.local
VM = "i-2-7-VM"
SMALL = 4 * 1024 * 1024


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateLibvirtd]:
    pytest.importorskip("libvirt", reason="needs libvirt-python: pip install '.[agent]'")
    if missing := missing_tools():
        pytest.skip(f"needs {', '.join(missing)}")
    with private_libvirtd(tmp_path_factory.mktemp("libvirtd")) as found:
        yield found


@dataclass
class Site:
    """An agent over the real hypervisor; StorPool and devices are the rig's."""

    rig: Rig
    agent: Agent
    hypervisor: LibvirtHypervisor
    vm: VirtualMachine
    extra: Disk

    def do(self, command: AnyCommand) -> str:
        answer = self.agent.handle(command)
        assert answer.result, answer.details
        return answer.details

    def sources(self) -> list[str]:
        return [disk.source for disk in read_disks(self.hypervisor.xml(VM))]


@pytest.fixture
def site(daemon: PrivateLibvirtd, tmp_path: Path) -> Iterator[Site]:
    runtime = ThreadRuntime("agent")
    rig = Rig()
    rig.config = msgspec.structs.replace(rig.config, accelerator=Accelerator.QEMU)
    vm = rig.vm(2)
    vm = msgspec.structs.replace(
        vm, cpus=1, disks=tuple(msgspec.structs.replace(disk, size=SMALL) for disk in vm.disks)
    )
    extra = rig.volume(2, size=SMALL)
    rig.volumes = dict.fromkeys(rig.volumes, SMALL)
    hypervisor = LibvirtHypervisor(runtime, daemon.uri, timeout=20.0)
    client = StorPoolClient(FakeApi(rig), rig.clock, RetryPolicy(attempts=1))
    agent = Agent(runtime, FakeHost(rig), hypervisor, FakeSecondary(rig), client, rig.config)
    with loop_devices(tmp_path, daemon, rig.volumes):
        try:
            yield Site(rig, agent, hypervisor, vm, extra)
        finally:
            hypervisor.destroy(VM)
            hypervisor.undefine(VM)


def test_a_vm_is_started_given_a_disk_and_stopped(site: Site) -> None:
    site.do(StartCommand(vm=site.vm))
    assert site.hypervisor.domains() == {VM: DomainState.RUNNING}
    assert "running already" in site.do(StartCommand(vm=site.vm))
    site.do(AttachCommand(vm_name=VM, disk=site.extra))
    assert "already" in site.do(AttachCommand(vm_name=VM, disk=site.extra))
    assert site.sources() == [disk.path for disk in (*site.vm.disks, site.extra)]
    shown = read_disks(site.hypervisor.xml(VM))[-1]
    assert (shown.target, shown.serial) == ("vdc", site.extra.serial)
    assert len(site.rig.attached) == 3

    # The guest has no system that would let a disk go: libvirt says OK, and the disk is still there.
    refused = site.agent.handle(DettachCommand(vm_name=VM, disk=site.extra, guest_wait=7.0))
    assert refused.error_class is ErrorClass.TRANSIENT
    assert "did not let" in refused.details
    assert site.extra.path in site.sources()
    assert len(site.rig.attached) == 3

    site.do(StopCommand(vm_name=VM, force=True))
    assert site.hypervisor.domains() == {}
    assert site.rig.attached == set()
    assert "was not there" in site.do(StopCommand(vm_name=VM))


def test_the_log_tells_what_was_asked_of_libvirt_and_how_it_ended(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="harness.agent.libvirt")
    site.do(StartCommand(vm=site.vm))
    site.do(AttachCommand(vm_name=VM, disk=site.extra))
    with pytest.raises(InvalidParameter):
        site.hypervisor.attach_device(VM, disk_xml(site.extra))
    site.do(StopCommand(vm_name=VM, force=True))
    lines = [record.getMessage() for record in caplog.records if record.name == "harness.agent.libvirt"]
    attach = f"attach disk {site.extra.path} to domain {VM}"
    starts = [f"start domain {VM}: done in ", f"{attach}: done in ", f"cannot {attach}: "]
    starts += [f"destroy domain {VM}: done in ", f"undefine domain {VM}: done in "]
    assert len(lines) == len(starts), lines
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True)), lines


def test_a_disk_that_libvirt_cannot_open_leaves_nothing(site: Site, daemon: PrivateLibvirtd) -> None:
    (daemon.root / "dev/storpool-byid/d.n.2").unlink()
    answer = site.agent.handle(StartCommand(vm=site.vm))
    assert not answer.result
    assert "/dev/storpool-byid/d.n.2" in answer.details
    assert site.hypervisor.domains() == {}
    assert site.rig.attached == set()


def test_a_libvirtd_that_was_killed_is_met_again_and_its_guest_too(site: Site, daemon: PrivateLibvirtd) -> None:
    site.do(StartCommand(vm=site.vm))
    old = daemon.daemon()
    daemon.signal(signal.SIGKILL)
    wait_until("libvirtd is started again", lambda: daemon.daemon() not in (0, old))
    wait_until("libvirtd listens again", lambda: _listens(daemon))
    answer = site.agent.handle(PingCommand())
    assert isinstance(answer, PingAnswer)
    assert answer.vms == {VM: VmPower.ON}
    site.do(StopCommand(vm_name=VM, force=True))
    assert site.rig.attached == set()


def _listens(daemon: PrivateLibvirtd) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(daemon.socket))
        except OSError:
            return False
    return True


def test_a_libvirtd_that_hangs_costs_no_more_than_the_time_limit(daemon: PrivateLibvirtd) -> None:
    quick = LibvirtHypervisor(ThreadRuntime("agent"), daemon.uri, timeout=0.5)
    with daemon.hung():
        with pytest.raises(Unavailable, match=r"within 0\.5 s"):
            quick.domains()
        with pytest.raises(Unknown):
            quick.destroy(VM)
    wait_until("libvirtd answers again", lambda: quick.domains() == {})


def test_libvirts_refusals_have_a_class(site: Site) -> None:
    hypervisor = site.hypervisor
    with pytest.raises(NotFound):
        hypervisor.xml("i-0-0-VM")
    with pytest.raises(NotFound):
        hypervisor.attach_device("i-0-0-VM", disk_xml(site.extra))
    with pytest.raises(InvalidParameter):
        hypervisor.create("<domain type='qemu'><name>x</name></domain>")
    hypervisor.destroy("i-0-0-VM")
    hypervisor.undefine("i-0-0-VM")
    site.do(StartCommand(vm=site.vm))
    with pytest.raises(Conflict):
        hypervisor.create(domain_xml(site.vm, site.rig.config))
    hypervisor.detach_device(VM, disk_xml(site.extra))
    assert len(site.sources()) == 2


def test_a_libvirtd_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    pytest.importorskip("libvirt", reason="needs libvirt-python: pip install '.[agent]'")
    hypervisor = LibvirtHypervisor(ThreadRuntime("agent"), f"qemu+unix:///system?socket={tmp_path}/none")
    with pytest.raises(Unavailable, match="not reached"):
        hypervisor.domains()
