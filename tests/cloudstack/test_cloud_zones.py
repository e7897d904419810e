"""A second zone: what belongs to it is kept and shown there, and not in the first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cloud_rig import GIB, HOSTS, FakeHost, FakeStorPool, Rig, configuration

from harness.cloudstack.config import FurtherCluster
from harness.cloudstack.records.rows import ImageStore, TemplateStore, VolumeStore, Zone
from harness.runtime.threads import ThreadRuntime

FURTHER = FurtherCluster(name="cluster2", hosts=("kvm3",), zone="zone2", pod="pod2")


class Second(Rig):
    """What is made is made in the second zone."""

    def zone(self) -> str:
        (zone,) = self.call("listZones", name="zone2")["zone"]
        return str(zone["id"])


@pytest.fixture
def rig() -> Iterator[Second]:
    runtime = ThreadRuntime("management")
    storpool = FakeStorPool(runtime)
    hosts = {name: FakeHost(runtime, name, storpool) for name in (*HOSTS, "kvm3")}
    rig = Second(runtime, config=configuration(further_clusters=(FURTHER,)), storpool=storpool, hosts=hosts)
    rig.server.start()
    yield rig
    assert rig.server.stop()
    runtime.kill()


def test_files_go_to_the_image_store_of_the_zone(rig: Second) -> None:
    vm = rig.deploy(*rig.ready())
    rig.call("stopVirtualMachine", id=vm["id"])
    (root,) = rig.call("listVolumes", virtualmachineid=vm["id"])["volume"]
    os_type = rig.call("listOsTypes")["ostype"][0]["id"]
    made = rig.call("createTemplate", name="made", ostypeid=os_type, volumeid=root["id"])["template"]
    assert made["zonename"] == "zone2"
    rig.call("extractVolume", id=root["id"], zoneid=rig.zone(), mode="HTTP_DOWNLOAD")
    (zone,) = rig.rows(Zone, name="zone2")
    (store,) = rig.rows(ImageStore, data_center_id=zone.id)
    assert {row.store_id for row in (*rig.rows(TemplateStore), *rig.rows(VolumeStore))} == {store.id}


def test_capacity_and_vm_snapshots_are_of_their_zone(rig: Second) -> None:
    vm = rig.deploy(*rig.ready())
    allocated = {row["zonename"]: row for row in rig.call("listCapacity", type=3)["capacity"]}
    assert allocated["zone1"]["capacitytotal"] == 0
    assert allocated["zone2"]["capacitytotal"] == 1000 * GIB
    assert allocated["zone2"]["capacityused"] > 0
    assert len(rig.call("listCapacity", zoneid=rig.zone())["capacity"]) == 2
    snapshot = rig.call("createVMSnapshot", virtualmachineid=vm["id"])["vmsnapshot"]
    assert snapshot["zonename"] == "zone2"
