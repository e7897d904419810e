"""The wire protocol of spec section 1: envelopes, prefixes, and bad input that changes nothing."""

from __future__ import annotations

import msgspec
import pytest

from simulator.api import routing
from simulator.api.operation import post
from simulator.api.operations import OPERATIONS
from simulator.inprocess import ApiError, InProcess
from simulator.settings import Settings

MB = 1 << 20


@pytest.fixture
def simulator() -> InProcess:
    simulator = InProcess()
    simulator.post("VolumeTemplateCreate", {"name": "t"})
    simulator.post("VolumeCreate", {"name": "a", "size": MB, "template": "t", "tags": {"k": "v"}})
    simulator.post("VolumeCreate", {"name": "b", "size": MB})
    simulator.post("VolumeSnapshot/a", {"name": "s"})
    simulator.post("VolumeCreate", {"baseOn": "b", "name": "c"})
    simulator.post("VolumesReassignWait", [{"volume": "b", "rw": [1]}, {"snapshot": "s", "ro": [2]}])
    return simulator


def reassign(*items: dict[str, object]) -> bytes:
    return msgspec.json.encode(items)


def create(**fields: object) -> bytes:
    return msgspec.json.encode({"name": "new", "size": MB, **fields})


BAD = {
    "malformed JSON": ("VolumeCreate", b'{"name": "x", ', "invalidParam"),
    "not UTF-8": ("VolumeCreate", b'{"name": "\xff\xfe"}', "invalidParam"),
    "nested too deep": ("VolumeCreate", b"[" * 100_000, "invalidParam"),
    "JSON of another type": ("VolumeCreate", b"17", "invalidParam"),
    "encoded twice": ("VolumeCreate", msgspec.json.encode('{"name": "x", "size": 512}'), "invalidParam"),
    "JSON missing": ("VolumeCreate", b"", "invalidParam"),
    "JSON where none is taken": ("SnapshotDelete/s", b'{"a": 1}', "invalidParam"),
    "unknown field": ("VolumeCreate", create(colour="red"), "invalidParam"),
    "unknown field in an item": ("VolumesReassign", reassign({"volume": "a", "rw": [1], "x": 1}), "invalidParam"),
    "negative size": ("VolumeCreate", create(size=-512), "invalidParam"),
    "no size": ("VolumeCreate", b'{"name": "new"}', "invalidParam"),
    "size zero": ("VolumeCreate", create(size=0), "invalidParam"),
    "unaligned size": ("VolumeCreate", create(size=1000), "invalidParam"),
    "unaligned size as a string": ("VolumeCreate", create(size="1000"), "invalidParam"),
    "size beyond measure": ("VolumeCreate", create(size=1 << 70), "invalidParam"),
    "size is words": ("VolumeCreate", create(size="1G"), "invalidParam"),
    "name of 200 characters": ("VolumeCreate", create(name="x" * 200), "invalidParam"),
    "name with a blank": ("VolumeCreate", create(name="x y"), "invalidParam"),
    "name ends the line": ("VolumeCreate", create(name="x\n"), "invalidParam"),
    "name is a word of the path": ("VolumeCreate", create(name="list"), "invalidParam"),
    "name is a global id": ("VolumeCreate", create(name="~splab.b.9"), "invalidParam"),
    "name of a snapshot": ("VolumeCreate", create(name="s"), "objectExists"),
    "name of a volume": ("VolumeSnapshot/a", b'{"name": "b"}', "objectExists"),
    "bad tag": ("VolumeCreate", create(tags={"a b": "c"}), "invalidParam"),
    "bad tag value": ("VolumeUpdate/a", b'{"tags": {"a": "b c"}}', "invalidParam"),
    "replication of 4": ("VolumeCreate", create(replication=4), "invalidParam"),
    "iops below 0": ("VolumeCreate", create(iops=-1), "invalidParam"),
    "no such template": ("VolumeCreate", create(template="none"), "objectDoesNotExist"),
    "no such parent": ("VolumeCreate", create(parent="none"), "objectDoesNotExist"),
    "a volume as parent": ("VolumeCreate", create(parent="b"), "objectDoesNotExist"),
    "no such base": ("VolumeCreate", create(baseOn="none"), "objectDoesNotExist"),
    "smaller than its parent": ("VolumeCreate", create(parent="s", size=512), "invalidParam"),
    "parent and baseOn": ("VolumeCreate", create(parent="s", baseOn="a"), "invalidParam"),
    "no such group": ("VolumeCreate", create(placeAll="none"), "objectDoesNotExist"),
    "shrink without shrinkOk": ("VolumeUpdate/a", b'{"size": 512}', "invalidParam"),
    "size and sizeAdd": ("VolumeUpdate/a", b'{"size": 2097152, "sizeAdd": 512}', "invalidParam"),
    "rename to a taken name": ("VolumeUpdate/a", b'{"rename": "s"}', "objectExists"),
    "update of nothing": ("VolumeUpdate/none", b"{}", "objectDoesNotExist"),
    "update of an unknown id": ("VolumeUpdate/~splab.b.zz", b"{}", "objectDoesNotExist"),
    "resize of a snapshot": ("SnapshotUpdate/s", b'{"size": 1024}', "invalidParam"),
    "a snapshot called a volume": ("VolumeDelete/s", b"{}", "objectDoesNotExist"),
    "a volume called a snapshot": ("SnapshotDelete/a", b"", "objectDoesNotExist"),
    "delete while attached": ("VolumeDelete/b", b"", "busy"),
    "delete snapshot while attached": ("SnapshotDelete/s", b"", "busy"),
    "revert while attached": ("VolumeRevert/b", b'{"toSnapshot": "s"}', "busy"),
    "freeze while attached": ("VolumeFreeze/b", b"", "busy"),
    "revert to nothing": ("VolumeRevert/a", b'{"toSnapshot": "none"}', "objectDoesNotExist"),
    "rebase to a stranger": ("VolumeRebase/b", b'{"parentName": "s"}', "invalidParam"),
    "delete date in the past": ("SnapshotUpdate/s", b'{"targetDeleteDate": 1000}', "invalidParam"),
    "attach to an unknown client": ("VolumesReassign", reassign({"volume": "a", "rw": [99]}), "invalidParam"),
    "attach to client 0": ("VolumesReassign", reassign({"volume": "a", "rw": [0]}), "invalidParam"),
    "attach a snapshot read-write": ("VolumesReassign", reassign({"snapshot": "s", "rw": [1]}), "invalidParam"),
    "attach neither": ("VolumesReassign", reassign({"rw": [1]}), "invalidParam"),
    "attach both": ("VolumesReassign", reassign({"volume": "a", "snapshot": "s"}), "invalidParam"),
    "rw and ro at once": ("VolumesReassign", reassign({"volume": "a", "rw": [1], "ro": [1]}), "invalidParam"),
    "second item fails": (
        "VolumesReassign",
        reassign({"volume": "a", "rw": [1]}, {"volume": "none", "rw": [1]}),
        "objectDoesNotExist",
    ),
    "detach everywhere": ("VolumesReassign", reassign({"volume": "b", "detach": "everywhere"}), "invalidParam"),
    "template in use": ("VolumeTemplateDelete/t", b"", "busy"),
    "template exists": ("VolumeTemplateCreate", b'{"name": "t"}', "objectExists"),
    "group in use": ("PlacementGroupDelete/default", b"", "busy"),
    "group with an unknown disk": ("PlacementGroupUpdate/g", b'{"addDisks": [999]}', "objectDoesNotExist"),
    "unknown call": ("VolumeExplode/a", b"", "unknownCall"),
    "GET call by POST": ("VolumesList", b"", "unknownCall"),
    "no argument in the path": ("VolumeDelete", b"", "invalidParam"),
    "argument too many": ("VolumeDelete/a/b", b"", "invalidParam"),
    "bad argument": ("VolumeDelete/a b", b"", "invalidParam"),
    "argument too long": ("VolumeDelete/" + "x" * 200, b"", "invalidParam"),
    "another cluster": ("RemoteCommand/elsewhere/VolumeDelete/a", b"", "objectDoesNotExist"),
    "outside the API": ("/ctrl/2.0/VolumeCreate", b"", "unknownCall"),
}
STATUS = {
    "invalidParam": 400,
    "objectDoesNotExist": 404,
    "objectExists": 409,
    "busy": 409,
    "unknownCall": 404,
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_has_its_own_name_and_status_and_changes_nothing(simulator: InProcess, case: str) -> None:
    path, body, name = BAD[case]
    before = simulator.service.encoded_state()
    links = [simulator.blocks.links(client) for client in (1, 2, 3)]
    with pytest.raises(ApiError) as refused:
        simulator.ask("POST", path, body).envelope()
    assert (refused.value.name, refused.value.status) == (name, STATUS[name]), refused.value
    assert refused.value.descr
    assert simulator.service.encoded_state() == before
    assert [simulator.blocks.links(client) for client in (1, 2, 3)] == links
    simulator.restart()
    assert simulator.service.encoded_state() == before
    assert simulator.service.mended == []


@pytest.mark.parametrize("token", [None, "", "12345678901234567890", "wrong", "\u00fc"])
def test_a_wrong_token_is_refused_in_json_before_anything_is_told(simulator: InProcess, token: str | None) -> None:
    before = simulator.service.encoded_state()
    for path in ("VolumesList", "NoSuchCall", "/_sim/calls"):
        with pytest.raises(ApiError) as refused:
            simulator.ask("GET", path, token=token).envelope()
        assert (refused.value.name, refused.value.status) == ("accessDenied", 401)
    assert simulator.service.encoded_state() == before


def test_every_call_is_served_and_one_that_was_only_declared_would_say_so(
    simulator: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(operation.served for operation in OPERATIONS)
    monkeypatch.setitem(routing._TABLE, ("POST", "VolumeExplode"), [post("volumeExplode", "VolumeExplode")])
    with pytest.raises(ApiError, match="notImplemented") as refused:
        simulator.post("VolumeExplode", {"anything": 1})
    assert refused.value.status == 501


def test_a_change_answers_ok_and_one_generation_more_in_both_places(simulator: InProcess) -> None:
    first = simulator.ask("POST", "VolumeUpdate/a", b'{"tags": {"x": "y"}}').envelope()
    second = simulator.ask("POST", "VolumeUpdate/a", b'{"tags": {"x": "z"}}').envelope()
    assert first["data"] == {"ok": True, "generation": first["generation"]}
    assert second["generation"] == first["generation"] + 1 == second["data"]["generation"]
    assert simulator.ask("GET", "VolumesList").envelope()["generation"] == second["generation"]


def test_json_encoded_twice_is_told_so(simulator: InProcess) -> None:
    """What os-brick sends on its second try (spec 10.3)."""
    with pytest.raises(ApiError, match="encoded twice"):
        simulator.post("VolumeCreate", '{"name": "x", "size": 512}')


def test_numbers_may_be_strings_and_nulls_are_ignored(simulator: InProcess) -> None:
    simulator.post("VolumeCreate", {"name": "n", "size": "1048576", "iops": "250", "bw": None, "tags": {"a": None}})
    [volume] = simulator.get("Volume/n")
    assert (volume["size"], volume["iops"], volume["bw"], volume["tags"]) == (MB, 250, "-", {})
    simulator.post("VolumesReassignWait", {"reassign": [{"volume": "n", "rw": ["1"], "ro": None}], "nothing": None})
    assert simulator.blocks.links(1)["n"]


def test_loose_settings_drop_unknown_fields_at_every_depth() -> None:
    simulator = InProcess(Settings(loose=True))
    simulator.post("VolumeCreate", {"name": "n", "size": 512, "colour": "red", "tags": {"kept": "yes"}})
    simulator.post("VolumesReassignWait", {"reassign": [{"volume": "n", "rw": [1], "x": {}}], "y": 1})
    simulator.post("VolumesReassign", [{"volume": "n", "ro": [2], "x": {}}])
    assert simulator.get("Volume/n")[0]["tags"] == {"kept": "yes"}
    assert list(simulator.blocks.links(1)) == list(simulator.blocks.links(2)) == ["n"]
    with pytest.raises(ApiError, match="invalidParam"):
        simulator.post("VolumeCreate", {"name": "m", "size": -1, "colour": "red"})


def test_an_empty_object_is_as_good_as_no_json(simulator: InProcess) -> None:
    assert simulator.ask("GET", "VolumesList", b"{}").data == simulator.ask("GET", "VolumesList", b" \n").data
    simulator.post("VolumeDelete/a", {})
    simulator.post("SnapshotUpdate/s")


@pytest.mark.parametrize("prefix", ["RemoteCommand/splab/", "RemoteCommand/~splab.b/", ""])
def test_multicluster_answers_name_their_cluster_on_any_call(simulator: InProcess, prefix: str) -> None:
    plain = simulator.ask("GET", f"{prefix}Volume/a").envelope()
    assert "clusterId" not in plain and "clusterId" not in plain["data"][0]
    answer = simulator.ask("GET", f"{prefix}MultiCluster/Volume/a").envelope()
    assert answer["clusterId"] == answer["data"][0]["clusterId"] == "splab.b"
    assert answer["data"][0]["clusterName"] == "splab"
    attachment = simulator.get(f"{prefix}MultiCluster/AttachmentsList")[0]
    assert (attachment["cluster"], attachment["clusterId"]) == ("splab", "splab.b")
    before = simulator.service.encoded_state()
    # The way CloudStack learns a snapshot's cluster.
    assert simulator.ask("POST", f"{prefix}MultiCluster/SnapshotUpdate/s", b"{}").envelope()["clusterId"] == "splab.b"
    assert simulator.service.encoded_state() == before


def test_all_clusters_wraps_answers_and_errors(simulator: InProcess) -> None:
    for call in ("VolumesSpace", "VolumeTemplatesStatus", "SnapshotsList"):
        [cluster] = simulator.get(f"MultiCluster/AllClusters/{call}")["clusters"]
        alone = simulator.get(f"MultiCluster/{call}")
        assert cluster["response"]["data"] == alone and alone
    [cluster] = simulator.get("MultiCluster/AllClusters/Volume/none")["clusters"]
    assert cluster["error"]["name"] == "objectDoesNotExist"


def test_calls_are_counted_by_name_refused_ones_too(simulator: InProcess) -> None:
    before = dict(simulator.service.calls)
    simulator.ask("GET", "MultiCluster/Volume/a")
    simulator.ask("GET", "Volume/none")
    simulator.ask("GET", "KV/Get/bucket/key/with/slashes")
    after = simulator.service.calls
    assert after["Volume"] == before.get("Volume", 0) + 2
    assert after["KV/Get"] == 1


def test_the_control_api_resets_and_moves_the_clock(simulator: InProcess) -> None:
    simulator.post("VolumesReassignWait", [{"snapshot": "s", "detach": "all"}])
    simulator.post("SnapshotUpdate/s", {"deleteAfter": 100})
    simulator.post("/_sim/clock", {"advance": 102})
    simulator.post("/_sim/clock", {"advance": 2})
    assert "s" not in [snapshot["name"] for snapshot in simulator.get("SnapshotsList")]
    simulator.post("/_sim/reset")
    assert simulator.get("VolumesList") == simulator.get("SnapshotsList") == simulator.get("AttachmentsList") == []
    assert simulator.blocks.objects() == []
    assert simulator.blocks.links_by_id(1) == {}
    assert set(simulator.get("/_sim/calls")["calls"]) == {"VolumesList", "SnapshotsList", "AttachmentsList"}
    empty = simulator.service.encoded_state()
    assert empty == InProcess().service.encoded_state()
    simulator.restart()
    assert simulator.service.encoded_state() == empty


@pytest.mark.parametrize("field", [{"name": "a b"}, {"tags": {"k": "v v"}}, {"size": "1G"}, {"template": "list"}])
def test_a_refused_value_is_explained_without_regular_expressions(
    simulator: InProcess, field: dict[str, object]
) -> None:
    with pytest.raises(ApiError) as refused:
        simulator.ask("POST", "VolumeCreate", create(**field)).envelope()
    assert refused.value.name == "invalidParam"
    assert f"$.{next(iter(field))}" in refused.value.descr
    assert not any(word in refused.value.descr for word in ("regex", "(?", "`str`", "int |"))
