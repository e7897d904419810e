"""The model hypervisor and the real libvirt are held to each other by one suite (design section 12).

The guests have no system, so they never let a disk go: the case in which an OK of libvirt proves nothing.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Protocol

import msgspec
import pytest

from harness.agent.config import Accelerator, AgentConfig
from harness.agent.domain_xml import AttachedDisk, attached_disk_xml, disk_xml, domain_xml, read_disks
from harness.agent.libvirt_hypervisor import LibvirtHypervisor
from harness.runtime.simulated import Simulation
from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import Conflict, Error, NotFound
from harness.spi.objects import Disk, VirtualMachine, VolumeType
from harness.spi.passphrase import Passphrase
from harness.spi.ports import DomainState, Hypervisor
from harness.worlds.memory.machine import Machine
from harness.worlds.memory.model_hypervisor import ModelHypervisor
from simulator.blocks.memory import MemoryBlocks
from simulator.ports import Links

SIZE = 4 << 20
NAMES = ("a.b.1", "a.b.2", "a.b.3")
UUID = "6e1f9c52-4d0e-4a8e-9a37-0c1d2e3f4a5b"


class Site(Protocol):
    def run(self, test: Callable[[Hypervisor], None]) -> None:
        """Hand the hypervisor of a host with three devices to `test`; afterwards no domain is left."""
        ...


class ModelSite:
    def run(self, test: Callable[[Hypervisor], None]) -> None:
        simulation = Simulation(1)
        blocks = MemoryBlocks(1 << 30)
        for key, name in enumerate(NAMES, start=1):
            blocks.create(key, SIZE)
            blocks.attach(key, Links(client=1, names=(), by_id=(name,)), read_only=False)
        machine = Machine(simulation.process("hardware"), "kvm1", 1, blocks, {})
        simulation.run(lambda: test(ModelHypervisor(machine, simulation.main)))


class LibvirtSite:
    def __init__(self, hypervisor: LibvirtHypervisor) -> None:
        self._hypervisor = hypervisor

    def run(self, test: Callable[[Hypervisor], None]) -> None:
        try:
            test(self._hypervisor)
        finally:
            for name in list(self._hypervisor.domains()):
                self._hypervisor.destroy(name)
                self._hypervisor.undefine(name)


def private_libvirtd() -> ModuleType:
    """The agent tests' way to a libvirtd of our own."""
    file = Path(__file__).parent.parent / "agent" / "private_libvirtd.py"
    spec = importlib.util.spec_from_file_location("contract_private_libvirtd", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["model", pytest.param("libvirt", marks=pytest.mark.local)])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if request.param == "model":
        yield ModelSite()
        return
    pytest.importorskip("libvirt", reason="needs libvirt-python: pip install '.[agent]'")
    tools = private_libvirtd()
    if missing := tools.missing_tools():
        pytest.skip(f"needs {', '.join(missing)}")
    directory = tmp_path_factory.mktemp("contract")
    with ExitStack() as stack:
        daemon = stack.enter_context(tools.private_libvirtd(tmp_path_factory.mktemp("libvirtd")))
        stack.enter_context(tools.loop_devices(directory, daemon, dict.fromkeys(NAMES, SIZE)))
        yield LibvirtSite(LibvirtHypervisor(ThreadRuntime("agent"), daemon.uri, timeout=20.0))


def disk(number: int, *, serial: str | None = None, slot: int | None = None) -> Disk:
    return Disk(
        path=f"/dev/storpool-byid/a.b.{number}",
        serial=serial or f"serial{number}",
        device_id=number - 1 if slot is None else slot,
        size=SIZE,
        type=VolumeType.DATADISK,
    )


def vm(*disks: Disk, name: str = "i-2-1-VM", uuid: str = UUID) -> str:
    machine = VirtualMachine(uuid=uuid, name=name, cpus=1, memory=64 << 20, disks=disks, nics=())
    return domain_xml(machine, AgentConfig(host_uuid="h", host_name="kvm1", accelerator=Accelerator.QEMU))


NAME = "i-2-1-VM"


def shown(hypervisor: Hypervisor) -> list[tuple[str, str, str]]:
    return [(item.source, item.target, item.serial) for item in read_disks(hypervisor.xml(NAME))]


ONE, TWO = (disk(1).path, "vda", "serial1"), (disk(2).path, "vdb", "serial2")


def test_a_domain_runs_is_not_made_twice_and_is_forgotten(site: Site) -> None:
    def test(hypervisor: Hypervisor) -> None:
        assert hypervisor.domains() == {}
        hypervisor.create(vm(disk(1)))
        assert hypervisor.domains() == {NAME: DomainState.RUNNING}
        assert shown(hypervisor) == [ONE]
        with pytest.raises(Conflict):
            hypervisor.create(vm(disk(1)))
        with pytest.raises(Error, match=UUID):
            hypervisor.create(vm(disk(2), name="other"))
        hypervisor.destroy(NAME)
        hypervisor.destroy(NAME)
        assert hypervisor.domains() == {NAME: DomainState.SHUT_OFF}
        assert shown(hypervisor) == [ONE]
        hypervisor.create(vm(disk(2)))
        assert shown(hypervisor) == [TWO]
        hypervisor.destroy(NAME)
        hypervisor.undefine(NAME)
        hypervisor.undefine(NAME)
        assert hypervisor.domains() == {}

    site.run(test)


