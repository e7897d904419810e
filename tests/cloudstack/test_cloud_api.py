"""The signed API: envelopes, errors, parameters, paging, secrets, listApis."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cloud_rig import API_KEY, GIB, HOSTS, SECRET_KEY, TOKEN, CloudError, Rig, configuration

import harness
from harness.cloudstack import settings
from harness.cloudstack.api.dispatch import COMMANDS
from harness.cloudstack.api.signature import sign
from harness.cloudstack.bootstrap import bootstrap
from harness.cloudstack.settings import SETTINGS
from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import InvalidParameter


@pytest.fixture
def rig() -> Iterator[Rig]:
    runtime = ThreadRuntime("management")
    rig = Rig(runtime)
    rig.server.start()
    yield rig
    assert rig.server.stop()
    runtime.kill()


VM = {"zoneid": "ZONE", "serviceofferingid": "COMPUTE", "templateid": "TEMPLATE"}


def refused(rig: Rig, command: str, **parameters: object) -> tuple[int, str]:
    with pytest.raises(CloudError) as caught:
        rig.call(command, **parameters)
    return caught.value.code, caught.value.text


def test_an_answer_has_one_key_a_list_its_count_and_an_empty_list_nothing(rig: Rig) -> None:
    assert msgspec.json.decode(rig.request("listVolumes").body) == {"listvolumesresponse": {}}
    zones = msgspec.json.decode(rig.request("listZones").body)["listzonesresponse"]
    assert zones["count"] == 1 and zones["zone"][0]["name"] == "zone1"
    assert b"null" not in rig.request("listHosts").body


def test_an_unknown_command_is_432_and_a_missing_parameter_431_with_cloudstacks_text(rig: Rig) -> None:
    reply = rig.request("makeCoffee")
    assert reply.status == 432 and list(msgspec.json.decode(reply.body)) == ["errorresponse"]
    reply = rig.request("attachVolume", id="x")
    body = msgspec.json.decode(reply.body)["errorresponse"]
    assert reply.status == body["errorcode"] == 431 and body["cserrorcode"] == 4350 and body["uuidList"] == []
    assert body["errortext"].endswith("due to missing parameter virtualmachineid")


def test_parameter_names_match_whatever_their_case_and_unknown_ones_are_ignored(rig: Rig) -> None:
    made = rig.call("createDiskOffering", Name="gold", DiskSize=3, isExtractable="maybe")["diskoffering"]
    assert made["disksize"] == 3
    assert rig.call("LISTDISKOFFERINGS", NAME="gold")["diskoffering"][0]["id"] == made["id"]


@pytest.mark.parametrize(
    ("command", "parameters"),
    [
        ("createDiskOffering", {"name": "bad", "disksize": -1}),
        ("createDiskOffering", {"name": "bad", "disksize": 0}),
        ("createDiskOffering", {"name": "bad", "disksize": "many"}),
        ("createDiskOffering", {"name": "bad", "disksize": str(1 << 63)}),
        ("createDiskOffering", {"name": "x" * 256, "disksize": 1}),
        ("createDiskOffering", {"name": " ", "disksize": 1}),
        ("createDiskOffering", {"name": "a\nb", "disksize": 1}),
        ("createDiskOffering", {"name": "bad", "disksize": 1, "customized": "perhaps"}),
        ("createDiskOffering", {"name": "bad", "disksize": 1, "miniops": 9, "maxiops": 3}),
        ("createServiceOffering", {"name": "bad", "cpunumber": 0, "memory": 128}),
        ("createServiceOffering", {"name": "bad"}),
        ("createVolume", {"name": "bad"}),
        ("createVolume", {"name": "bad", "diskofferingid": "no-such-offering"}),
        ("createVolume", {"name": "bad", "diskofferingid": "CUSTOM", "size": -5}),
        ("createVolume", {"name": "bad", "diskofferingid": "CUSTOM"}),
        ("createVolume", {"name": "bad", "diskofferingid": "CUSTOM", "size": 2001}),
        ("createVolume", {"name": "bad", "diskofferingid": "CUSTOM", "size": 1, "zoneid": "no-such-zone"}),
        ("createVolume", {"name": "bad", "diskofferingid": "CUSTOM", "size": 1, "account": "nobody"}),
        ("createVolume", {"name": "bad", "diskofferingid": "CUSTOM", "size": 1, "projectid": "none"}),
        ("deleteVolume", {"id": "no-such-volume"}),
        ("startVirtualMachine", {"id": "no-such-vm"}),
        ("deployVirtualMachine", {"zoneid": "ZONE", "serviceofferingid": "COMPUTE", "templateid": "no-such-template"}),
        ("deployVirtualMachine", {"zoneid": "ZONE", "serviceofferingid": "COMPUTE"}),
        ("deployVirtualMachine", {**VM, "name": "x" * 64}),
        ("deployVirtualMachine", {**VM, "name": "-x"}),
        ("deployVirtualMachine", {**VM, "name": "1x"}),
        ("deployVirtualMachine", {**VM, "name": "a b"}),
        ("registerTemplate", {"name": "t", "format": "VMDK", "hypervisor": "KVM", "url": "http://h/t"}),
        ("registerTemplate", {"name": "t", "format": "QCOW2", "hypervisor": "KVM", "url": "nonsense"}),
        ("createStoragePool", {"name": "p", "zoneid": "ZONE", "url": "storpool://x", "provider": "Ceph"}),
        ("createStoragePool", {"name": "p", "zoneid": "ZONE", "url": "storpool://x", "provider": "StorPool"}),
        ("updateConfiguration", {"name": "no.such.setting", "value": "1"}),
        ("updateConfiguration", {"name": "snapshot.backup.to.secondary", "value": "maybe"}),
        ("updateConfiguration", {"name": "storpool.delete.after.interval", "value": "-1"}),
        ("updateConfiguration", {"name": "ping.timeout", "value": "0.0"}),
        ("updateConfiguration", {"name": "wait.detach.device", "value": "10 s"}),
        ("listTemplates", {"templatefilter": "everything"}),
        ("listVolumes", {"page": 1}),
        ("listVolumes", {"page": 0, "pagesize": 10}),
        ("listVolumes", {"page": 1, "pagesize": 501}),
        ("queryAsyncJobResult", {"jobid": "no-such-job"}),
        ("createTags", {"resourcetype": "Spaceship", "resourceids": "x", "tags": {"key": "a", "value": "b"}}),
    ],
)
def test_bad_input_is_431_and_changes_nothing(rig: Rig, command: str, parameters: dict[str, object]) -> None:
    ids = {
        "ZONE": rig.zone(),
        "TEMPLATE": rig.template(),
        "COMPUTE": rig.compute(),
        "CUSTOM": rig.call("createDiskOffering", name="custom", customized="true")["diskoffering"]["id"],
    }
    before = rig.records.image()
    sent = {name: ids.get(str(value), value) if isinstance(value, str) else value for name, value in parameters.items()}
    code, _ = refused(rig, command, **sent)
    assert code == 431
    after = rig.records.image()
    job_rows = b"createTags" if command == "createTags" else b""
    assert before == after or (job_rows and job_rows in after)


def test_paging_slices_a_list_and_counts_all_of_it(rig: Rig) -> None:
    for number in range(5):
        rig.call("createDiskOffering", name=f"o{number}", disksize=1)
    second = rig.call("listDiskOfferings", page=2, pagesize=2)
    assert [row["name"] for row in second["diskoffering"]] == ["o2", "o3"] and second["count"] == 5
    assert rig.call("listDiskOfferings", page=4, pagesize=2) == {}


def test_a_wrong_key_or_signature_or_a_request_that_was_changed_is_401(rig: Rig) -> None:
    good = [("command", "listZones"), ("apiKey", API_KEY), ("response", "json")]
    for query, secret in (
        (good, "another secret"),
        ([*good[:1], ("apiKey", "another key")], SECRET_KEY),
        (good[:1], SECRET_KEY),
    ):
        reply = rig.server.api([*query, ("signature", sign(query, secret))])
        assert reply.status == 401
        text = msgspec.json.decode(reply.body)["errorresponse"]["errortext"]
        assert text == "unable to verify user credentials and/or request signature"
    assert rig.server.api(good).status == 401
    changed = [("command", "listHosts"), *good[1:], ("signature", sign(good, SECRET_KEY))]
    assert rig.server.api(changed).status == 401


def test_keys_registered_for_a_user_work_and_are_not_shown_in_listings(rig: Rig) -> None:
    user = rig.call("listUsers", username="admin")["user"][0]
    assert rig.call("getUserKeys", id=user["id"])["userkeys"] == {"apikey": API_KEY, "secretkey": SECRET_KEY}
    assert "secretkey" not in user
    assert refused(rig, "registerUserKeys", id=user["id"])[0] == 431


def test_tokens_of_pools_are_never_shown(rig: Rig) -> None:
    pool = rig.pool()
    secret = f"SP_API_HTTP=sp:81;SP_AUTH_TOKEN={TOKEN};SP_TEMPLATE=fast"
    rig.call("updateConfiguration", name="sp.alternative.endpoint", value=secret, storageid=pool["id"])
    shown = [
        rig.request("listStoragePools").body,
        rig.request("listResourceDetails", resourcetype="Storage", resourceid=pool["id"]).body,
        rig.request("listConfigurations", storageid=pool["id"]).body,
        rig.request(
            "createStoragePool", name="missing", zoneid=rig.zone(), url=f"x://{TOKEN}@h/t", provider="StorPool"
        ).body,
    ]
    assert not [body for body in shown if TOKEN.encode() in body]
    assert pool["tags"] == "fast" and pool["provider"] == "StorPool"


def test_both_names_of_the_backup_switch_are_one_value(rig: Rig) -> None:
    def value(name: str) -> str:
        return str(rig.call("listConfigurations", name=name)["configuration"][0]["value"])

    rig.call("updateConfiguration", name="sp.bypass.secondary.storage", value="false")
    assert value("snapshot.backup.to.secondary") == "true"
    rig.call("updateConfiguration", name="snapshot.backup.to.secondary", value="false")
    assert value("sp.bypass.secondary.storage") == "true"


@pytest.mark.parametrize("name", [name for name, setting in SETTINGS.items() if setting.refused])
def test_a_setting_that_nothing_reads_takes_no_value_and_says_why(rig: Rig, name: str) -> None:
    before = rig.call("listConfigurations", name=name)["configuration"][0]
    code, text = refused(rig, "updateConfiguration", name=name, value=SETTINGS[name].default)
    assert (code, text) == (
        431,
        f"Unable to update {name}: a value has no effect here, because {SETTINGS[name].refused}",
    )
    assert str(SETTINGS[name].refused) in before["description"]
    with pytest.raises(InvalidParameter, match=f"{name} .* has no effect"):
        bootstrap(rig.runtime, rig.records, configuration(settings={name: "1"}))


def test_what_takes_a_value_is_read_somewhere() -> None:
    """By its name, or by the name of its constant."""
    table = Path(settings.__file__)
    code = "\n".join(path.read_text() for path in Path(harness.__file__).parent.rglob("*.py") if path != table)

    def is_read(name: str) -> bool:
        constants = [constant for constant, value in vars(settings).items() if constant.isupper() and value == name]
        return f'"{name}"' in code or any(re.search(rf"\b{constant}\b", code) for constant in constants)

    assert [name for name, setting in SETTINGS.items() if setting.refused is None and not is_read(name)] == []


def test_a_setting_has_a_value_per_scope_and_refuses_other_scopes(rig: Rig) -> None:
    pool = rig.pool()
    key = "storpool.delete.after.interval"
    rig.call("updateConfiguration", name=key, value="60", storageid=pool["id"])
    assert rig.call("listConfigurations", name=key, storageid=pool["id"])["configuration"][0]["value"] == "60"
    assert rig.call("listConfigurations", name=key)["configuration"][0]["value"] == "0"
    zone = rig.zone()
    assert refused(rig, "updateConfiguration", name=key, value="1", zoneid=zone)[0] == 431


@pytest.mark.parametrize(("command", "expected"), [("createTags", "gold"), ("deleteTags", "")])
def test_a_policy_changed_while_a_volume_is_being_made_is_told_when_it_is_made(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, command: str, expected: str
) -> None:
    """Until then it has no path that could be told of it."""
    vm = rig.deploy(*rig.ready(), startvm="false")
    tag = [{"key": "vc-policy", "value": "gold"}]
    if command == "deleteTags":
        rig.call("createTags", resourcetype="UserVm", resourceids=vm["id"], tags=tag)
    step, asked = rig.storpool.step, [command]

    def clone(call: str) -> None:
        while call == "clone" and asked:
            rig.call(asked.pop(), resourcetype="UserVm", resourceids=vm["id"], tags=tag)
        step(call)

    monkeypatch.setattr(rig.storpool, "step", clone)
    rig.call("startVirtualMachine", id=vm["id"])
    root = rig.call("listVolumes", virtualmachineid=vm["id"])["volume"][0]
    assert rig.storpool.tags[root["path"]].get("vc-policy") == expected


def test_tags_and_details_are_set_listed_and_removed(rig: Rig) -> None:
    vm = rig.deploy(*rig.ready())
    root = rig.call("listVolumes", virtualmachineid=vm["id"])["volume"][0]
    tag = [{"key": "vc-policy", "value": "gold"}]
    rig.call("createTags", resourcetype="UserVm", resourceids=vm["id"], tags=tag)
    assert rig.storpool.tags[root["path"]]["vc-policy"] == "gold"
    assert [(t["key"], t["value"]) for t in rig.find("virtualmachine", vm["id"])["tags"]] == [("vc-policy", "gold")]
    assert rig.call("listTags", resourceid=vm["id"])["count"] == 1
    assert refused(rig, "createTags", resourcetype="UserVm", resourceids=vm["id"], tags=tag)[0] == 431
    rig.call("deleteTags", resourcetype="UserVm", resourceids=vm["id"], tags=[{"key": "vc-policy"}])
    assert rig.storpool.tags[root["path"]]["vc-policy"] == ""
    offering = rig.disk_offering()
    detail = [{"key": "SP_QOSCLASS", "value": "premium"}]
    rig.call("addResourceDetail", resourcetype="DiskOffering", resourceid=offering, details=detail)
    found = rig.call("listResourceDetails", resourcetype="DiskOffering", resourceid=offering, key="SP_QOSCLASS")
    assert found["resourcedetail"][0]["value"] == "premium"
    rig.call("removeResourceDetail", resourcetype="DiskOffering", resourceid=offering, key="SP_QOSCLASS")
    assert rig.call("listResourceDetails", resourcetype="DiskOffering", resourceid=offering) == {}


def test_filters_of_listings_work(rig: Rig) -> None:
    vm = rig.deploy(*rig.ready())
    volume = rig.volume()["id"]
    assert rig.call("listVolumes", virtualmachineid=vm["id"], type="ROOT")["count"] == 1
    assert rig.call("listVolumes", virtualmachineid=vm["id"], type="DATADISK") == {}
    assert rig.call("listVolumes", id=volume)["count"] == 1
    assert rig.call("listStoragePools", name="fast", status="Up")["count"] == 1
    assert rig.call("listStoragePools", name="fast", status="Disabled") == {}
    assert rig.call("listHosts", type="Routing")["count"] == len(HOSTS)
    assert rig.call("listHosts", type="SecondaryStorageVM") == {}
    zone = rig.zone()
    assert rig.call("listClusters", zoneid=zone, allocationstate="Enabled")["count"] == 1
    assert rig.call("listTemplates", templatefilter="self", name="guest", zoneid=zone)["count"] == 1
    assert rig.call("listServiceOfferings", name="small")["count"] == 1
    assert rig.call("listStoragePools", clusterid=rig.call("listClusters")["cluster"][0]["id"]) == {}
    rig.call("createSnapshot", volumeid=rig.call("listVolumes", type="ROOT")["volume"][0]["id"])
    assert rig.call("listSnapshots", intervaltype="MANUAL")["count"] == 1
    assert rig.call("listSnapshots", intervaltype="HOURLY") == {}
    assert rig.call("listVirtualMachines", id=vm["id"])["virtualmachine"][0]["tags"] == []


@pytest.mark.parametrize("noun", ["Pods", "Users", "Accounts", "Domains", "Capabilities", "OsTypes", "Apis"])
def test_a_listing_has_the_fields_that_listapis_tells_of(rig: Rig, noun: str) -> None:
    assert rig.call(f"list{noun}")


def test_the_guest_networks_addresses_are_handed_out_once_and_run_out_with_533() -> None:
    runtime = ThreadRuntime("management")
    guests = configuration().guest_addresses[:2]
    rig = Rig(runtime, config=configuration(guest_addresses=guests))
    rig.server.start()
    compute, template = rig.ready()
    made = [rig.deploy(compute, template) for _ in guests]
    assert {vm["nic"][0]["ipaddress"] for vm in made} == {guest.ip for guest in guests}
    with pytest.raises(CloudError) as caught:
        rig.deploy(compute, template)
    assert caught.value.code == 533 and "Guest IP" in caught.value.text
    rig.call("destroyVirtualMachine", id=made[0]["id"], expunge="true")
    assert rig.deploy(compute, template)["nic"][0]["ipaddress"] == made[0]["nic"][0]["ipaddress"]
    assert rig.server.stop()
    runtime.kill()


def test_an_async_command_gives_a_job_that_ends_with_the_object_or_with_an_error(rig: Rig) -> None:
    offering = rig.disk_offering()
    started = rig.envelope(rig.request("createVolume", name="data", diskofferingid=offering))
    job = rig.call("queryAsyncJobResult", jobid=started["jobid"])
    assert job["jobid"] == started["jobid"] and job["jobinstanceid"] == started["id"]
    rig.wait(started["jobid"])
    job = rig.call("queryAsyncJobResult", jobid=started["jobid"])
    assert (job["jobstatus"], job["jobresultcode"], job["jobresulttype"]) == (1, 0, "object")
    assert job["jobresult"]["volume"]["size"] == GIB
    assert rig.call("listAsyncJobs") == {}


def test_listapis_describes_every_command_on_one_line_and_says_which_are_async(rig: Rig) -> None:
    body = rig.request("listApis").body
    assert b"\n" not in body
    described = {api["name"]: api for api in msgspec.json.decode(body)["listapisresponse"]["api"]}
    assert described.keys() == {command.name for command in COMMANDS.values()}
    for api in described.values():
        assert api["description"] and isinstance(api["params"], list)
        assert all(field["description"] and field["type"] for field in [*api["params"], *api["response"]])
    asynchronous = {name for name, api in described.items() if api["isasync"]}
    assert {"attachVolume", "deployVirtualMachine", "createTags", "addResourceDetail", "destroyVolume"} <= asynchronous
    assert not {"deleteVolume", "createServiceOffering", "updateConfiguration", "recoverVirtualMachine"} & asynchronous
    tags = {p["name"]: p for p in described["createTags"]["params"]}
    assert tags["resourceids"]["type"] == "list" and tags["tags"]["type"] == "map"
