"""VM snapshots in the stand-in: when the strategy fails, or does not know, and after a kill at any point."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cloud_rig import CloudError, Rig
from test_cloud_kills import Life, ready

from harness.cloudstack.records.rows import Vm, VmSnapshot, Volume
from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import Conflict, Error, Unavailable, Unknown
from harness.spi.states import VmSnapshotEvent


@pytest.fixture
def rig() -> Iterator[Rig]:
    runtime = ThreadRuntime("management")
    rig = Rig(runtime)
    rig.server.start()
    yield rig
    assert rig.server.stop()
    runtime.kill()


@pytest.fixture
def vm(rig: Rig) -> str:
    return str(rig.deploy(*rig.ready())["id"])


def take(rig: Rig, vm: str, **parameters: object) -> str:
    return str(rig.call("createVMSnapshot", virtualmachineid=vm, **parameters)["vmsnapshot"]["id"])


def state(rig: Rig, snapshot: str) -> str:
    return str(rig.call("listVMSnapshot", vmsnapshotid=snapshot)["vmSnapshot"][0]["state"])


def refused(code: int, rig: Rig, command: str, **parameters: object) -> str:
    with pytest.raises(CloudError) as caught:
        rig.call(command, **parameters)
    assert caught.value.code == code, caught.value.text
    return caught.value.text


def test_one_that_could_not_be_taken_is_in_error_and_can_be_deleted(rig: Rig, vm: str) -> None:
    rig.storpool.fail("vm take", Error("the pool is full"))
    assert "the pool is full" in refused(530, rig, "createVMSnapshot", virtualmachineid=vm, name="one")
    (row,) = rig.rows(VmSnapshot, removed=None)
    assert (row.state, row.current) == ("Error", False)
    vm_state = rig.find("virtualmachine", vm)["state"]
    rig.call("stopVirtualMachine", id=vm)
    assert "not in the state of Created" in refused(431, rig, "revertToVMSnapshot", vmsnapshotid=row.uuid)
    rig.call("deleteVMSnapshot", vmsnapshotid=row.uuid)
    assert vm_state == "Running" and rig.rows(VmSnapshot, removed=None) == []


@pytest.mark.parametrize("died", [False, True], ids=["Error", "Expunging"])
def test_one_whose_deletion_did_not_end_can_be_deleted_again(rig: Rig, vm: str, died: bool) -> None:
    """What #13972, #9369 and #5297 report; what StorPool has of it by then is the driver's own test."""
    snapshot = take(rig, vm)
    rig.storpool.fail("vm delete", Conflict("StorPool client 7 has it"))
    assert "client 7" in refused(536, rig, "deleteVMSnapshot", vmsnapshotid=snapshot)
    if died:
        # As a server leaves it that dies in the middle.
        with rig.records.transaction("begun again") as tx:
            (row,) = tx.all(VmSnapshot, uuid=snapshot)
            tx.transition(row, VmSnapshotEvent.EXPUNGE_REQUESTED)
    assert state(rig, snapshot) == ("Expunging" if died else "Error")
    rig.call("deleteVMSnapshot", vmsnapshotid=snapshot)
    assert rig.storpool.vm_snapshots.groups == {}


def test_a_vm_cannot_be_started_or_destroyed_while_it_is_not_known_what_is_reverted(rig: Rig, vm: str) -> None:
    snapshot = take(rig, vm)
    rig.call("stopVirtualMachine", id=vm)
    rig.storpool.fail("vm revert", Unknown("the answer was lost"))
    assert "cannot be started before" in refused(530, rig, "revertToVMSnapshot", vmsnapshotid=snapshot)
    assert state(rig, snapshot) == "Reverting"
    assert {row.state for row in rig.rows(Volume)} == {"RevertSnapshotting"}
    assert "its disks are being reverted" in refused(536, rig, "startVirtualMachine", id=vm)
    for command, parameters in (
        ("destroyVirtualMachine", {"id": vm}),
        ("createVMSnapshot", {"virtualmachineid": vm}),
        ("revertToVMSnapshot", {"vmsnapshotid": snapshot}),
    ):
        assert "other active vm snapshot tasks" in refused(536, rig, command, **parameters)
    refused(431, rig, "deleteVMSnapshot", vmsnapshotid=snapshot)
    for error in (Unknown("again"), Unavailable("away")):
        rig.storpool.fail("vm revert", error)
        rig.server.tend()
        assert state(rig, snapshot) == "Reverting", f"after {error} it is not known either"
    rig.server.tend()
    assert (state(rig, snapshot), rig.storpool.vm_snapshots.reverted) == ("Ready", [snapshot])
    assert rig.call("startVirtualMachine", id=vm)["virtualmachine"]["state"] == "Running"
    rig.check_at_rest()