def test_a_domain_undefined_while_it_runs_is_gone_when_it_is_off(site: Site) -> None:
    def test(hypervisor: Hypervisor) -> None:
        hypervisor.create(vm(disk(1)))
        hypervisor.undefine(NAME)
        assert hypervisor.domains() == {NAME: DomainState.RUNNING}
        hypervisor.destroy(NAME)
        assert hypervisor.domains() == {}

    site.run(test)


def test_what_a_missing_domain_is_asked_is_not_found_unless_it_would_end_it(site: Site) -> None:
    def test(hypervisor: Hypervisor) -> None:
        for call in (
            lambda: hypervisor.xml("nobody"),
            lambda: hypervisor.shutdown("nobody"),
            lambda: hypervisor.attach_device("nobody", disk_xml(disk(1))),
            lambda: hypervisor.detach_device("nobody", disk_xml(disk(1))),
        ):
            with pytest.raises(NotFound):
                call()
        hypervisor.destroy("nobody")
        hypervisor.undefine("nobody")

    site.run(test)


def test_bad_xml_is_refused_and_nothing_runs(site: Site) -> None:
    good = vm(disk(1), disk(2))

    def test(hypervisor: Hypervisor) -> None:
        for xml in (
            good.replace('<target dev="vdb" bus="virtio" />', ""),
            good.replace('dev="vdb"', 'dev="vda"'),
        ):
            assert xml != good
            with pytest.raises(Error, match="target"):
                hypervisor.create(xml)
        with pytest.raises(Error, match=r"a\.b\.9"):
            hypervisor.create(vm(disk(1), disk(9, slot=1)))
        assert DomainState.RUNNING not in hypervisor.domains().values()

    site.run(test)


def test_a_disk_is_plugged_once_and_lives_as_long_as_the_domain(site: Site) -> None:
    def test(hypervisor: Hypervisor) -> None:
        hypervisor.create(vm(disk(1)))
        hypervisor.attach_device(NAME, disk_xml(disk(2)))
        assert shown(hypervisor) == [ONE, TWO]
        for again in (disk(2), disk(3, slot=1), disk(9, slot=4)):
            with pytest.raises(Error):
                hypervisor.attach_device(NAME, disk_xml(again))
        assert shown(hypervisor) == [ONE, TWO]
        hypervisor.destroy(NAME)
        assert shown(hypervisor) == [ONE]
        with pytest.raises(Conflict):
            hypervisor.attach_device(NAME, disk_xml(disk(2)))
        with pytest.raises(Conflict):
            hypervisor.detach_device(NAME, disk_xml(disk(1)))

    site.run(test)


def test_two_disks_with_one_serial_are_taken_so_it_is_ours_to_keep_them_apart(site: Site) -> None:
    def test(hypervisor: Hypervisor) -> None:
        hypervisor.create(vm(disk(1), disk(2, serial="serial1")))
        hypervisor.attach_device(NAME, disk_xml(disk(3, serial="serial1")))
        assert [serial for _, _, serial in shown(hypervisor)] == ["serial1"] * 3

    site.run(test)


def test_a_detach_returns_although_the_guest_keeps_the_disk_and_a_disk_it_never_had_is_no_error(site: Site) -> None:
    def test(hypervisor: Hypervisor) -> None:
        hypervisor.create(vm(disk(1), disk(2)))
        hypervisor.detach_device(NAME, attached_disk_xml(AttachedDisk(disk(2).path, "vdb", "serial2")))
        assert shown(hypervisor) == [ONE, TWO]
        hypervisor.detach_device(NAME, attached_disk_xml(AttachedDisk(disk(3).path, "vdc", "serial3")))
        assert shown(hypervisor) == [ONE, TWO]

    site.run(test)


def test_passphrases_are_known_by_device_replaced_and_taken_back_twice_without_error(site: Site) -> None:
    def test(hypervisor: Hypervisor) -> None:
        one, two = disk(1).path, disk(2).path
        assert hypervisor.secrets() == ()
        for device in (two, one, one):
            hypervisor.define_secret(device, Passphrase("a passphrase"))
        assert hypervisor.secrets() == (one, two)
        for _ in range(2):
            hypervisor.undefine_secret(one)
        assert hypervisor.secrets() == (two,)
        hypervisor.undefine_secret(two)
        assert hypervisor.secrets() == ()

    site.run(test)


def test_an_encrypted_disk_needs_its_passphrase_and_a_header_and_is_never_given_as_it_is(site: Site) -> None:
    def test(hypervisor: Hypervisor) -> None:
        encrypted = msgspec.structs.replace(disk(2), encrypted=True)
        with pytest.raises(Error, match=r"[Ss]ecret"):
            hypervisor.create(vm(disk(1), encrypted))
        hypervisor.define_secret(encrypted.path, Passphrase("a passphrase"))
        try:
            with pytest.raises(Error, match="LUKS"):
                hypervisor.create(vm(disk(1), encrypted))
            assert hypervisor.domains().get(NAME) is not DomainState.RUNNING
            hypervisor.create(vm(disk(1)))
            with pytest.raises(Error, match="LUKS"):
                hypervisor.attach_device(NAME, disk_xml(encrypted))
            assert shown(hypervisor) == [ONE]
        finally:
            hypervisor.undefine_secret(encrypted.path)

    site.run(test)
