"""Extra `hosts`: what hosts are told of StorPool, agents that end, hosts that are lost, devices that come late
(spec/action-table.md)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.observers import CloudApiError, Host, Json, World
from scenarios.looks import (
    attached,
    attached_only_to,
    attachments_of,
    fails,
    fully_attached,
    fully_detached,
    global_id,
    refused,
    reread,
    reread_volume,
    serial,
)
from scenarios.pools import await_connected, connected_hosts, offering_on, spare_pool
from scenarios.registry import scenario
from scenarios.snapshots import take
from scenarios.steps import (
    attach,
    booted_vm,
    compute_offering,
    data_volume,
    deploy,
    detach,
    host_of,
    idle_template,
    many,
    one,
    root_volume,
    shared_template,
    start,
    stop,
    vm_by_id,
)

MARK = b"written before the host was lost".ljust(4096, b".")
LOST_SECONDS = 900.0
"""CloudStack takes a host for lost after two and a half minutes without an answer."""
UP_SECONDS = 300.0


def record_of(world: World, host: Host) -> Json:
    listed = many(world.cloud.call("listHosts", type="Routing"), "host")
    return next(item for item in listed if item["name"] == host.name)


def await_state(world: World, host: Host, state: str, timeout: float) -> None:
    world.wait_until(f"host {host.name} is {state}", lambda: record_of(world, host)["state"] == state, timeout)


@contextmanager
def high_availability(world: World) -> Iterator[None]:
    """Hosts that are lost are fenced, for the block."""
    for host in world.hosts:
        host_id = record_of(world, host)["id"]
        world.cloud.call("configureHAForHost", hostid=host_id, provider="KVMHAProvider")
        world.cloud.call("enableHAForHost", hostid=host_id)
    try:
        yield
    finally:
        for host in world.hosts:
            world.cloud.call("disableHAForHost", hostid=record_of(world, host)["id"])


def vm_with_mark(world: World, host: Host, *, ha: bool) -> tuple[Json, Json]:
    """A VM on that host, and its DATA volume with `MARK` at its beginning."""
    offering = compute_offering(world, offerha=ha)
    vm = deploy(world, shared_template(world), serviceofferingid=offering["id"], hostid=record_of(world, host)["id"])
    guest = world.guest(str(vm["id"]))
    guest.boot_id()
    volume = attach(world, data_volume(world), vm)
    guest.write(serial(volume), 0, MARK)
    return vm, volume


def runs_with_mark(world: World, vm: Json, volume: Json) -> None:
    """It runs, its disks are where it runs and nowhere else, and nothing that was written is lost."""
    for item in (root_volume(world, str(vm["id"])), volume):
        fully_attached(world, vm, item)
    with world.check("what was written is there"):
        assert world.guest(str(vm["id"])).read(serial(volume), 0, len(MARK)) == MARK


def serves_with_mark(world: World, vm: Json, volume: Json, host: Host) -> None:
    """As far as it can be seen while another host is off."""
    with world.check(f"its volumes are attached to {host.name} only"):
        for item in (root_volume(world, str(vm["id"])), volume):
            attached_only_to(world, item, host)
    with world.check("the guest is up elsewhere, and what was written is there"):
        guest = world.guest(str(vm["id"]))
        guest.boot_id()
        assert guest.read(serial(volume), 0, len(MARK)) == MARK


def runs_on(world: World, vm: Json) -> list[str]:
    """Hosts that run the VM's domain."""
    name = str(vm["instancename"])
    return [host.name for host in world.hosts if host.domains().get(name) == "running"]


