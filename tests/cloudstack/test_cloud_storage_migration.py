"""Volumes that go to another pool: states, what a lost answer leaves, and refusals that no scenario can bring about."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cloud_rig import CloudError, Rig

from harness.cloudstack.primary.files import directory_on_export
from harness.cloudstack.records import RecordsOfDriver
from harness.cloudstack.records.rows import DiskOffering, PoolFile, StoragePool, Vm, Volume
from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import Conflict, Error, InvalidParameter, Unavailable, Unknown

EXPORT = "nfs://secondary/export"


@pytest.fixture
def rig() -> Iterator[Rig]:
    runtime = ThreadRuntime("management")
    rig = Rig(runtime)
    rig.server.start()
    yield rig
    assert rig.server.stop()
    runtime.kill()


@pytest.fixture
def volume(rig: Rig) -> str:
    """Of a stopped VM; it may go to the pool `slow`, which has the tag too, and to `nfs`."""
    vm = rig.deploy(*rig.ready())
    rig.pool("slow", tags="fast")
    rig.call("createStoragePool", name="nfs", zoneid=rig.zone(), url=f"{EXPORT}/primary", scope="zone", tags="fast")
    made = rig.volume()["id"]
    rig.call("attachVolume", id=made, virtualmachineid=vm["id"])
    rig.call("stopVirtualMachine", id=vm["id"])
    return str(made)


def pool(rig: Rig, name: str) -> str:
    return str(rig.call("listStoragePools", name=name)["storagepool"][0]["id"])


def migrate(rig: Rig, volume: str, name: str) -> str:
    """The error's text, or nothing."""
    try:
        rig.call("migrateVolume", volumeid=volume, storageid=pool(rig, name))
    except CloudError as error:
        return error.text
    return ""


def where(rig: Rig, volume: str) -> tuple[str, str]:
    found = rig.find("volume", volume)
    return found["state"], found["storage"]


def test_a_lost_answer_within_storpool_leaves_it_migrating_until_it_is_known(rig: Rig, volume: str) -> None:
    rig.storpool.fail("move", Unknown("no answer"), after=True)
    assert "settled when StorPool answers" in migrate(rig, volume, "slow")
    assert where(rig, volume) == ("Migrating", "fast")
    rig.server.tend()
    assert where(rig, volume) == ("Ready", "slow")
    rig.check_at_rest()


def test_a_failure_within_storpool_removes_nothing(rig: Rig, volume: str) -> None:
    rig.storpool.fail("move", Unavailable("StorPool is away"))
    assert "StorPool is away" in migrate(rig, volume, "slow")
    assert where(rig, volume) == ("Ready", "fast")
    assert "delete volume" not in rig.storpool.calls
    rig.check_at_rest()


def test_the_source_of_a_copy_is_deleted_when_the_records_point_to_the_copy(rig: Rig, volume: str) -> None:
    rig.storpool.fail("delete volume", Unavailable("StorPool is away"))
    assert migrate(rig, volume, "nfs") == ""
    assert where(rig, volume) == ("Ready", "nfs")
    assert len(rig.storpool.volumes) == 2, "ROOT, and what the volume was"
    rig.server.tend()
    assert len(rig.storpool.volumes) == 1


def test_a_second_migration_waits_for_the_source_of_the_first(rig: Rig, volume: str) -> None:
    rig.storpool.fail("delete volume", Conflict("somebody has it open"), times=2)
    assert migrate(rig, volume, "nfs") == ""
    assert "somebody has it open" in migrate(rig, volume, "slow")
    assert migrate(rig, volume, "slow") == ""
    assert where(rig, volume) == ("Ready", "slow")
    rig.check_at_rest()


