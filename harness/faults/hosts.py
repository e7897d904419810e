"""Operations on hosts: one is lost, reconnected, put into maintenance (extra `hosts`)."""

from __future__ import annotations

from harness.faults.operation import Operation, Subject, running
from harness.observers import CloudApiError, Json, World
from scenarios import hosts, looks, pools, steps

MOVED_SECONDS = 3600.0
"""Longer than it takes to find out that a host is lost, and to try some starts."""
CONNECT_SECONDS = 600.0


def _ha_vm(world: World) -> Subject:
    for host in world.hosts:
        world.cloud.call("enableHAForHost", hostid=hosts.record_of(world, host)["id"])
    vm, volume = hosts.vm_with_mark(world, world.hosts[0], ha=True)
    return Subject(vm=vm, volume=volume)


def _lose(world: World, subject: Subject) -> None:
    if _on(world, subject) == world.hosts[0].name:
        world.hosts[0].power_cut()
    _await_moved(world, subject)


def _isolate(world: World, subject: Subject) -> None:
    """Its guest runs on, until the host is fenced."""
    if _on(world, subject) == world.hosts[0].name:
        world.hosts[0].kill_agent()
    _await_moved(world, subject)


def _await_moved(world: World, subject: Subject) -> None:
    try:
        world.wait_until("the VM runs elsewhere", lambda: _moved(world, subject), MOVED_SECONDS)
    except TimeoutError as error:
        raise CloudApiError("startVirtualMachine", 530, str(error)) from error


def _on(world: World, subject: Subject) -> str:
    """The host that CloudStack says the VM runs on."""
    vm = looks.reread(world, subject.vm)
    return steps.host_of(world, vm).name if vm["state"] == "Running" else ""


def _moved(world: World, subject: Subject) -> bool:
    try:
        return _on(world, subject) not in ("", world.hosts[0].name)
    except ConnectionError:
        return False


def _moved_with_disks(world: World, subject: Subject) -> None:
    world.hosts[0].power_on()
    vm = running(world, subject, subject.vm)
    hosts.runs_with_mark(world, vm, looks.reread_volume(world, subject.volume))
    assert hosts.runs_on(world, vm) == [steps.host_of(world, vm).name], f"it runs on {hosts.runs_on(world, vm)}"


def _not_moved(world: World, subject: Subject) -> None:
    """It runs where it was, or is stopped and waits for somebody."""
    world.hosts[0].power_on()
    vm = looks.reread(world, subject.vm)
    if vm["state"] == "Stopped":
        vm = steps.start(world, vm)
    hosts.runs_with_mark(world, vm, looks.reread_volume(world, subject.volume))


def _vm(world: World) -> Subject:
    vm, volume = hosts.vm_with_mark(world, world.hosts[0], ha=False)
    return Subject(vm=vm, volume=volume)


def _reconnect(world: World, subject: Subject) -> None:
    del subject
    world.cloud.call("reconnectHost", id=hosts.record_of(world, world.hosts[0])["id"])


def _connected(world: World, subject: Subject) -> None:
    for pool in steps.many(world.cloud.call("listStoragePools"), "storagepool"):
        pools.await_connected(world, pool, CONNECT_SECONDS)
    vm = running(world, subject, subject.vm)
    hosts.runs_with_mark(world, vm, looks.reread_volume(world, subject.volume))


def _idle(world: World) -> Subject:
    del world
    return Subject()


def _maintain(world: World, subject: Subject) -> None:
    del subject
    world.cloud.call("prepareHostForMaintenance", id=hosts.record_of(world, world.hosts[0])["id"])


def _maintained(world: World, subject: Subject) -> None:
    del subject
    assert _record(world)["resourcestate"] == "Maintenance", _record(world)
    vm = steps.running_vm(world)
    assert steps.host_of(world, vm).name != world.hosts[0].name, "a VM was started there"
    world.cloud.call("cancelHostMaintenance", id=_record(world)["id"])
    for pool in steps.many(world.cloud.call("listStoragePools"), "storagepool"):
        pools.await_connected(world, pool, CONNECT_SECONDS)


def _not_maintained(world: World, subject: Subject) -> None:
    del subject
    assert _record(world)["resourcestate"] == "Enabled", _record(world)


def _record(world: World) -> Json:
    return hosts.record_of(world, world.hosts[0])


HOSTS: tuple[Operation, ...] = (
    Operation(
        "hosts.lost", "a host is lost, its VM is started elsewhere", _ha_vm, _lose, _moved_with_disks, _not_moved
    ),
    Operation(
        "hosts.isolated",
        "a host does not answer, its VM is started elsewhere",
        _ha_vm,
        _isolate,
        _moved_with_disks,
        _not_moved,
    ),
    Operation("hosts.reconnect", "connect a host with a VM anew", _vm, _reconnect, _connected, _connected),
    Operation("hosts.maintenance", "put a host into maintenance", _idle, _maintain, _maintained, _not_maintained),
)