@scenario(
    "hosts", "agent-restart", "an agent is killed, and another started, while VMs run: nothing is detached or lost"
)
def agent_restart(world: World) -> None:
    host = world.hosts[0]
    vm, volume = vm_with_mark(world, host, ha=False)
    free = stored_volume(world, vm)
    boot = world.guest(str(vm["id"])).boot_id()
    host.kill_agent()
    try:
        with world.check("without its agent the guest runs on, with its disks"):
            assert world.guest(str(vm["id"])).read(serial(volume), 0, len(MARK)) == MARK
            assert attachments_of(world, global_id(volume)) == [(host.client_id, "rw")]
        with refused(world, "an attach on a host whose agent is away", 530, 534):
            attach(world, free, vm)
    finally:
        host.start_agent()
    await_state(world, host, "Up", UP_SECONDS)
    runs_with_mark(world, reread(world, vm), volume)
    with world.check("the guest was not disturbed"):
        assert world.guest(str(vm["id"])).boot_id() == boot
    await_attachable(world, free, vm)
    with world.check("the new agent attaches and detaches"):
        free = reread_volume(world, free)
        fully_attached(world, vm, free)
        free, volume = detach(world, free), detach(world, volume)
    for item in (free, volume):
        fully_detached(world, item)
    stopped = stop(world, vm)
    with world.check("and stops what the old one has started"):
        assert stopped["state"] == "Stopped", stopped


def await_attachable(world: World, volume: Json, vm: Json) -> None:
    """Attach, as soon as the host has its pools connected again."""

    def attached() -> bool:
        try:
            attach(world, volume, vm)
        except CloudApiError:
            return False
        return True

    world.wait_until(f"volume {volume['id']} is attached", attached, UP_SECONDS)


@scenario("hosts", "lost", "a host is lost: it is fenced, its VMs are stopped, and started elsewhere if they may be")
def lost(world: World) -> None:
    host, other = world.hosts[:2]
    vm, volume = vm_with_mark(world, host, ha=True)
    plain, kept = vm_with_mark(world, host, ha=False)
    bystander = deploy(world, shared_template(world), hostid=record_of(world, other)["id"])
    boot = world.guest(str(bystander["id"])).boot_id()
    with high_availability(world):
        host.power_cut()
        try:
            moved(world, vm, other)
            serves_with_mark(world, vm, volume, other)
            world.wait_until("the other VM is stopped", lambda: reread(world, plain)["state"] == "Stopped", 60)
            with world.check(
                "a VM whose offering does not ask for it is not started elsewhere, and is attached nowhere"
            ):
                for item in (root_volume(world, str(plain["id"])), kept):
                    assert attachments_of(world, global_id(item)) == [], f"{item['path']} is attached"
            with world.check("a VM on another host was not disturbed"):
                assert world.guest(str(bystander["id"])).boot_id() == boot
        finally:
            host.power_on()
        await_state(world, host, "Up", UP_SECONDS)
    runs_with_mark(world, reread(world, vm), volume)
    with world.check("back again, the host runs none of them"):
        assert runs_on(world, vm) == [other.name] and runs_on(world, plain) == [], "a VM runs where it was lost"
    runs_with_mark(world, start(world, plain), kept)


def moved(world: World, vm: Json, host: Host) -> None:
    def there() -> bool:
        now = reread(world, vm)
        return now["state"] == "Running" and host_of(world, now).name == host.name

    world.wait_until(f"VM {vm['instancename']} runs on {host.name}", there, LOST_SECONDS)


@scenario("hosts", "isolated", "a host that only does not answer is fenced first, so its VM never runs twice (#8045)")
def isolated(world: World) -> None:
    host, other = world.hosts[:2]
    vm, volume = vm_with_mark(world, host, ha=True)
    boot = world.guest(str(vm["id"])).boot_id()
    with high_availability(world):
        host.kill_agent()
        with world.check("its guest runs on, and nobody else has its disk"):
            assert world.guest(str(vm["id"])).boot_id() == boot
            assert attachments_of(world, global_id(volume)) == [(host.client_id, "rw")]
        try:
            moved(world, vm, other)
            serves_with_mark(world, vm, volume, other)
        finally:
            host.power_on()
        await_state(world, host, "Up", UP_SECONDS)
    runs_with_mark(world, reread(world, vm), volume)
    with world.check("it runs once"):
        assert runs_on(world, vm) == [other.name], f"it runs on {runs_on(world, vm)}"
        assert world.guest(str(vm["id"])).boot_id() != boot


