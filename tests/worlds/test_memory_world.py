"""The memory world as a whole: one seed one run, many schedules, processes that die, and what its observers show."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import checks
from harness.agent.operations import SETTLE_TIME
from harness.observers import CloudApiError, Json, World
from harness.worlds.memory.prepared import Prepared
from harness.worlds.memory.processes import ENDPOINT, MANAGEMENT, STORPOOL_TOKEN, agent_of
from harness.worlds.memory.world import MemoryWorld, booted
from scenarios import steps

MARK = b"written by the guest".ljust(4096, b".")


def template(world: World) -> str:
    env = world.environment
    answer = world.cloud.call(
        "registerTemplate",
        name=world.name("template"),
        displaytext="t",
        format="QCOW2",
        hypervisor="KVM",
        url=env.image_url,
        zoneid=env.zone_id,
        ostypeid=env.os_type_id,
    )
    template_id = str(answer["template"][0]["id"])

    def ready() -> bool:
        listed = world.cloud.call("listTemplates", templatefilter="all", id=template_id)
        return bool(listed["template"][0]["isready"])

    world.wait_until("the template is ready", ready)
    return template_id


def deployment(world: World, template_id: str) -> dict[str, str | int | bool]:
    env = world.environment
    return {
        "serviceofferingid": env.service_offering_id,
        "zoneid": env.zone_id,
        "templateid": template_id,
        "name": world.name("vm"),
        "hypervisor": "KVM",
    }


def vm_of(world: World, vm_id: str) -> Json:
    found: Json = world.cloud.call("listVirtualMachines", id=vm_id, listall=True)["virtualmachine"][0]
    return found


def violations(world: World) -> list[str]:
    """What is wrong with the cloud, but for check volumes, which the agent detaches once they have served."""
    found = [str(violation) for violation in checks.violations(checks.take(world))]
    return [text for text in found if "check volume" not in text]


def two_at_once(world: World) -> list[str]:
    """Deploy two VMs at once, write, and give back what the guests read."""
    template_id = template(world)
    jobs = [world.cloud.start("deployVirtualMachine", **deployment(world, template_id)) for _ in range(2)]
    vms = [world.cloud.wait(job)["virtualmachine"] for job in jobs]
    seen = []
    for vm in vms:
        guest = world.guest(str(vm["id"]))
        seen.append(guest.boot_id())
        (serial,) = guest.disks()
        guest.write(serial, 1 << 19, MARK)
        assert guest.read(serial, 1 << 19, len(MARK)) == MARK
    assert violations(world) == []
    return seen


PROGRAM = """
import importlib.util, logging, sys
sys.path.insert(0, {root!r})
logging.disable(logging.CRITICAL)
spec = importlib.util.spec_from_file_location("claims", {file!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
for seed in {seeds}:
    world = module.MemoryWorld(seed)
    boots = world.run(module.two_at_once)
    print(seed, world.simulation.digest(), world.simulation.schedule_digest(), boots)
"""


def test_one_seed_gives_one_run_whatever_the_hash_seed_and_what_ran_before_and_other_seeds_give_others() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM.format(root=str(Path.cwd()), file=__file__, seeds=seeds)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for hash_seed, seeds in (("1", "range(6)"), ("2", "reversed(range(6))"))
    ]
    assert sorted(outputs[0].splitlines()) == sorted(outputs[1].splitlines())
    assert len({line.split()[2] for line in outputs[0].splitlines()}) == 6


def test_a_run_in_the_same_process_after_others_is_still_the_same_run() -> None:
    digests = []
    for seed in (3, 4, 3):
        world = MemoryWorld(seed)
        world.run(two_at_once)
        digests.append(world.simulation.digest())
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize("start", [booted, None])
def test_the_world_comes_up_with_what_scenarios_count_on(start: Callable[[], Prepared] | None) -> None:
    def look(world: World) -> None:
        env = world.environment
        assert len({pool.tag for pool in env.pools}) == 2
        assert len({pool.storpool_template for pool in env.pools}) == 2
        assert [host.client_id for host in world.hosts] == [1, 2]
        assert not world.real
        hosts = world.cloud.call("listHosts", type="Routing")["host"]
        assert sorted(host["name"] for host in hosts) == sorted(host.name for host in world.hosts)
        assert len({world.name("x") for _ in range(5)}) == 5
        assert world.storpool.volume("nobody") is None
        assert world.storpool.snapshot("~splab.b.zz") is None
        assert all(volume["tags"]["cs"] == "check-volume-is-on-host" for volume in world.storpool.volumes())
        assert world.storpool.calls()["VolumeTemplateDescribe"] == 2
        with pytest.raises(TimeoutError, match="the moon"):
            world.wait_until("the moon", lambda: False, 5)
        with pytest.raises(CloudApiError) as refused:
            world.cloud.call("listNothing")
        assert refused.value.code == 432
        with pytest.raises(ValueError, match="inside") as noted, world.check("a check"):
            raise ValueError("inside")
        assert noted.value.__notes__ == ["check: a check"]

    MemoryWorld(1, start=start).run(look)


def test_hosts_show_devices_and_domains_and_what_befalls_them() -> None:
    def look(world: World) -> None:
        vm = world.cloud.call("deployVirtualMachine", **deployment(world, template(world)))["virtualmachine"]
        name = str(vm_of(world, vm["id"])["instancename"])
        (volume,) = world.cloud.call("listVolumes", virtualmachineid=vm["id"])["volume"]
        host = next(host for host in world.hosts if name in host.domains())
        path = str(volume["path"])
        assert path.rpartition("/")[2] in host.devices()
        assert host.device_size(path) == volume["size"]
        assert host.device_size("/dev/storpool-byid/nothing") is None
        guest = world.guest(str(vm["id"]))
        with pytest.raises(ConnectionError, match="may still be booting"):
            guest.disks()
        guest.boot_id()
        guest.write(host.domain_disks(name)[0].serial, 4096, MARK)
        assert host.read_device(path, 4096, len(MARK)) == MARK
        with pytest.raises(FileNotFoundError):
            host.read_device("/dev/storpool-byid/nothing", 0, 1)
        (disk,) = host.domain_disks(name)
        assert (disk.source, disk.driver_type, disk.cache, disk.discard) == (path, "raw", "none", "unmap")
        assert path in host.domain_xml(name)
        assert host.domain_disks("nobody") == ()
        host.suspend(name)
        assert host.domains()[name] == "paused"
        with pytest.raises(TimeoutError, match="paused"):
            guest.boot_id()
        host.resume(name)
        boot = guest.boot_id()
        host.kill_qemu(name)
        assert host.domains()[name] == "shut off"
        with pytest.raises(TimeoutError, match="did not answer"):
            guest.boot_id()
        world.wait_until("CloudStack sees it", lambda: vm_of(world, vm["id"])["state"] == "Stopped", 300)
        world.cloud.call("startVirtualMachine", id=vm["id"])
        assert guest.boot_id() != boot

    MemoryWorld(2).run(look)


def test_an_idle_guest_lets_disks_go_and_powers_off_and_nobody_logs_in_to_it() -> None:
    def main(world: MemoryWorld) -> None:
        vm = steps.idle_vm(world)
        data = steps.attach(world, steps.data_volume(world), vm)
        with pytest.raises(ConnectionError, match="it has no system to log in to"):
            world.guest(str(vm["id"])).boot_id()
        steps.detach(world, data)
        begun = world.simulation.main.monotonic()
        assert steps.stop(world, vm)["state"] == "Stopped"
        assert world.simulation.main.monotonic() - begun < 20, "it was not asked, but destroyed in the end"
        steps.expunge(world, vm)

    world = MemoryWorld(1)
    world.run(main)


@pytest.mark.parametrize("seed", range(4))
def test_every_process_can_be_killed_and_started_again_with_what_is_durable(seed: int) -> None:
    def live_on(world: MemoryWorld) -> None:
        template_id = template(world)
        vm = world.cloud.call("deployVirtualMachine", **deployment(world, template_id))["virtualmachine"]
        boot = world.guest(str(vm["id"])).boot_id()
        processes = (*world.processes.names, MANAGEMENT)
        for name in processes:
            world.kill(name)
        with pytest.raises(ConnectionError):
            world.cloud.call("listZones")
        for name in processes:
            world.start(name)
        assert world.guest(str(vm["id"])).boot_id() == boot
        world.wait_until("the cloud is at rest", lambda: violations(world) == [])
        world.cloud.call("deployVirtualMachine", **deployment(world, template_id))
        assert violations(world) == []

    MemoryWorld(seed).run(live_on)


class DyingAgents:
    """A VM's life whose agents die at every point number `every * n + first`, and are started again within a second."""

    def __init__(self, first: int, every: int) -> None:
        self.world = MemoryWorld(first, strike=self._strike)
        self.kills = 0
        self._first = first
        self._every = every
        self._points = 0
        self._agents = [agent_of(host.name) for host in self.world.hosts]
        self._over = False

    def run(self) -> None:
        self.world.run(self._main)

    def _main(self, world: MemoryWorld) -> None:
        world.simulation.main.spawn("start again", self._start_again)
        env = world.environment
        template_id = template(world)
        offering = world.cloud.call("createDiskOffering", name="o", displaytext="o", disksize=1, tags=env.pools[0].tag)[
            "diskoffering"
        ]["id"]
        vm = self._try("deployVirtualMachine", **deployment(world, template_id))
        volume = self._try("createVolume", name="d", diskofferingid=offering, zoneid=env.zone_id)
        for command in ("attachVolume", "detachVolume", "attachVolume") if vm and volume else ():
            self._try(command, id=volume["volume"]["id"], virtualmachineid=vm["virtualmachine"]["id"])
        for command in ("stopVirtualMachine", "startVirtualMachine") if vm else ():
            self._try(command, id=vm["virtualmachine"]["id"])
        self._over = True
        world.simulation.main.sleep(2 * SETTLE_TIME)
        assert violations(world) == []
        files = [name for machine in world.processes.machines.values() for name in machine.files]
        assert not [name for name in files if "/operations/" in name]

    def _try(self, command: str, **parameters: str | int | bool) -> Json:
        """The answer; nothing when it failed, as it may because of a kill."""
        try:
            return self.world.cloud.call(command, **parameters)
        except CloudApiError:
            return {}

    def _start_again(self) -> None:
        while not self._over:
            for name in self._agents:
                if not self.world.simulation.alive(name):
                    self.world.start(name)
            self.world.simulation.main.sleep(1)

    def _strike(self, process: str, _kind: str, _detail: str) -> None:
        if process not in self._agents or self._over:
            return
        self._points += 1
        if self._points % self._every == self._first:
            self.kills += 1
            self.world.kill(process)


def test_agents_that_die_again_and_again_leave_nothing_behind() -> None:
    kills = 0
    for every in (10, 40):
        for first in range(every):
            life = DyingAgents(first, every)
            try:
                life.run()
            except AssertionError as error:
                raise AssertionError(f"killed at points {every} * n + {first}: {error}") from error
            kills += life.kills
    assert kills > 40


def test_a_dead_agent_is_an_error_of_the_job_and_not_of_the_run() -> None:
    def attach(world: MemoryWorld) -> None:
        template_id = template(world)
        for host in world.hosts:
            world.kill(agent_of(host.name))
        with pytest.raises(CloudApiError):
            world.cloud.call("deployVirtualMachine", **deployment(world, template_id))

    MemoryWorld(1).run(attach)


def test_a_second_pool_of_one_storpool_template_is_refused_until_the_first_is_gone() -> None:
    def again(world: World) -> tuple[str, list[str]]:
        env = world.environment
        pool = env.pools[1]
        wanted: dict[str, str | int | bool] = {
            "name": "second",
            "zoneid": env.zone_id,
            "scope": "zone",
            "provider": "StorPool",
            "capacitybytes": 1 << 40,
            "url": f"storpool://{STORPOOL_TOKEN}@{ENDPOINT}/{pool.storpool_template}",
        }
        with pytest.raises(CloudApiError) as refused:
            world.cloud.call("createStoragePool", **wanted)
        world.cloud.call("enableStorageMaintenance", id=pool.id)
        world.cloud.call("deleteStoragePool", id=pool.id)
        world.cloud.call("createStoragePool", **wanted)
        listed = world.cloud.call("listStoragePools")["storagepool"]
        return str(refused.value), sorted(str(row["name"]) for row in listed)

    text, names = MemoryWorld(1).run(again)
    assert "serves pool" in text and STORPOOL_TOKEN not in text
    assert names == ["fast", "second"]


def test_a_vm_whose_qemu_dies_is_stopped_although_a_disk_it_was_started_with_is_another_vms_now() -> None:
    """libvirt's definition of a domain that is off still names the disk that was hot-unplugged."""
    states: list[str] = []

    def body(world: World) -> None:
        cloud, host = world.cloud, world.hosts[0]
        hosts = cloud.call("listHosts", type="Routing")["host"]
        host_id = next(str(item["id"]) for item in hosts if item["name"] == host.name)
        wanted = deployment(world, template(world))
        first, second = (
            str(cloud.call("deployVirtualMachine", **{**wanted, "name": name}, hostid=host_id)["virtualmachine"]["id"])
            for name in ("first", "second")
        )
        offering = cloud.call("createDiskOffering", name="data", displaytext="data", customized=True)
        parameters = {"zoneid": world.environment.zone_id, "diskofferingid": offering["diskoffering"]["id"], "size": 1}
        volume = cloud.call("createVolume", name="data", **parameters)["volume"]["id"]
        cloud.call("stopVirtualMachine", id=first, forced=True)
        cloud.call("attachVolume", id=volume, virtualmachineid=first)
        cloud.call("startVirtualMachine", id=first, hostid=host_id)
        world.guest(first).boot_id()
        cloud.call("detachVolume", id=volume)
        cloud.call("attachVolume", id=volume, virtualmachineid=second)
        host.kill_qemu(str(vm_of(world, first)["instancename"]))
        world.wait_until("the first VM is stopped", lambda: vm_of(world, first)["state"] == "Stopped", 300)
        states.extend(violations(world))
        states.append(str(vm_of(world, second)["state"]))

    MemoryWorld(1).run(body)
    assert states == ["Running"]
