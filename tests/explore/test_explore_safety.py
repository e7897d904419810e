"""Safety sees each rule broken, at once, and nothing in what is allowed."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from harness.runtime.simulated import Simulation
from harness.spi.ports import DomainState
from harness.worlds.memory.machine import Machine
from harness.worlds.memory.model_domain import ModelDisk, ModelDomain
from harness.worlds.memory.model_domain_xml import read_domain
from harness.worlds.memory.safety import Safety
from simulator.blocks.memory import MemoryBlocks
from simulator.ports import Links

MIB = 1 << 20
GID = "splab.b.1"
DISK = (
    f"<disk type='block'><driver name='qemu' type='raw'/><source dev='/dev/storpool-byid/{GID}'/>"
    "<target dev='vda' bus='virtio'/></disk>"
)


@dataclass
class Rig:
    blocks: MemoryBlocks = field(default_factory=lambda: MemoryBlocks(1 << 30))
    machines: tuple[Machine, ...] = ()

    def __post_init__(self) -> None:
        simulation = Simulation(1)
        self.machines = tuple(
            Machine(simulation.process(name), name, number, self.blocks, {})
            for number, name in enumerate(("kvm1", "kvm2"), start=1)
        )
        self.safety = Safety(self.machines, self.blocks)
        self.blocks.create(1, MIB)
        self.attach(1)

    def attach(self, client: int, *, read_only: bool = False) -> None:
        self.blocks.attach(1, Links(client, (), (GID,)), read_only=read_only)

    def run_vm(self, host: int) -> ModelDomain:
        machine = self.machines[host - 1]
        domain = read_domain(f"<domain><name>i-2-1-VM</name><uuid>u</uuid><devices>{DISK}</devices></domain>")
        machine.domains[domain.name] = domain
        for disk in domain.disks:
            machine.storage.open(disk)
        domain.state = DomainState.RUNNING
        return domain

    def rule(self) -> str:
        found = self.safety.violated()
        assert found is not None, "nothing is violated"
        return found[0]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_life_within_the_rules(rig: Rig) -> None:
    domain = rig.run_vm(1)
    assert rig.safety.violated() is None
    rig.blocks.write(1, 0, b"data")
    rig.machines[0].power_off(domain)
    rig.blocks.detach(1, 1, force=False)
    assert rig.safety.violated() is None
    rig.attach(2)
    rig.run_vm(2)
    assert rig.safety.violated() is None
    assert rig.safety.looks == 3


def test_nothing_is_looked_at_when_nothing_was_touched(rig: Rig) -> None:
    assert rig.safety.violated() is None
    looks = rig.safety.looks
    assert rig.safety.violated() is None
    assert rig.safety.looks == looks


def test_one_vm_on_two_hosts(rig: Rig) -> None:
    rig.run_vm(1)
    other = ModelDomain("i-2-1-VM", "u", rig.machines[0].domains["i-2-1-VM"].defined, [], None, DomainState.RUNNING)
    rig.machines[1].domains[other.name] = other
    assert rig.rule() == "no VM runs on two hosts"


def test_one_volume_open_on_two_hosts(rig: Rig) -> None:
    rig.run_vm(1)
    rig.attach(2)
    rig.run_vm(2)
    assert rig.rule() == "no object is open for writing on two hosts"


def test_a_migration_has_one_writer_at_every_moment(rig: Rig) -> None:
    source = rig.run_vm(1)
    rig.attach(2)
    arriving = rig.run_vm(2)
    arriving.inactive = True
    assert rig.safety.violated() is None
    source.inactive, arriving.inactive = True, False
    rig.machines[1].storage.touch(arriving)
    assert rig.safety.violated() is None
    # The source is let go on although the destination runs.
    source.inactive = False
    rig.machines[0].storage.touch(source)
    assert rig.rule() == "no object is open for writing on two hosts"


def test_one_volume_open_twice_on_one_host(rig: Rig) -> None:
    rig.run_vm(1)
    assert rig.safety.violated() is None
    # As qemu-img does, beside the QEMU that has it.
    rig.blocks.open(1, 1)
    assert rig.rule() == "no object is open for writing twice on one host"
    rig.blocks.release(1, 1)
    assert rig.safety.violated() is None


def test_a_device_pulled_from_under_a_guest(rig: Rig) -> None:
    rig.run_vm(1)
    assert rig.safety.violated() is None
    rig.blocks.detach(1, 1, force=True)
    assert rig.rule() == "what is open is attached there, read-write"


def test_a_device_made_read_only_under_a_guest(rig: Rig) -> None:
    rig.run_vm(1)
    rig.blocks.detach(1, 1, force=True)
    rig.attach(1, read_only=True)
    assert rig.rule() == "what is open is attached there, read-write"


def test_a_volume_that_is_cut_under_a_guest(rig: Rig) -> None:
    domain = rig.run_vm(1)
    assert rig.safety.violated() is None
    rig.blocks.resize(1, 2 * MIB)
    assert rig.safety.violated() is None
    rig.machines[0].resize(domain, "vda", 2 * MIB)
    rig.blocks.resize(1, MIB // 2)
    assert rig.safety.violated() is None, "smaller than it was is what somebody asked for"
    rig.machines[0].resize(domain, "vda", MIB // 2)
    rig.blocks.resize(1, 2 * MIB)
    assert rig.safety.violated() is None
    rig.machines[0].resize(domain, "vda", 2 * MIB)
    rig.blocks.resize(1, MIB)
    assert rig.rule() == "no growth is taken back that a guest was told of"


def test_a_size_that_changes_under_a_program(rig: Rig) -> None:
    rig.blocks.open(1, 1)
    assert rig.safety.violated() is None
    rig.blocks.resize(1, 2 * MIB)
    assert rig.rule() == "nothing that a program writes changes its size"


def test_a_volume_deleted_under_a_guest(rig: Rig) -> None:
    rig.run_vm(1)
    assert rig.safety.violated() is None
    rig.blocks.release(1, 1)
    rig.blocks.delete(1)
    assert rig.rule() == "nothing that is open is deleted"


def test_a_disk_that_libvirt_forgot_is_still_open(rig: Rig) -> None:
    domain = rig.run_vm(1)
    disk: ModelDisk = domain.disks.pop()
    domain.forgotten.append(disk)
    assert rig.machines[0].open_disks() == [disk]