@pytest.mark.parametrize("error", [Unavailable("no host"), Unknown("no answer")])
def test_a_copy_that_fails_is_given_up_and_its_file_deleted_twice(rig: Rig, volume: str, error: Error) -> None:
    rig.storpool.fail("move", error)
    assert str(error) in migrate(rig, volume, "nfs")
    assert where(rig, volume) == ("Ready", "fast")
    assert rig.secondary.calls.count("DeleteCommand") == 1
    (row,) = rig.rows(PoolFile)
    assert row.doomed and row.gone, "a late request may make it again, so its row stays"
    with rig.records.transaction("time passes") as tx:
        tx.update(row, written_until=tx.now)
    rig.server.services.context.files.tend()
    assert rig.secondary.calls.count("DeleteCommand") == 2
    assert rig.rows(PoolFile) == []
    rig.check_at_rest()


def test_a_vm_that_a_dead_server_left_migrating_is_stopped_again(rig: Rig, volume: str) -> None:
    del volume
    with rig.records.transaction("as if it had died") as tx:
        tx.execute("UPDATE vm_instance SET state = 'Migrating'")
    rig.server.tend()
    assert [vm.state for vm in rig.rows(Vm)] == ["Stopped"]


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ("Maintenance", "is in maintenance mode"),
        ("PrepareForMaintenance", "is in maintenance mode"),
        ("Disabled", "Disabled"),
    ],
)
def test_a_pool_that_is_not_up_takes_no_volume(rig: Rig, volume: str, status: str, text: str) -> None:
    with rig.records.transaction("pool status") as tx:
        tx.execute("UPDATE storage_pool SET status = ? WHERE name = 'slow'", (status,))
    assert text in migrate(rig, volume, "slow")
    assert where(rig, volume) == ("Ready", "fast")


def test_an_offering_that_is_encrypted_otherwise_is_refused(rig: Rig, volume: str) -> None:
    offering = rig.disk_offering()
    with rig.records.transaction("encrypts") as tx:
        tx.update(tx.find(DiskOffering, uuid=offering) or pytest.fail("no offering"), encrypt=True)
    with pytest.raises(CloudError, match="does not match target disk offering's encryption"):
        rig.call("migrateVolume", volumeid=volume, storageid=pool(rig, "slow"), newdiskofferingid=offering)
    assert where(rig, volume) == ("Ready", "fast")


def test_a_pool_on_nfs_keeps_its_url(rig: Rig, volume: str) -> None:
    del volume
    with pytest.raises(CloudError, match="stays at its url"):
        rig.call("updateStoragePool", id=pool(rig, "nfs"), url="storpool://1@sp:81/fast")


def test_a_pool_that_is_full_takes_no_volume(rig: Rig, volume: str) -> None:
    with rig.records.transaction("pool size") as tx:
        tx.execute("UPDATE storage_pool SET capacity_bytes = 512 WHERE name = 'slow'")
    assert "enough space" in migrate(rig, volume, "slow")
    assert [row.state for row in rig.rows(Volume)] == ["Ready", "Ready"]


@pytest.mark.parametrize("path", ["/export", "/exports/primary", "/other", "/"])
def test_a_pool_elsewhere_than_below_the_image_store_is_refused(path: str) -> None:
    with pytest.raises(InvalidParameter):
        directory_on_export(EXPORT, "secondary", path)
    with pytest.raises(InvalidParameter):
        directory_on_export(EXPORT, "another", "/export/primary")


def test_a_pool_on_nfs_is_connected_on_every_host_by_its_own_listener(rig: Rig, volume: str) -> None:
    del volume
    calls = rig.host_calls()
    assert calls["ModifyStoragePoolCommand"] == 2
    (row,) = [row for row in rig.rows(StoragePool) if row.name == "nfs"]
    assert (row.pool_type, row.host_address, row.path) == ("NetworkFilesystem", "secondary", "/export/primary")


def test_the_plugin_is_not_told_of_files_as_if_they_were_its_volumes(rig: Rig, volume: str) -> None:
    assert migrate(rig, volume, "nfs") == ""
    records = RecordsOfDriver(rig.records)
    assert volume not in {found.uuid for found in records.inventory().volumes}
    found = records.volume(volume)
    assert found is not None and found.path is None and found.steady
