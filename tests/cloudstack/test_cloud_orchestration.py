"""What the stand-in does when StorPool, an agent or the secondary storage role fails at any step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cloud_rig import GIB, HOSTS, CloudError, Rig, configuration

from harness.cloudstack.orchestration import attachment
from harness.cloudstack.records.rows import HaWork, Snapshot, SnapshotStore, TemplatePool, Vm, Volume
from harness.runtime.threads import ThreadRuntime
from harness.spi.commands import AnyAnswer, AnyCommand, DettachCommand
from harness.spi.errors import Conflict, Error, InsufficientCapacity, InvalidParameter, NotFound, Unavailable, Unknown


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


def refused(code: int, rig: Rig, command: str, **parameters: object) -> str:
    with pytest.raises(CloudError) as caught:
        rig.call(command, **parameters)
    assert caught.value.code == code, caught.value.text
    return caught.value.text


# Template cache (rows 2, cache).


def test_the_first_deploy_seeds_the_cache_and_the_second_only_clones(rig: Rig) -> None:
    compute, template = rig.ready()
    for _ in range(2):
        rig.deploy(compute, template)
    assert [call for call in rig.storpool.calls if call in ("seed", "clone")] == ["seed", "clone", "clone"]
    rig.check_at_rest()


def test_two_deploys_at_once_seed_once(rig: Rig) -> None:
    compute, template = rig.ready()
    started = [
        rig.envelope(
            rig.request("deployVirtualMachine", zoneid=rig.zone(), serviceofferingid=compute, templateid=template)
        )
        for _ in range(4)
    ]
    for job in started:
        assert rig.wait(job["jobid"])["virtualmachine"]["state"] == "Running"
    assert rig.storpool.calls.count("seed") == 1
    rig.check_at_rest()


def test_a_cached_snapshot_that_storpool_lost_is_seeded_again(rig: Rig) -> None:
    compute, template = rig.ready()
    rig.deploy(compute, template)
    rig.storpool.snapshots.clear()
    assert rig.deploy(compute, template)["state"] == "Running"
    assert rig.storpool.calls.count("seed") == 2
    rig.check_at_rest()


def test_a_failed_seed_leaves_no_entry_and_the_next_deploy_tries_again(rig: Rig) -> None:
    compute, template = rig.ready()
    rig.storpool.fail("seed", Unavailable("the image store is away"))
    with pytest.raises(CloudError, match="the image store is away") as caught:
        rig.deploy(compute, template)
    assert caught.value.code == 534
    assert rig.rows(TemplatePool) == []
    assert [vm.state for vm in rig.rows(Vm)] == ["Error"]
    assert [volume.state for volume in rig.rows(Volume)] == ["Destroy"]
    assert rig.deploy(compute, template)["state"] == "Running"
    rig.check_at_rest()


# Start.


def test_a_host_that_refuses_the_start_is_followed_by_the_other(rig: Rig) -> None:
    compute, template = rig.ready()
    rig.hosts["kvm1"].fail("StartCommand", Error("no memory"))
    assert rig.deploy(compute, template)["hostname"] == "kvm2"
    rig.check_at_rest()


def test_a_start_that_every_host_refuses_says_why_and_leaves_nothing_running(rig: Rig, vm: str) -> None:
    rig.call("stopVirtualMachine", id=vm)
    for host in rig.hosts.values():
        host.fail("StartCommand", Error("no memory left for QEMU"))
    text = refused(530, rig, "startVirtualMachine", id=vm)
    assert "no memory left for QEMU" in text
    assert rig.find("virtualmachine", vm)["state"] == "Stopped"
    rig.check_at_rest()


def test_a_start_whose_answer_is_lost_is_stopped_there_before_it_is_given_up(rig: Rig, vm: str) -> None:
    rig.call("stopVirtualMachine", id=vm)
    rig.hosts["kvm1"].fail("StartCommand", Unknown("no answer in 300 s"), after=True)
    assert "no answer" in refused(530, rig, "startVirtualMachine", id=vm)
    assert rig.host_calls()["StartCommand"] == 2
    rig.check_at_rest()


def test_a_vm_starts_nowhere_while_the_host_that_may_run_it_is_silent(rig: Rig, vm: str) -> None:
    rig.hosts["kvm1"].down = True
    rig.call("stopVirtualMachine", id=vm, forced="true")
    assert rig.find("virtualmachine", vm)["state"] == "Stopped"
    text = refused(534, rig, "startVirtualMachine", id=vm)
    assert "kvm1 has not confirmed" in text
    assert not rig.hosts["kvm2"].domains
    rig.hosts["kvm1"].down = False
    assert rig.call("startVirtualMachine", id=vm)["virtualmachine"]["state"] == "Running"
    assert rig.rows(HaWork) == []
    rig.check_at_rest()


@pytest.mark.parametrize("command", ["detachVolume", "destroyVirtualMachine"])
def test_a_vm_keeps_its_volumes_while_the_host_that_may_run_it_is_silent(rig: Rig, vm: str, command: str) -> None:
    volume = rig.volume()["id"]
    rig.call("attachVolume", id=volume, virtualmachineid=vm)
    rig.hosts["kvm1"].down = True
    rig.call("stopVirtualMachine", id=vm, forced="true")
    wanted = {"id": volume if command == "detachVolume" else vm}
    assert "kvm1 has not confirmed" in refused(534, rig, command, **wanted)
    assert rig.find("volume", volume)["virtualmachineid"] == vm
    rig.hosts["kvm1"].down = False
    rig.call(command, **wanted)
    assert "virtualmachineid" not in rig.find("volume", volume)
    rig.check_at_rest()


def test_a_vm_goes_to_the_host_that_has_the_pool_of_its_new_volume(rig: Rig) -> None:
    rig.storpool.fail("host_connected", Unavailable("kvm1 has no way to StorPool"))
    compute, template = rig.ready()
    assert rig.deploy(compute, template)["hostname"] == "kvm2"
    volume = rig.volume(diskofferingid=rig.disk_offering())["id"]
    rig.call("attachVolume", id=volume, virtualmachineid=rig.rows(Vm)[0].uuid)
    rig.check_at_rest()


def test_what_a_failed_creation_left_goes_with_the_vm_it_was_for(rig: Rig) -> None:
    compute, template = rig.ready()
    rig.storpool.fail("clone", Unknown("the answer was lost"), after=True)
    with pytest.raises(CloudError, match="the answer was lost"):
        rig.deploy(compute, template)
    assert len(rig.storpool.volumes) == 1
    rig.call("expungeVirtualMachine", id=rig.rows(Vm)[0].uuid)
    assert rig.storpool.volumes == {}
    rig.check_at_rest()


# Stop.


def test_an_agent_that_cannot_stop_a_vm_leaves_it_running_in_the_records(rig: Rig, vm: str) -> None:
    rig.hosts["kvm1"].fail("StopCommand", Error("the guest does not react"))
    assert "does not react" in refused(530, rig, "stopVirtualMachine", id=vm)
    assert rig.find("virtualmachine", vm)["state"] == "Running"
    rig.check_at_rest()


@pytest.mark.parametrize("how", ["gone", "off"])
def test_a_guest_that_went_down_by_itself_is_stopped_and_its_attachments_go(rig: Rig, vm: str, how: str) -> None:
    name = rig.rows(Vm)[0].instance_name
    if how == "gone":
        rig.hosts["kvm1"].poweroff(name)
    else:
        rig.hosts["kvm1"].off.add(name)
    rig.server.services.hosts.poll()
    assert rig.find("virtualmachine", vm)["state"] == "Stopped"
    assert not any(rig.storpool.attached.values())
    rig.check_at_rest()


@pytest.mark.parametrize("clock", ["as it was", "set back"])
def test_a_power_report_asked_for_before_a_start_does_not_stop_the_vm(
    rig: Rig, vm: str, clock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vms, now = rig.server.services.vms, rig.runtime.now
    before = vms.running_on(1)
    rig.call("stopVirtualMachine", id=vm)
    if clock == "set back":
        monkeypatch.setattr(rig.runtime, "now", lambda: now() - 7200)
    rig.call("startVirtualMachine", id=vm)
    vms.power_report(1, {}, before)
    assert rig.find("virtualmachine", vm)["state"] == "Running"
    vms.power_report(1, {}, vms.running_on(1))
    assert rig.find("virtualmachine", vm)["state"] == "Stopped"


def test_a_vm_that_is_destroyed_while_its_volume_is_being_made_can_be_recovered_and_started(rig: Rig) -> None:
    compute, template = rig.ready()
    rig.storpool.fail("clone", Unavailable("away"), times=3)
    with pytest.raises(CloudError):
        rig.deploy(compute, template)
    vm = rig.rows(Vm)[0].uuid
    row = rig.rows(Volume)[0]
    with rig.records.transaction("as a server that died leaves it") as tx:
        tx.execute("UPDATE vm_instance SET state = 'Stopped'")
        tx.execute("UPDATE volumes SET state = 'Creating', pool_id = 1 WHERE id = ?", (row.id,))
    rig.call("destroyVirtualMachine", id=vm)
    rig.call("recoverVirtualMachine", id=vm)
    assert "storageid" not in rig.find("volume", row.uuid)
    rig.storpool.forgive()
    assert rig.call("startVirtualMachine", id=vm)["virtualmachine"]["state"] == "Running"
    rig.check_at_rest()


# Attach and detach.


def test_a_data_volume_is_created_at_its_first_attach_and_tagged(rig: Rig, vm: str) -> None:
    volume = rig.volume()["id"]
    assert "storageid" not in rig.find("volume", volume)
    attached = rig.call("attachVolume", id=volume, virtualmachineid=vm)["volume"]
    assert attached["state"] == "Ready" and attached["deviceid"] == 1
    assert rig.storpool.tags[attached["path"]]["cvm"] == vm
    assert rig.storpool.calls[-2:] == ["create", "provide_vm_info"]
    rig.check_at_rest()


def test_an_attach_that_the_agent_refuses_leaves_the_volume_ready_and_unattached(rig: Rig, vm: str) -> None:
    volume = rig.volume()["id"]
    rig.hosts["kvm1"].fail("AttachCommand", Unavailable("kvm1 cannot reach the StorPool API"))
    text = refused(534, rig, "attachVolume", id=volume, virtualmachineid=vm)
    assert "cannot reach the StorPool API" in text
    shown = rig.find("volume", volume)
    assert shown["state"] == "Ready" and "virtualmachineid" not in shown
    rig.check_at_rest()


def test_an_attach_whose_answer_is_lost_is_taken_back(rig: Rig, vm: str) -> None:
    volume = rig.volume()["id"]
    rig.hosts["kvm1"].fail("AttachCommand", Unknown("the connection broke"), after=True)
    assert "detached again" in refused(530, rig, "attachVolume", id=volume, virtualmachineid=vm)
    rig.check_at_rest()
    assert rig.call("attachVolume", id=volume, virtualmachineid=vm)["volume"]["virtualmachineid"] == vm


def test_a_failed_creation_leaves_the_volume_allocated_without_a_pool(rig: Rig, vm: str) -> None:
    volume = rig.volume()["id"]
    rig.storpool.fail("create", InsufficientCapacity("the StorPool template is full"))
    assert "is full" in refused(533, rig, "attachVolume", id=volume, virtualmachineid=vm)
    shown = rig.find("volume", volume)
    assert shown["state"] == "Allocated" and "storageid" not in shown
    rig.check_at_rest()


def test_a_detach_clears_the_tags_and_a_stop_keeps_them(rig: Rig, vm: str) -> None:
    volume = rig.volume()["id"]
    path = rig.call("attachVolume", id=volume, virtualmachineid=vm)["volume"]["path"]
    rig.call("stopVirtualMachine", id=vm)
    assert rig.storpool.tags[path]["cvm"] == vm
    shown = rig.call("detachVolume", id=volume)["volume"]
    assert "virtualmachineid" not in shown and "deviceid" not in shown
    assert rig.storpool.tags[path]["cvm"] == ""
    assert rig.host_calls()["DettachCommand"] == 0
    rig.check_at_rest()


def test_a_guest_that_does_not_let_go_keeps_its_volume(rig: Rig, vm: str) -> None:
    volume = rig.volume()["id"]
    path = rig.call("attachVolume", id=volume, virtualmachineid=vm)["volume"]["path"]
    rig.hosts["kvm1"].fail("DettachCommand", Conflict("the guest did not release vdb in 10 s"))
    assert "did not release vdb" in refused(536, rig, "detachVolume", id=volume)
    assert rig.find("volume", volume)["virtualmachineid"] == vm
    assert rig.storpool.tags[path]["cvm"] == vm
    rig.check_at_rest()


@pytest.mark.parametrize(
    ("milliseconds", "guest_wait", "wait"), [("10000", 10, 120), ("4500", 4.5, 120), ("60000", 60, 170)]
)
def test_a_guest_has_as_long_for_a_detach_as_the_setting_says(
    rig: Rig, vm: str, monkeypatch: pytest.MonkeyPatch, milliseconds: str, guest_wait: float, wait: float
) -> None:
    """What it may take longer than usual does not go off the rest of the command's time."""
    sent: list[DettachCommand] = []
    host = rig.hosts["kvm1"]
    send = host.send

    def send_and_keep(command: AnyCommand, *, timeout: float) -> AnyAnswer:
        if isinstance(command, DettachCommand):
            sent.append(command)
        return send(command, timeout=timeout)

    monkeypatch.setattr(host, "send", send_and_keep)
    rig.call("updateConfiguration", name="wait.detach.device", value=milliseconds)
    volume = rig.volume()["id"]
    rig.call("attachVolume", id=volume, virtualmachineid=vm)
    rig.call("detachVolume", id=volume)
    assert [(command.guest_wait, command.wait) for command in sent] == [(guest_wait, wait)]


