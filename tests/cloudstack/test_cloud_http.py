"""The API over HTTP as `cs`, a client that nobody here wrote, drives it; and requests that no client should send."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from cloud_rig import API_KEY, SECRET_KEY, Rig
from cs import CloudStack, CloudStackApiException

from harness.cloudstack.http import MAX_BODY, server
from harness.runtime.threads import ThreadRuntime


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Rig, str]]:
    runtime = ThreadRuntime("management")
    rig = Rig(runtime)
    rig.server.start()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        shell = server(rig.server.api, "127.0.0.1", 0)
        task = runtime.spawn("http", lambda: shell.run(sockets=[listening]))
        rig.until(lambda: shell.started)
        yield rig, f"http://127.0.0.1:{listening.getsockname()[1]}/client/api"
        shell.should_exit = True
        assert task.join(10)
    assert rig.server.stop()
    runtime.kill()
    rig.records.close()


def client(url: str, **options: Any) -> Any:
    session = requests.Session()
    session.trust_env = False
    return CloudStack(url, API_KEY, SECRET_KEY, session=session, poll_interval=0.01, **options)


@pytest.mark.parametrize("method", ["get", "post"])
def test_cs_deploys_a_vm_attaches_a_volume_and_removes_both(running: tuple[Rig, str], method: str) -> None:
    rig, url = running
    cloud = client(url, method=method, fetch_result=True)
    zone = cloud.listZones(name="zone1")["zone"][0]["id"]
    name = f"fast-{method}"
    cloud.createStoragePool(
        name=name,
        zoneid=zone,
        url="storpool://token@sp:81/fast",
        provider="StorPool",
        capacitybytes=1 << 40,
        scope="zone",
    )
    compute = cloud.createServiceOffering(name=name, cpunumber=1, cpuspeed=500, memory=128, tags=name)
    template = cloud.registerTemplate(
        name=name, format="QCOW2", hypervisor="KVM", url="http://images/guest.qcow2?a=b&c=d e*~[x]", zoneid=zone
    )["template"][0]["id"]
    rig.until(lambda: cloud.listTemplates(templatefilter="self", id=template)["template"][0]["isready"])
    vm = cloud.deployVirtualMachine(
        zoneid=zone,
        serviceofferingid=compute["serviceoffering"]["id"],
        templateid=template,
        displayname="a guest",
        details=[{"rootdisksize": 4}],
    )["virtualmachine"]
    assert vm["state"] == "Running" and vm["displayname"] == "a guest"
    disk = cloud.createDiskOffering(name=name, displaytext="ä ö", disksize=1, tags=name)["diskoffering"]["id"]
    volume = cloud.createVolume(name="data", zoneid=zone, diskofferingid=disk)["volume"]["id"]
    cloud.attachVolume(id=volume, virtualmachineid=vm["id"])
    listed = cloud.listVolumes(virtualmachineid=vm["id"], fetch_list=True)
    assert sorted((row["type"], row["size"] >> 30) for row in listed) == [("DATADISK", 1), ("ROOT", 4)]
    cloud.createTags(resourceids=[vm["id"]], resourcetype="UserVm", tags=[{"key": "vc-policy", "value": "x y"}])
    cloud.detachVolume(id=volume)
    assert cloud.deleteVolume(id=volume) == {"success": True}
    cloud.destroyVirtualMachine(id=vm["id"], expunge=True)
    assert rig.find("virtualmachine", vm["id"]) is None
    rig.check_at_rest()


def test_cs_sees_errors_with_cloudstacks_code_and_text(running: tuple[Rig, str]) -> None:
    _, url = running
    with pytest.raises(CloudStackApiException) as caught:
        client(url).deleteVolume(id="00000000-0000-0000-0000-000000000000")
    assert caught.value.response.status_code == 431
    assert "entity does not exist" in caught.value.error["errortext"]
    wrong = client(url)
    wrong.secret = "wrong"
    with pytest.raises(CloudStackApiException) as caught:
        wrong.listZones()
    assert caught.value.response.status_code == 401


@pytest.mark.parametrize(
    ("query", "body", "status"),
    [
        (b"", b"", 401),
        (b"command=listZones&apiKey=%ff%fe", b"", 430),
        (b"command=listZones", b"\xff\xfe=1", 430),
        (b"command=listZones", b"x" * (MAX_BODY + 1), 430),
        (b"&".join(b"a%d=1" % n for n in range(1001)), b"", 430),
        (b"command=listZones&command=listHosts&apiKey=x&signature=y", b"", 401),
    ],
)
def test_what_no_client_should_send_gets_a_json_error(
    running: tuple[Rig, str], query: bytes, body: bytes, status: int
) -> None:
    _, url = running
    with requests.Session() as session:
        session.trust_env = False
        reply = session.post(f"{url}?{query.decode()}", data=body, timeout=10)
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["errorresponse"]["errorcode"] == status
