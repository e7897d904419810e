"""What each fault does to the memory world: the message, machine or process that it befalls, and that it passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.faults import Injector, parse_fault
from harness.observers import CloudApiError
from harness.spi.errors import Unavailable, Unknown
from harness.worlds.memory.model_hypervisor import ModelHypervisor
from harness.worlds.memory.processes import MANAGEMENT, STORPOOL, agent_of
from harness.worlds.memory.world import MemoryWorld
from scenarios import looks, steps


def live(body: Callable[[MemoryWorld], None], *faults: str) -> Injector:
    injector = Injector([parse_fault(text) for text in faults])
    world = MemoryWorld(1, strike=injector.strike)
    injector.aim(world.faults)
    world.run(body)
    return injector


@pytest.mark.parametrize("process", [MANAGEMENT, STORPOOL, agent_of("kvm1")])
def test_a_killed_process_is_up_again_after_its_time(process: str) -> None:
    def body(world: MemoryWorld) -> None:
        world.faults.kill(process, 30.0)
        assert not world.simulation.alive(process) and not world.faults.over
        world.simulation.main.sleep(29.0)
        assert not world.simulation.alive(process)
        world.wait_until("it is up", lambda: world.faults.over, 10.0)
        assert world.simulation.alive(process)
        assert world.cloud.call("listZones")["zone"]

    live(body)


def test_a_lost_host_comes_back_without_its_guests() -> None:
    def body(world: MemoryWorld) -> None:
        vm = steps.booted_vm(world)
        host = steps.host_of(world, vm)
        world.faults.lose_host(host.name, 60.0)
        assert set(host.domains().values()) == {"shut off"}
        world.wait_until("the VM is Stopped", lambda: looks.reread(world, vm)["state"] == "Stopped", 600.0)
        assert host.devices() == [], "its volumes stay attached"

    live(body)


def test_libvirtd_that_is_gone_says_that_nothing_was_done_and_one_that_goes_meanwhile_does_not() -> None:
    def body(world: MemoryWorld) -> None:
        vm = steps.booted_vm(world)
        name, machine = str(vm["instancename"]), world.processes.machines[steps.host_of(world, vm).name]
        hypervisor = ModelHypervisor(machine, world.simulation.main)
        world.faults.libvirtd_gone(machine.name, 10.0)
        for call in (hypervisor.domains, lambda: hypervisor.xml(name), lambda: hypervisor.destroy(name)):
            with pytest.raises(Unavailable, match="libvirtd"):
                call()
        assert world.guest(str(vm["id"])).boot_id(), "the guest runs on"
        world.simulation.main.sleep(11.0)
        assert name in hypervisor.domains()

        def gone_at_the_end(_process: str, kind: str, _detail: str) -> None:
            if kind == "effect-end":
                world.faults.libvirtd_gone(machine.name, 10.0)

        world.simulation.strike = gone_at_the_end
        with pytest.raises(Unknown):
            hypervisor.destroy(name)
        world.simulation.strike = None
        assert machine.domains[name].state.value == "shut off"

    live(body)


@pytest.mark.parametrize(("fault", "said"), [("device-missing@1", "no block device"), ("device-stale@1", "512 bytes")])
def test_an_attach_whose_device_does_not_come_or_is_stale_fails_and_leaves_nothing(fault: str, said: str) -> None:
    injectors: list[Injector] = []

    def body(world: MemoryWorld) -> None:
        vm = steps.booted_vm(world)
        volume = steps.detach(world, steps.attach(world, steps.data_volume(world), vm))
        injectors[0].armed = True
        with pytest.raises(CloudApiError, match=said):
            steps.attach(world, volume, vm)
        injectors[0].armed = False
        looks.fully_detached(world, volume)

    injector = Injector([parse_fault(fault)])
    injectors.append(injector)
    world = MemoryWorld(1, strike=injector.strike)
    injector.aim(world.faults)
    world.run(body)
    assert len(injector.fired) == 1


def test_a_full_pool_refuses_what_needs_space_and_has_room_again() -> None:
    def body(world: MemoryWorld) -> None:
        vm = steps.booted_vm(world)
        world.faults.pool_full(1000.0)
        with pytest.raises(CloudApiError, match="insufficientResources"):
            steps.attach(world, steps.data_volume(world), vm)
        world.simulation.main.sleep(1001.0)
        steps.attach(world, steps.data_volume(world), vm)

    live(body)


def test_a_clock_that_jumps_is_that_of_one_process_and_outlives_it() -> None:
    def body(world: MemoryWorld) -> None:
        simulation = world.simulation
        world.faults.set_clock(MANAGEMENT, 7200.0)
        assert simulation.clock(MANAGEMENT) - simulation.clock(STORPOOL) == 7200.0
        world.faults.kill(MANAGEMENT, 1.0)
        world.wait_until("it is up", lambda: world.faults.over, 60.0)
        assert simulation.clock(MANAGEMENT) - simulation.main.now() == 7200.0

    live(body)


@pytest.mark.parametrize("after", [False, True])
def test_storpool_that_dies_at_an_effect_has_done_all_of_it_or_nothing_when_it_is_back(after: bool) -> None:
    def body(world: MemoryWorld) -> None:
        vm = steps.booted_vm(world)
        volume = steps.data_volume(world)
        world.faults.storpool_dies(5.0, after=after)
        volume = steps.attach(world, volume, vm)
        assert world.faults.over
        looks.fully_attached(world, vm, volume)
        assert len([v for v in world.storpool.volumes() if v["tags"].get("uuid") == volume["id"]]) == 1

    live(body)