def test_a_detach_whose_answer_is_lost_is_asked_again(rig: Rig, vm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = rig.volume()["id"]
    rig.call("attachVolume", id=volume, virtualmachineid=vm)
    rig.hosts["kvm1"].fail("DettachCommand", Unknown("no answer"), after=True)
    monkeypatch.setattr(attachment, "PAUSE", 0.001)
    assert "virtualmachineid" not in rig.call("detachVolume", id=volume)["volume"]
    rig.check_at_rest()


def test_a_detach_that_nobody_confirms_is_finished_when_the_host_answers(
    rig: Rig, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachment, "PAUSE", 0.001)
    volume = rig.volume()["id"]
    rig.call("attachVolume", id=volume, virtualmachineid=vm)
    rig.hosts["kvm1"].fail("DettachCommand", Unknown("no answer"), after=True, times=attachment.TRIES)
    assert "when its host answers" in refused(530, rig, "detachVolume", id=volume)
    assert rig.find("volume", volume)["virtualmachineid"] == vm
    rig.server.services.recovery.settle()
    assert "virtualmachineid" not in rig.find("volume", volume)
    rig.check_at_rest()


def test_a_detach_that_nobody_confirmed_is_over_when_the_vm_starts_on_another_host(
    rig: Rig, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachment, "PAUSE", 0.001)
    volume = rig.volume()["id"]
    path = rig.call("attachVolume", id=volume, virtualmachineid=vm)["volume"]["path"]
    rig.hosts["kvm1"].fail("DettachCommand", Unknown("no answer"), times=attachment.TRIES)
    assert "when its host answers" in refused(530, rig, "detachVolume", id=volume)
    rig.call("stopVirtualMachine", id=vm)
    other = rig.call("listHosts", name="kvm2")["host"][0]["id"]
    assert rig.call("startVirtualMachine", id=vm, hostid=other)["virtualmachine"]["state"] == "Running"
    rig.server.services.recovery.settle()
    assert "virtualmachineid" not in rig.find("volume", volume)
    assert all(path not in disks for disks in rig.hosts["kvm2"].domains.values()), "the VM has a disk that is free"
    rig.check_at_rest()


def test_tags_that_storpool_does_not_take_do_not_undo_an_attach(rig: Rig, vm: str) -> None:
    volume = rig.volume()["id"]
    rig.storpool.fail("provide_vm_info", Unavailable("StorPool is away"))
    assert rig.call("attachVolume", id=volume, virtualmachineid=vm)["volume"]["virtualmachineid"] == vm
    rig.check_at_rest()


def test_storage_tags_choose_the_pool(rig: Rig, vm: str) -> None:
    rig.pool("large")
    volume = rig.volume(diskofferingid=rig.disk_offering(tags="large"))["id"]
    assert rig.call("attachVolume", id=volume, virtualmachineid=vm)["volume"]["storage"] == "large"
    lost = rig.volume(diskofferingid=rig.disk_offering(tags="nowhere"))["id"]
    assert "lacks the storage tag nowhere" in refused(533, rig, "attachVolume", id=lost, virtualmachineid=vm)
    rig.check_at_rest()


def test_a_full_pool_refuses_the_volume_and_nothing_is_made(rig: Rig) -> None:
    rig.pool(capacity=4 * GIB)
    compute, template = rig.compute(), rig.template()
    vm = rig.deploy(compute, template)["id"]
    volume = rig.volume(diskofferingid=rig.disk_offering(size=3))["id"]
    made = dict(rig.storpool.volumes)
    text = refused(533, rig, "attachVolume", id=volume, virtualmachineid=vm)
    assert "are allocated" in text
    assert rig.storpool.volumes == made
    rig.check_at_rest()


# Delete, destroy, expunge, recover.


def test_an_attached_volume_is_not_deleted(rig: Rig, vm: str) -> None:
    volume = rig.volume()["id"]
    rig.call("attachVolume", id=volume, virtualmachineid=vm)
    for command in ("deleteVolume", "destroyVolume"):
        assert "not attached to any VM" in refused(431, rig, command, id=volume)
    with pytest.raises(InvalidParameter, match="not attached to any VM"):
        rig.server.services.volumes.destroy(rig.rows(Volume, uuid=volume)[0].id)
    assert rig.find("volume", volume)["state"] == "Ready"
    rig.check_at_rest()


def test_a_deletion_that_storpool_refuses_leaves_the_volume_in_destroy_for_the_cleanup(rig: Rig, vm: str) -> None:
    volume = rig.volume()["id"]
    rig.call("attachVolume", id=volume, virtualmachineid=vm)
    rig.call("detachVolume", id=volume)
    rig.storpool.fail("delete volume", Unavailable("StorPool is away"))
    refused(534, rig, "deleteVolume", id=volume)
    assert rig.find("volume", volume)["state"] == "Destroy"
    rig.call("updateConfiguration", name="storage.cleanup.delay", value="0")
    rig.server.services.recovery.clean_up()
    assert rig.find("volume", volume) is None
    rig.check_at_rest()


def test_expunge_deletes_the_root_volume_and_lets_data_volumes_survive_without_tags(rig: Rig, vm: str) -> None:
    volume = rig.volume()["id"]
    path = rig.call("attachVolume", id=volume, virtualmachineid=vm)["volume"]["path"]
    rig.call("destroyVirtualMachine", id=vm, expunge="true")
    assert rig.find("virtualmachine", vm) is None
    assert set(rig.storpool.volumes) == {path}
    assert rig.storpool.tags[path]["cvm"] == ""
    assert "virtualmachineid" not in rig.find("volume", volume)
    rig.check_at_rest()


def test_an_expunge_that_fails_can_be_repeated(rig: Rig, vm: str) -> None:
    rig.call("destroyVirtualMachine", id=vm)
    rig.storpool.fail("delete volume", Unavailable("StorPool is away"))
    refused(534, rig, "expungeVirtualMachine", id=vm)
    rig.call("expungeVirtualMachine", id=vm)
    assert rig.storpool.volumes == {}
    rig.check_at_rest()


def test_a_destroyed_vm_is_recovered_with_its_disk(rig: Rig, vm: str) -> None:
    rig.call("destroyVirtualMachine", id=vm)
    assert rig.rows(Volume)[0].state == "Destroy"
    assert rig.call("recoverVirtualMachine", id=vm)["virtualmachine"]["state"] == "Stopped"
    assert rig.call("startVirtualMachine", id=vm)["virtualmachine"]["state"] == "Running"
    rig.check_at_rest()


# Other ways to deploy.


def test_a_root_disk_larger_than_the_template_and_an_override_offering_are_honoured(rig: Rig) -> None:
    compute, template = rig.ready()
    rig.pool("large")
    larger = rig.deploy(compute, template, details={"rootdisksize": 5})["id"]
    other = rig.deploy(compute, template, overridediskofferingid=rig.disk_offering(size=8, tags="large"))["id"]
    shown = {vm: rig.call("listVolumes", virtualmachineid=vm, type="ROOT")["volume"][0] for vm in (larger, other)}
    assert shown[larger]["size"] == 5 * GIB and shown[larger]["storage"] == "fast"
    assert shown[other]["size"] == 8 * GIB and shown[other]["storage"] == "large"
    assert "smaller than its source" in refused(
        431,
        rig,
        "deployVirtualMachine",
        zoneid=rig.zone(),
        serviceofferingid=compute,
        templateid=template,
        rootdisksize=1,
    )
    rig.check_at_rest()


def test_a_vm_is_deployed_from_a_volume_and_from_a_snapshot(rig: Rig, vm: str) -> None:
    root = rig.call("listVolumes", virtualmachineid=vm)["volume"][0]["id"]
    rig.call("stopVirtualMachine", id=vm)
    snapshot = rig.call("createSnapshot", volumeid=root)["snapshot"]["id"]
    rig.call("detachVolume", id=root)
    compute = rig.call("listServiceOfferings")["serviceoffering"][0]["id"]
    common = {"zoneid": rig.zone(), "serviceofferingid": compute}
    from_volume = rig.call("deployVirtualMachine", volumeid=root, **common)["virtualmachine"]
    from_snapshot = rig.call("deployVirtualMachine", snapshotid=snapshot, **common)["virtualmachine"]
    assert from_volume["state"] == from_snapshot["state"] == "Running"
    shown = rig.find("volume", root)
    assert shown["type"] == "ROOT" and shown["virtualmachineid"] == from_volume["id"]
    assert rig.storpool.tags[shown["path"]]["cvm"] == from_volume["id"]
    rig.check_at_rest()


def test_a_failed_deploy_gives_a_borrowed_volume_back(rig: Rig, vm: str) -> None:
    root = rig.call("listVolumes", virtualmachineid=vm)["volume"][0]["id"]
    rig.call("stopVirtualMachine", id=vm)
    rig.call("detachVolume", id=root)
    compute = rig.call("listServiceOfferings")["serviceoffering"][0]["id"]
    for host in rig.hosts.values():
        host.fail("StartCommand", Error("no memory"))
    refused(530, rig, "deployVirtualMachine", volumeid=root, zoneid=rig.zone(), serviceofferingid=compute)
    shown = rig.find("volume", root)
    assert shown["state"] == "Ready" and "virtualmachineid" not in shown
    rig.check_at_rest()


# Snapshots.


def test_a_snapshot_that_fails_is_in_error_and_its_volume_ready(rig: Rig, vm: str) -> None:
    root = rig.call("listVolumes", virtualmachineid=vm)["volume"][0]["id"]
    rig.storpool.fail("snapshot", Unavailable("StorPool is away"))
    refused(534, rig, "createSnapshot", volumeid=root)
    assert [row.state for row in rig.rows(Snapshot)] == ["Error"]
    assert [row.state for row in rig.rows(SnapshotStore)] == ["Allocated"]
    assert rig.find("volume", root)["state"] == "Ready"
    rig.call("deleteSnapshot", id=rig.rows(Snapshot)[0].uuid)
    assert "snapshot" not in rig.call("listSnapshots")


def test_a_snapshot_is_backed_up_in_the_records_and_deleted_twice_over(rig: Rig, vm: str) -> None:
    root = rig.call("listVolumes", virtualmachineid=vm)["volume"][0]
    made = rig.call("createSnapshot", volumeid=root["id"])["snapshot"]
    assert made["state"] == "BackedUp" and made["virtualsize"] == root["size"]
    details = rig.call("getVolumeSnapshotDetails", snapshotid=made["id"])["apivolumesnapshotdetails"]
    assert {entry["snapshotDetailsName"] for entry in details} == {made["id"], "spStoragePoolId"}
    rig.storpool.fail("delete snapshot", Unavailable("StorPool is away"))
    refused(534, rig, "deleteSnapshot", id=made["id"])
    assert rig.find("snapshot", made["id"])["state"] == "BackedUp"
    rig.call("deleteSnapshot", id=made["id"])
    assert rig.find("snapshot", made["id"]) is None
    rig.check_at_rest()


# Templates, pools, hosts.


def test_a_template_that_cannot_be_fetched_says_why_and_is_not_deployed(rig: Rig) -> None:
    rig.pool()
    made = rig.call("registerTemplate", name="lost", format="QCOW2", hypervisor="KVM", url="http://images/gone.qcow2")[
        "template"
    ][0]
    rig.until(lambda: "404" in rig.find("template", made["id"], templatefilter="all")["status"])
    assert rig.find("template", made["id"], templatefilter="all")["isready"] is False
    text = refused(
        431, rig, "deployVirtualMachine", zoneid=rig.zone(), serviceofferingid=rig.compute(), templateid=made["id"]
    )
    assert "not ready" in text
    rig.call("deleteTemplate", id=made["id"])
    assert rig.find("template", made["id"], templatefilter="all") is None


def test_a_pool_in_use_is_not_deleted_and_an_unused_one_goes_with_its_cached_templates(rig: Rig, vm: str) -> None:
    pool = rig.call("listStoragePools")["storagepool"][0]["id"]
    assert "not in Maintenance" in refused(431, rig, "deleteStoragePool", id=pool)
    rig.call("enableStorageMaintenance", id=pool)
    assert "associated 1 volumes" in refused(431, rig, "deleteStoragePool", id=pool)
    rig.call("destroyVirtualMachine", id=vm, expunge="true")
    rig.call("deleteStoragePool", id=pool)
    assert rig.storpool.snapshots == {} and rig.find("storagepool", pool) is None
    rig.check_at_rest()


def test_a_pool_that_the_provider_refuses_or_no_host_can_use_is_not_made(rig: Rig) -> None:
    assert "no template" in refused(
        431,
        rig,
        "createStoragePool",
        name="missing",
        zoneid=rig.zone(),
        url="storpool://secret@sp:81/missing",
        provider="StorPool",
        capacitybytes=GIB,
    )
    rig.storpool.fail("host_connected", NotFound("no StorPool on this host"), times=len(HOSTS))
    with pytest.raises(CloudError, match="no StorPool on this host"):
        rig.pool()
    assert "storagepool" not in rig.call("listStoragePools")


def test_a_silent_host_is_down_gets_no_vms_and_is_connected_again_when_it_answers() -> None:
    runtime = ThreadRuntime("management")
    rig = Rig(runtime, config=configuration(ping_interval=0.01))
    rig.server.start()
    rig.call("updateConfiguration", name="ping.timeout", value="1")
    compute, template = rig.ready()
    rig.hosts["kvm1"].down = True
    rig.until(lambda: rig.call("listHosts", name="kvm1")["host"][0]["state"] == "Down")
    assert rig.deploy(compute, template)["hostname"] == "kvm2"
    calls = rig.storpool.calls.count("host_connected")
    rig.hosts["kvm1"].down = False
    rig.until(lambda: rig.call("listHosts", name="kvm1")["host"][0]["state"] == "Up")
    rig.until(lambda: rig.storpool.calls.count("host_connected") == calls + 1)
    assert rig.server.stop()
    runtime.kill()
