"""What the storage driver is told of the records for comparing them with StorPool, and when it compares."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator

import pytest
from cloud_rig import HOSTS, Rig, configuration

from harness.cloudstack.records import RecordsOfDriver
from harness.cloudstack.records.rows import DETACHING, Operation, Vm, Volume
from harness.runtime.simulated import Simulation
from harness.runtime.threads import ThreadRuntime
from harness.spi.driver import OperationRecord
from harness.spi.errors import Unavailable
from harness.spi.inventory import Finding, FindingKind
from harness.spi.states import SnapshotState, StoreRefState, VmState, VolumeState


@pytest.fixture
def rig() -> Iterator[Rig]:
    runtime = ThreadRuntime("management")
    rig = Rig(runtime)
    rig.server.start()
    yield rig
    assert rig.server.stop()
    runtime.kill()


@pytest.fixture
def driver(rig: Rig) -> RecordsOfDriver:
    return RecordsOfDriver(rig.records)


def test_the_inventory_shows_everything_that_is_on_storpool(rig: Rig, driver: RecordsOfDriver) -> None:
    vm = rig.deploy(*rig.ready())
    data = rig.volume(diskofferingid=rig.disk_offering(maxiops=500, details={"SP_TEMPLATE": "quick"}))
    unused = rig.volume(diskofferingid=rig.disk_offering(details={"SP_QOSCLASS": "gold"}))
    rig.call("attachVolume", id=data["id"], virtualmachineid=vm["id"])
    taken = rig.call("createSnapshot", volumeid=data["id"])["snapshot"]
    with rig.records.transaction("the path is in the row on the store too") as tx:
        tx.execute("DELETE FROM snapshot_details")
    seen = driver.inventory()

    root, attached = seen.volumes
    assert (root.device_id, attached.device_id, attached.max_iops, attached.pool_id) == (0, 1, 500, 1)
    for record in (root, attached):
        assert (record.state, record.vm_uuid, record.steady) == (VolumeState.READY, vm["id"], True)
        assert driver.volume(record.uuid) == record
        assert record.path in rig.storpool.volumes
    (snapshot,) = seen.snapshots
    assert (snapshot.uuid, snapshot.state, snapshot.pool_id) == (taken["id"], SnapshotState.BACKED_UP, 1)
    (template,) = seen.templates
    assert (template.state, template.pool_id) == (StoreRefState.READY, 1)
    assert driver.template_cache(template.template_id, 1) == template
    assert driver.template_mirror(template.template_uuid) and driver.template_mirror("other") is None
    (running,) = seen.vms
    assert (running.state, running.unconfirmed_hosts) == (VmState.RUNNING, frozenset())
    assert driver.vm(str(vm["id"])) == running
    assert [(host.name, host.storpool_client_id) for host in seen.hosts if host.up] == [(HOSTS[0], 1), (HOSTS[1], 2)]
    assert seen.offering_templates == {"quick"} and seen.tiers == {"gold"}
    assert seen.paths == {*rig.storpool.volumes, *rig.storpool.snapshots}
    assert driver.volume(unused["id"]) is not None and driver.volume("other") is None


def test_what_is_removed_is_not_listed_and_still_known(rig: Rig, driver: RecordsOfDriver) -> None:
    vm = rig.deploy(*rig.ready())
    (root,) = driver.inventory().volumes
    taken = rig.call("createSnapshot", volumeid=root.uuid)["snapshot"]["id"]
    assert root.path is not None and driver.names_object([root.path])
    rig.call("deleteSnapshot", id=taken)
    rig.call("destroyVirtualMachine", id=vm["id"], expunge="true")
    seen = driver.inventory()
    assert (seen.volumes, seen.snapshots, seen.vms) == ((), (), ())
    assert not driver.names_object([root.path])
    volume, snapshot = driver.volume(root.uuid), driver.snapshot(taken)
    assert volume is not None and volume.removed and snapshot is not None and snapshot.removed
    assert driver.vm(str(vm["id"])) is None


def test_a_path_in_any_detail_names_its_object(rig: Rig, driver: RecordsOfDriver) -> None:
    rig.pool()
    path = "/dev/storpool-byid/a.b.c"
    assert not driver.names_object([path])
    with rig.records.transaction("detail") as tx:
        tx.set_detail("snapshot_details", 7, "whatever", path)
    assert driver.names_object(["/dev/storpool/other", path])
    assert driver.inventory().paths == {path}


def test_what_hosts_have_not_confirmed_is_told(rig: Rig, driver: RecordsOfDriver) -> None:
    vm = rig.deploy(*rig.ready())
    (row,) = rig.rows(Volume)
    with rig.records.transaction("detach under way") as tx:
        tx.set_detail("volume_details", row.id, DETACHING, "1:1:0")
    assert [record.steady for record in driver.inventory().volumes] == [False]
    (host_id,) = [row.host_id for row in rig.rows(Vm)]
    host = rig.hosts[HOSTS[host_id - 1]]
    host.down = True
    rig.call("stopVirtualMachine", id=vm["id"], forced="true")
    (stopped,) = driver.inventory().vms
    assert (stopped.state, stopped.unconfirmed_hosts) == (VmState.STOPPED, frozenset({host_id}))
    assert stopped.may_use(host_id) and not stopped.may_use(3 - host_id)
    host.down = False
    rig.server.tend()
    (stopped,) = driver.inventory().vms
    assert not stopped.may_use(host_id)


def operation(number: int) -> OperationRecord:
    data = {"volume.id": f"a.b.{number}"}
    return OperationRecord(id=f"id-{number}", kind="k", subject=f"volume:{number}", step="a", data=data, created_at=0)


def test_open_operations_are_busy_and_ended_ones_are_purged_by_their_end(rig: Rig, driver: RecordsOfDriver) -> None:
    for number in range(6):
        driver.begin_operation(operation(number))
    assert {"volume:3", "a.b.3", "id-3"} <= driver.inventory().busy
    for number in range(1, 6):
        driver.end_operation(f"id-{number}", "done")
    assert driver.inventory().busy == {"volume:0", "a.b.0", "id-0"}
    with rig.records.transaction("age") as tx:
        tx.execute("UPDATE operations SET ended_at = 100 WHERE outcome IS NOT NULL AND uuid != 'id-5'")
    assert driver.purge_operations(100.0, 9) == 0
    assert driver.purge_operations(101.0, 3) == 3
    assert driver.purge_operations(101.0, 3) == 1
    assert [row.uuid for row in rig.rows(Operation)] == ["id-0", "id-5"]
    assert driver.operation_known("id-5") and not driver.operation_known("id-4")


def live(settings: dict[str, str], act: Callable[[Rig, Callable[[float], None]], None]) -> Rig:
    """Run a management server with these settings in virtual time."""
    simulation = Simulation(1)
    rig = Rig(simulation.process("management"), config=configuration(settings=settings))

    def main() -> None:
        rig.runtime.spawn("boot", rig.server.start)
        simulation.main.sleep(1)
        act(rig, simulation.main.sleep)

    simulation.run(main)
    return rig


@pytest.mark.parametrize(("volumes", "snapshots"), [("100", "0"), ("0", "100"), ("100", "300")])
def test_the_driver_compares_at_the_intervals_of_the_settings(volumes: str, snapshots: str) -> None:
    """And once soon after the start, when the ping interval of 30 seconds is over."""
    settings = {"storpool.volume.tags.checkup": volumes, "storpool.snapshot.tags.checkup": snapshots}
    rig = live(settings, lambda _, sleep: sleep(950))
    for call, interval in (("reconcile_volumes", int(volumes)), ("reconcile_snapshots", int(snapshots))):
        assert rig.storpool.calls.count(call) == (1 + (950 - 30) // interval if interval else 0), call


def test_a_finding_is_told_once_until_it_has_gone_and_an_error_does_not_end_the_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="harness.cloudstack")

    def find(rig: Rig, sleep: Callable[[float], None]) -> None:
        missing = Finding(kind=FindingKind.MISSING_OBJECT, where="volume 1", text="is gone")
        mended = Finding(kind=FindingKind.TAGS, where="volume 2", text="set", mended=True)
        for findings in ([missing], [missing, mended], [], [missing]):
            rig.storpool.findings = findings
            rig.storpool.fail("reconcile_volumes", Unavailable("StorPool is away"))
            sleep(300)

    live({"storpool.volume.tags.checkup": "100"}, find)
    told = [(line.levelname, line.getMessage()) for line in caplog.records if "storage driver: " in line.getMessage()]
    missing, tags = "storage driver: missing object: volume 1: is gone", "storage driver: tags: volume 2: set"
    assert told == [("WARNING", missing), ("INFO", tags), ("WARNING", missing)]


def test_a_background_task_outlives_an_error_that_nobody_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    polls: list[float] = []

    def poll_badly(rig: Rig, sleep: Callable[[float], None]) -> None:
        hosts = rig.server.services.hosts
        polled = hosts.poll

        def poll() -> None:
            polls.append(rig.runtime.now())
            if len(polls) == 1:
                raise sqlite3.OperationalError("database or disk is full")
            polled()

        monkeypatch.setattr(hosts, "poll", poll)
        sleep(200)

    live({}, poll_badly)
    assert len(polls) >= 5