@pytest.mark.parametrize("error", [Error("disk 2 was put back"), Unavailable("StorPool is away")])
def test_a_revert_that_failed_leaves_a_vm_that_starts(rig: Rig, vm: str, error: Error) -> None:
    snapshot, newer = take(rig, vm), take(rig, vm, name="newer")
    rig.call("stopVirtualMachine", id=vm)
    rig.storpool.fail("vm revert", error)
    with pytest.raises(CloudError, match=str(error)):
        rig.call("revertToVMSnapshot", vmsnapshotid=snapshot)
    current = {row.uuid: row.current for row in rig.rows(VmSnapshot)}
    assert (state(rig, snapshot), current) == ("Ready", {snapshot: False, newer: True})
    rig.call("startVirtualMachine", id=vm)
    rig.check_at_rest()


def test_a_host_that_may_run_the_vm_still_keeps_it_from_being_reverted(rig: Rig, vm: str) -> None:
    snapshot = take(rig, vm)
    name = rig.find("virtualmachine", vm)["hostname"]
    rig.hosts[name].down = True
    rig.call("stopVirtualMachine", id=vm, forced="true")
    assert "has not confirmed" in refused(534, rig, "revertToVMSnapshot", vmsnapshotid=snapshot)
    assert (state(rig, snapshot), rig.storpool.vm_snapshots.reverted) == ("Ready", [])
    rig.hosts[name].down = False
    rig.call("revertToVMSnapshot", vmsnapshotid=snapshot)


def test_a_vm_is_destroyed_with_its_vm_snapshots_or_not_at_all(rig: Rig, vm: str) -> None:
    take(rig, vm)
    rig.storpool.fail("vm delete", Unavailable("StorPool is away"))
    assert "Unable to delete all snapshots" in refused(534, rig, "destroyVirtualMachine", id=vm)
    assert rig.find("virtualmachine", vm)["state"] == "Stopped"
    rig.call("destroyVirtualMachine", id=vm)
    assert rig.storpool.vm_snapshots.groups == {} and rig.rows(VmSnapshot, removed=None) == []


def life(rig: Rig) -> None:
    """Two VM snapshots, a revert, a deletion, the end of the VM: what fails because of a kill is not begun again."""
    offering = rig.call("listServiceOfferings")["serviceoffering"][0]["id"]
    template = rig.call("listTemplates", templatefilter="all")["template"][0]["id"]
    vm = str(rig.deploy(offering, template)["id"])
    rig.call("attachVolume", id=rig.volume()["id"], virtualmachineid=vm)
    first = take(rig, vm)
    rig.call("stopVirtualMachine", id=vm)
    second = take(rig, vm, name="second")
    rig.call("revertToVMSnapshot", vmsnapshotid=first)
    rig.call("deleteVMSnapshot", vmsnapshotid=second)
    rig.call("startVirtualMachine", id=vm)
    rig.call("destroyVirtualMachine", id=vm)


def at_rest(rig: Rig) -> None:
    rig.check_at_rest()
    rows = rig.rows(VmSnapshot, removed=None)
    assert {row.state for row in rows} <= {"Ready", "Error"}, rows
    ready_ones = {row.uuid for row in rows if row.state == "Ready"}
    assert ready_ones <= set(rig.storpool.vm_snapshots.groups), "one that is Ready has no snapshots"
    for row in rows:
        with rig.records.read() as tx:
            paths = set(tx.details("vm_snapshot_details", row.id).values()) - {"1"}
        if row.state == "Ready":
            assert paths == rig.storpool.vm_snapshots.groups[row.uuid], row
        if row.state == "Ready" and rig.rows(Vm, id=row.vm_id)[0].state == "Stopped":
            try:
                rig.call("revertToVMSnapshot", vmsnapshotid=row.uuid)
            except CloudError as error:
                # The server died in the middle of destroying the VM, whose DATA disk was detached by then.
                assert "came or went since" in error.text
    if rows and not any(row.current for row in rows):
        assert all(row.state == "Error" for row in rows), rows
    for row in rows:
        rig.call("deleteVMSnapshot", vmsnapshotid=row.uuid)
    for vm in rig.call("listVirtualMachines").get("virtualmachine", []):
        if vm["state"] == "Stopped":
            rig.call("startVirtualMachine", id=vm["id"])
    assert rig.storpool.vm_snapshots.groups == {}


def test_a_server_killed_at_any_point_leaves_vm_snapshots_that_can_be_used_and_deleted() -> None:
    counted = Life(1, None)
    counted.then = at_rest
    counted.run(ready, life)
    assert counted.points > 80
    for deadly in range(1, counted.points + 1):
        run = Life(1, deadly)
        run.then = at_rest
        try:
            run.run(ready, life)
        except AssertionError as error:
            raise AssertionError(f"killed at point {deadly} of {counted.points}: {error}") from error
        assert run.kills == 1, deadly