@scenario("hosts", "not-fenced", "without high availability nothing of a lost host is taken from it until it is back")
def not_fenced(world: World) -> None:
    host = world.hosts[0]
    vm, volume = vm_with_mark(world, host, ha=True)
    free = stored_volume(world, vm)
    host.power_cut()
    try:
        await_state(world, host, "Down", LOST_SECONDS)
        with world.check("what any host can do, another one does: backups of a volume"):
            for _ in range(3):
                assert take(world, free)["state"] == "BackedUp"
        with world.check("its VM is not started elsewhere, and its volume stays its own"):
            assert reread(world, vm)["state"] == "Running", reread(world, vm)
            assert attachments_of(world, global_id(volume)) == [(host.client_id, "rw")]
        error = fails(lambda: stop(world, vm))
        with world.check("a stop says which host does not answer"):
            assert host.name in error.text, error.text
    finally:
        host.power_on()
    await_state(world, host, "Up", UP_SECONDS)
    world.wait_until("the VM is reported off", lambda: reread(world, vm)["state"] == "Stopped", UP_SECONDS)
    fully_detached(world, volume)
    runs_with_mark(world, start(world, vm), volume)


@scenario(
    "hosts", "not-a-client", "a host whose SP_OURID is of no client is told so, uses no pool, and keeps what runs"
)
def not_a_client(world: World) -> None:
    host = world.hosts[0]
    vm, volume = vm_with_mark(world, host, ha=False)
    host_id = record_of(world, host)["id"]
    pools = many(world.cloud.call("listStoragePools"), "storagepool")
    for settings, words in (({"SP_OURID": "77"}, ("77",)), ({"SP_OURID": "many"}, ("SP_OURID",))):
        with host.storpool_conf(**settings):
            error = fails(lambda: world.cloud.call("reconnectHost", id=host_id))
            with world.check(f"with {settings}: the reason names the host and what is wrong"):
                for word in (host.name, *words):
                    assert word in error.text, error.text
            with world.check("no pool is connected there"):
                connected = {pool["name"]: connected_hosts(world, pool) for pool in pools}
                assert all(host.name not in names for names in connected.values()), connected
            error = fails(lambda: deploy(world, shared_template(world), hostid=host_id))
            with world.check("a VM is not started there"):
                assert "pools connected" in error.text or "not connected" in error.text, error.text
            with world.check("what runs there goes on"):
                assert world.guest(str(vm["id"])).read(serial(volume), 0, len(MARK)) == MARK
    world.cloud.call("reconnectHost", id=host_id)
    for pool in pools:
        await_connected(world, pool)
    with world.check("with its own settings again it uses every pool, without a restart of its agent"):
        second = deploy(world, shared_template(world), hostid=host_id)
        assert host_of(world, second).name == host.name
    runs_with_mark(world, reread(world, vm), volume)


@scenario(
    "hosts", "token", "a host with a wrong token says so without showing it, and needs no restart once it is right"
)
def token(world: World) -> None:
    host, wrong = world.hosts[0], "1=not=the=token"
    host_id = record_of(world, host)["id"]
    with host.storpool_conf(SP_AUTH_TOKEN=wrong):
        host.kill_agent()
        host.start_agent()
        error = fails(lambda: world.cloud.call("reconnectHost", id=host_id))
        with world.check("the reason names the host and the setting"):
            assert host.name in error.text and "SP_AUTH_TOKEN" in error.text, error.text
        with world.check("and shows no token"):
            assert wrong not in error.text and world.environment.storpool_token not in error.text
    world.cloud.call("reconnectHost", id=host_id)
    for pool in many(world.cloud.call("listStoragePools"), "storagepool"):
        await_connected(world, pool)
    vm = deploy(world, shared_template(world), hostid=host_id)
    fully_attached(world, vm, root_volume(world, str(vm["id"])))


@scenario("hosts", "device-late", "a device that comes late is waited for; one that does not is an error, and detached")
def device_late(world: World) -> None:
    vm = booted_vm(world)
    host, volume = host_of(world, vm), stored_volume(world, vm)
    with host.devices_late():
        job = world.cloud.start("attachVolume", id=volume["id"], virtualmachineid=vm["id"])
        world.wait_until("StorPool has attached it", lambda: bool(attachments_of(world, global_id(volume))))
    world.cloud.wait(job)
    volume = reread_volume(world, volume)
    fully_attached(world, vm, volume)
    volume = detach(world, volume)
    with host.devices_late():
        error = fails(lambda: attach(world, volume, vm))
        with world.check("the reason names the device and the host"):
            assert str(volume["path"]) in error.text and host.name in error.text, error.text
    fully_detached(world, volume)
    with world.check("the volume can be used again"):
        fully_attached(world, vm, attach(world, volume, vm))


def stored_volume(world: World, vm: Json) -> Json:
    """A DATA volume that is on StorPool and attached to nothing."""
    return detach(world, attach(world, data_volume(world), vm))


@scenario(
    "hosts", "maintenance", "a host in maintenance gets no VM and no pool; afterwards it has every pool (#9295, #9301)"
)
def maintenance(world: World) -> None:
    host, other = world.hosts[:2]
    host_id = record_of(world, host)["id"]
    vm = deploy(world, idle_template(world), hostid=host_id)
    world.guest(str(vm["id"])).ready()
    with refused(world, "maintenance of a host with a VM on it", 431):
        world.cloud.call("prepareHostForMaintenance", id=host_id)
    vm = stop(world, vm)
    world.cloud.call("prepareHostForMaintenance", id=host_id)
    try:
        with world.check("it is in maintenance"):
            assert record_of(world, host)["resourcestate"] == "Maintenance", record_of(world, host)
        vm = start(world, vm)
        with world.check("VMs are started elsewhere"):
            assert host_of(world, vm).name == other.name
        world.guest(str(vm["id"])).ready()
        with spare_pool(world) as pool:
            with world.check("a pool that is added meanwhile is connected on the other hosts only"):
                assert host.name not in connected_hosts(world, pool), connected_hosts(world, pool)
            world.cloud.call("cancelHostMaintenance", id=host_id)
            await_connected(world, pool)
            vm = stop(world, vm)
            world.cloud.call("startVirtualMachine", id=vm["id"], hostid=host_id)
            vm = vm_by_id(world, str(vm["id"]))
            volume = attach(world, data_volume(world, 1, offering_on(world, pool)), vm)
            attached(world, vm, volume)
            world.cloud.call("deleteVolume", id=detach(world, volume)["id"])
        with refused(world, "to cancel what is over", 431):
            world.cloud.call("cancelHostMaintenance", id=host_id)
    finally:
        if record_of(world, host)["resourcestate"] == "Maintenance":
            world.cloud.call("cancelHostMaintenance", id=host_id)


@scenario(
    "hosts", "pool-maintenance", "a pool's maintenance can be cancelled after its hosts' agents came back (#11764)"
)
def pool_maintenance(world: World) -> None:
    with spare_pool(world) as pool:
        world.cloud.call("enableStorageMaintenance", id=pool["id"])
        for host in world.hosts:
            host.kill_agent()
            host.start_agent()
        for host in world.hosts:
            world.cloud.call("reconnectHost", id=record_of(world, host)["id"])
        shown = one(world.cloud.call("cancelStorageMaintenance", id=pool["id"]), "storagepool")
        with world.check("it is Up, and every host has it"):
            assert shown["state"] == "Up", shown
            await_connected(world, pool)


@scenario("hosts", "refusals", "what cannot be asked of a host is refused with a reason")
def refusals(world: World) -> None:
    host = world.hosts[0]
    host_id = record_of(world, host)["id"]
    for why, command, parameters in (
        ("another HA provider", "configureHAForHost", {"hostid": host_id, "provider": "other"}),
        ("an allocation state that is none", "updateHost", {"id": host_id, "allocationstate": "perhaps"}),
        ("maintenance that is not there", "cancelHostMaintenance", {"id": host_id}),
    ):
        with refused(world, why, 431):
            world.cloud.call(command, **parameters)
    host.kill_agent()
    try:
        error = fails(lambda: world.cloud.call("reconnectHost", id=host_id))
        with world.check("a host that does not answer is not reconnected, and named"):
            assert host.name in error.text, error.text
    finally:
        host.start_agent()
    world.cloud.call("reconnectHost", id=host_id)
    with world.check("reconnected"):
        assert record_of(world, host)["state"] == "Up"
