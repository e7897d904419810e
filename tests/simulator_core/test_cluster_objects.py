"""Volumes, snapshots, templates and attachments behave as spec section 7 says."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.inprocess import ApiError, InProcess
from simulator.settings import Settings

MB = 1 << 20


@pytest.fixture
def simulator() -> InProcess:
    return InProcess()


def volume(simulator: InProcess, name: str) -> dict[str, Any]:
    [found] = simulator.get(f"Volume/{name}")
    assert isinstance(found, dict)
    return found


def snapshot(simulator: InProcess, name: str) -> dict[str, Any]:
    [found] = simulator.get(f"Snapshot/{name}")
    assert isinstance(found, dict)
    return found


def key(simulator: InProcess, name: str) -> int:
    found = simulator.get("VolumesAndSnapshotsList")["volumes"]
    return int(next(entry["id"] for entry in found if name in (entry["name"], "~" + entry["globalId"])))


def test_a_serial_is_never_given_twice(simulator: InProcess) -> None:
    first = simulator.post("VolumeCreate", {"size": 512})["globalId"]
    simulator.post(f"VolumeDelete/~{first}")
    simulator.restart()
    assert simulator.post("VolumeCreate", {"size": 512})["globalId"] != first


def test_unnamed_volumes_are_called_by_their_id_and_may_be_named_and_unnamed(simulator: InProcess) -> None:
    made = simulator.post("VolumeCreate", {"name": "", "size": MB})
    assert made["name"] == "~" + made["globalId"]
    assert volume(simulator, made["name"])["name"] == made["name"]
    simulator.post("VolumesReassignWait", [{"volume": made["name"], "rw": [1]}])
    assert simulator.blocks.links(1) == {}
    simulator.post(f"VolumeUpdate/{made['name']}", {"rename": "named"})
    assert simulator.blocks.links(1) == {"named": key(simulator, "named")}
    simulator.post("VolumeUpdate/named", {"rename": ""})
    assert volume(simulator, made["name"])["name"] == made["name"]
    assert simulator.blocks.links(1) == {}
    assert list(simulator.blocks.links_by_id(1)) == [made["globalId"]]


def test_taking_a_snapshot_puts_it_between_the_volume_and_its_parent(simulator: InProcess) -> None:
    simulator.post("VolumeCreate", {"name": "v", "size": MB, "tags": {"not": "copied"}})
    simulator.post("VolumeSnapshot/v", {"name": "one"})
    simulator.post("VolumeSnapshot/v", {"name": "two", "tags": {"mine": "yes"}})
    assert volume(simulator, "v")["parentName"] == "two"
    assert [entry["name"] for entry in simulator.get("VolumeListSnapshots/v")] == ["two", "one"]
    assert snapshot(simulator, "one")["tags"] == {}
    two = snapshot(simulator, "two")
    assert (two["onVolume"], two["tags"], two["snapshot"], two["autoName"]) == ("v", {"mine": "yes"}, True, False)
    simulator.post("VolumeDelete/v")
    assert snapshot(simulator, "two")["onVolume"] == "-"


def test_a_snapshot_without_a_name_is_called_after_its_volume(simulator: InProcess) -> None:
    simulator.post("VolumeCreate", {"name": "v" * 199, "size": MB})
    made = simulator.post(f"VolumeSnapshot/{'v' * 199}")
    assert len(made["autoName"]) == 199 and made["autoName"].startswith("vvv")
    assert made["autoName"].endswith("@" + str(made["snapshotVisibleVolumeId"]))
    assert snapshot(simulator, "~" + made["snapshotGlobalId"])["autoName"] is True
    bare = simulator.post("VolumeCreate", {"size": MB})["name"]
    of_bare = simulator.post(f"VolumeSnapshot/{bare}")["snapshotGlobalId"]
    assert snapshot(simulator, "~" + of_bare)["name"] == "~" + of_bare


def test_a_deleted_snapshot_frees_its_name_at_once_and_is_listed_until_merged(simulator: InProcess) -> None:
    simulator.post("VolumeCreate", {"name": "v", "size": MB})
    for name in ("bottom", "middle", "top"):
        simulator.blocks.write(key(simulator, "v"), 0, name.encode())
        simulator.post("VolumeSnapshot/v", {"name": name})
    middle = key(simulator, "middle")
    simulator.post("SnapshotDelete/middle")
    with pytest.raises(ApiError, match="objectDoesNotExist"):
        simulator.get("Snapshot/middle")
    with pytest.raises(ApiError, match="objectDoesNotExist"):
        simulator.post("SnapshotDelete/middle")
    [dying] = [entry for entry in simulator.get("SnapshotsList") if entry["deleted"]]
    assert dying["name"].startswith("*") and dying["deleteBlocked"] == "rebasing"
    assert snapshot(simulator, "top")["parentName"] == dying["name"]
    simulator.post("VolumeCreate", {"name": "middle", "size": MB})
    simulator.advance(2)
    assert snapshot(simulator, "top")["parentName"] == "bottom"
    assert middle not in simulator.blocks.objects()
    assert simulator.blocks.read(key(simulator, "top"), 0, 6) == b"topdle"


def test_a_bound_snapshot_goes_with_its_last_child_unless_it_is_attached(simulator: InProcess) -> None:
    simulator.post("VolumeCreate", {"name": "v", "size": MB})
    simulator.post("VolumeSnapshot/v", {"name": "s", "bind": True})
    simulator.post("VolumeCreate", {"name": "child", "parent": "s"})
    simulator.post("VolumesReassignWait", [{"snapshot": "s", "ro": [1]}])
    simulator.post("VolumeDelete/v")
    simulator.advance(5)
    assert snapshot(simulator, "s")["bound"] is True
    simulator.post("VolumeDelete/child")
    simulator.advance(5)
    assert snapshot(simulator, "s")["deleted"] is False
    simulator.post("VolumesReassignWait", [{"snapshot": "s", "detach": "all"}])
    assert simulator.service.tick() == pytest.approx(1)
    simulator.advance(0.5)
    assert [entry["deleted"] for entry in simulator.get("SnapshotsList")] == [True]
    simulator.advance(1)
    assert simulator.get("SnapshotsList") == []


def test_delete_after_is_kept_by_the_server_and_zero_clears_it(simulator: InProcess) -> None:
    simulator.post("VolumeCreate", {"name": "v", "size": MB})
    simulator.post("VolumeSnapshot/v", {"name": "later", "deleteAfter": 100})
    simulator.post("VolumeSnapshot/v", {"name": "never", "targetDeleteDate": int(simulator.time) + 100})
    simulator.post("SnapshotUpdate/never", {"targetDeleteDate": 0})
    assert snapshot(simulator, "later")["targetDeleteDate"] == int(simulator.time) + 100
    simulator.restart()
    simulator.advance(99)
    assert simulator.service.tick() == pytest.approx(1)
    assert snapshot(simulator, "later")["deleted"] is False
    simulator.advance(1)
    assert simulator.service.tick() == pytest.approx(1)
    simulator.advance(1)
    assert simulator.service.tick() is None
    assert [entry["name"] for entry in simulator.get("SnapshotsList")] == ["never"]


def test_revert_gives_old_contents_a_new_id_and_keeps_the_old_one_working(simulator: InProcess) -> None:
    named = simulator.post("VolumeCreate", {"name": "v", "size": MB, "tags": {"k": "v"}})["globalId"]
    bare = simulator.post("VolumeCreate", {"size": MB, "iops": 7})["name"]
    simulator.blocks.write(key(simulator, "v"), 0, b"old")
    simulator.post("VolumeSnapshot/v", {"name": "s"})
    simulator.blocks.write(key(simulator, "v"), 0, b"new")
    for name in ("v", bare):
        before = volume(simulator, name)
        simulator.post(f"VolumeUpdate/{name}", {"size": 2 * MB})
        simulator.post(f"VolumeRevert/{name}", {"toSnapshot": "s"})
        after = volume(simulator, name)
        assert after["globalId"] != before["globalId"]
        assert (after["visibleVolumeId"], after["name"], after["parentName"]) == (before["visibleVolumeId"], name, "s")
        assert (after["tags"], after["iops"], after["size"]) == (before["tags"], before["iops"], 2 * MB)
        assert simulator.blocks.read(key(simulator, name), 0, 3) == b"old"
    assert snapshot(simulator, "s")["onVolume"] == "v"
    with pytest.raises(ApiError, match="objectDoesNotExist"):
        simulator.get(f"Volume/~{named}")
    simulator.post(f"VolumeRevert/{bare}", {"toSnapshot": "s", "revertSize": True})
    assert volume(simulator, bare)["size"] == MB
    simulator.post("VolumesReassignWait", [{"volume": bare, "rw": [1]}])
    assert set(simulator.blocks.links_by_id(1)) == {bare[1:], volume(simulator, bare)["globalId"]}
    assert simulator.blocks.links(1) == {}
    assert len(simulator.blocks.objects()) == 3


def test_freeze_makes_a_snapshot_of_the_same_name_and_id(simulator: InProcess) -> None:
    made = simulator.post("VolumeCreate", {"name": "v", "size": MB})["globalId"]
    simulator.post("VolumeFreeze/v")
    assert simulator.get("VolumesList") == []
    assert snapshot(simulator, "v")["globalId"] == made


def test_a_shrink_needs_permission_and_growth_is_zeroes(simulator: InProcess) -> None:
    simulator.post("VolumeCreate", {"name": "v", "size": MB})
    simulator.blocks.write(key(simulator, "v"), 0, b"x" * MB)
    simulator.post("VolumeUpdate/v", {"size": 512, "shrinkOk": True, "iops": 9})
    simulator.post("VolumeUpdate/v", {"sizeAdd": 512})
    assert (volume(simulator, "v")["size"], volume(simulator, "v")["iops"]) == (1024, 9)
    assert simulator.blocks.read(key(simulator, "v"), 0, 1024) == b"x" * 512 + bytes(512)


def test_tags_merge_by_key_and_an_empty_value_removes_the_key(simulator: InProcess) -> None:
    simulator.post("VolumeCreate", {"name": "v", "size": MB, "tags": {"a": "1", "b": "2", "none": ""}})
    simulator.post("VolumeUpdate/v", {"tags": {"b": "", "c": "3"}})
    assert volume(simulator, "v")["tags"] == {"a": "1", "c": "3"}


def test_templates_give_settings_once_and_again_only_when_propagated(simulator: InProcess) -> None:
    simulator.post("VolumeTemplateCreate", {"name": "t", "placeAll": "hdd", "replication": 2, "iops": 50, "size": MB})
    simulator.post("VolumeCreate", {"name": "v", "template": "t"})
    simulator.post("VolumeSnapshot/v", {"name": "s"})
    simulator.post("VolumeCreate", {"name": "child", "parent": "s", "bw": "-"})
    simulator.post("VolumeTemplateUpdate/t", {"iops": 60, "rename": "u"})
    for name in ("v", "child"):
        shown = volume(simulator, name)
        assert (shown["templateName"], shown["placeTail"], shown["replication"]) == ("u", "hdd", 2)
        assert (shown["iops"], shown["size"]) == (50, MB)
    simulator.post("VolumeTemplateUpdate/u", {"propagate": True})
    assert {volume(simulator, "v")["iops"], snapshot(simulator, "s")["iops"]} == {60}
    [status] = simulator.get("VolumeTemplatesStatus")
    assert (status["volumesCount"], status["snapshotsCount"], status["totalSize"]) == (2, 1, 4 * MB)


def test_placement_wants_a_server_for_each_copy(simulator: InProcess) -> None:
    simulator.post("PlacementGroupUpdate/two", {"addDisks": ["101", 102, 201]})
    with pytest.raises(ApiError, match="Not enough servers or fault sets for replication 3") as refused:
        simulator.post("VolumeCreate", {"size": MB, "placeAll": "two"})
    assert (refused.value.name, refused.value.status) == ("insufficientResources", 507)
    simulator.post("VolumeCreate", {"name": "v", "size": MB, "placeAll": "two", "replication": 2})
    simulator.post("VolumeCreate", {"size": MB, "placeAll": "two", "reuseServer": True})
    [disks] = simulator.get("VolumeDescribe/v")["objects"]
    assert len(disks) == 2 and {disk // 100 for disk in disks} == {1, 2}
    simulator.post("PlacementGroupUpdate/two", {"rename": "renamed", "rmDisks": [102]})
    assert volume(simulator, "v")["placeHead"] == "renamed"


def test_a_full_pool_refuses_new_objects_and_takes_them_again_when_there_is_room() -> None:
    simulator = InProcess(Settings(minimum_free_bytes=4096), capacity=12288)
    simulator.post("VolumeCreate", {"name": "v", "size": MB})
    simulator.blocks.write(1, 0, b"x" * 8192)
    before = simulator.service.encoded_state()
    for path, body in (
        ("VolumeCreate", {"size": 512}),
        ("VolumeCreate", {"baseOn": "v"}),
        ("VolumeSnapshot/v", {}),
        ("VolumeUpdate/v", {"sizeAdd": 512}),
    ):
        with pytest.raises(ApiError) as refused:
            simulator.post(path, body)
        assert (refused.value.name, refused.value.status) == ("insufficientResources", 507)
    assert simulator.service.encoded_state() == before
    simulator.post("VolumeUpdate/v", {"size": 4096, "shrinkOk": True})
    simulator.post("VolumeSnapshot/v", {})


def attachments(simulator: InProcess) -> set[tuple[str, int, str]]:
    return {(entry["volume"], entry["client"], entry["rights"]) for entry in simulator.get("AttachmentsList")}


def test_attachments_are_the_links_that_clients_see(simulator: InProcess) -> None:
    gid = simulator.post("VolumeCreate", {"name": "v", "size": MB})["globalId"]
    for body in ([{"volume": "v", "rw": [1], "ro": [2]}], {"reassign": [{"volume": "~" + gid, "rw": [1]}]}):
        simulator.post("VolumesReassignWait", body)
        assert attachments(simulator) == {("v", 1, "rw"), ("v", 2, "ro")}
    assert simulator.blocks.links(1) == simulator.blocks.links(2) == {"v": 1}
    assert simulator.blocks.links_by_id(1) == {gid: 1}
    assert [simulator.blocks.read_only(1, client) for client in (1, 2)] == [False, True]
    simulator.post("VolumesReassignWait", [{"volume": "v", "rw": [2]}])
    assert simulator.blocks.read_only(1, 2) is False
    # An atomic move, as the CSI driver asks for it: client 2 keeps its place, client 1 loses it, 3 gets one.
    before = next(entry["pos"] for entry in simulator.get("AttachmentsList") if entry["client"] == 2)
    simulator.post("VolumesReassignWait", [{"volume": "v", "detach": "all", "rw": [2, 3]}])
    assert attachments(simulator) == {("v", 2, "rw"), ("v", 3, "rw")}
    assert before == next(entry["pos"] for entry in simulator.get("AttachmentsList") if entry["client"] == 2)
    assert simulator.blocks.links(1) == {}
    for _ in range(2):
        simulator.post("VolumesReassign", [{"volume": "v", "detach": [1, 2, 3]}])
    assert attachments(simulator) == set()


def test_an_open_device_refuses_detach_and_the_whole_request_is_undone(simulator: InProcess) -> None:
    for name in ("a", "b"):
        simulator.post("VolumeCreate", {"name": name, "size": MB})
    simulator.post("VolumesReassignWait", [{"volume": "a", "rw": [1]}, {"volume": "b", "rw": [1]}])
    simulator.blocks.open(key(simulator, "b"), 1)
    before = simulator.service.encoded_state(), simulator.blocks.links(1), simulator.blocks.links(2)
    move = [{"volume": name, "detach": [1], "rw": [2]} for name in ("a", "b")]
    with pytest.raises(ApiError) as refused:
        simulator.post("VolumesReassignWait", move)
    assert (refused.value.name, refused.value.descr) == ("busy", "'b' is open at client 1")
    after = simulator.service.encoded_state(), simulator.blocks.links(1), simulator.blocks.links(2)
    assert after == before
    for weaker in ({"ro": [1]}, {"ro": [1], "force": True}):
        with pytest.raises(ApiError, match="busy: 'b' is open at client 1"):
            simulator.post("VolumesReassignWait", [{"volume": "b", **weaker}])
    simulator.post("VolumesReassignWait", [{**item, "force": True} for item in move])
    assert attachments(simulator) == {("a", 2, "rw"), ("b", 2, "rw")}
    simulator.restart(Settings(open_device_error="invalidParam"))
    simulator.blocks.open(key(simulator, "b"), 2)
    with pytest.raises(ApiError, match="is open at") as refused:
        simulator.post("VolumesReassign", [{"volume": "b", "detach": "all"}])
    assert refused.value.name == "invalidParam"


def test_a_deletion_detaches_first_when_told(simulator: InProcess) -> None:
    simulator.post("VolumeCreate", {"name": "v", "size": MB})
    simulator.post("VolumesReassignWait", [{"volume": "v", "rw": [1]}])
    simulator.blocks.open(1, 1)
    with pytest.raises(ApiError, match="is open at"):
        simulator.post("VolumeDelete/v", {"onAttached": "detach"})
    simulator.post("VolumeDelete/v", {"onAttached": "detachForce"})
    assert simulator.get("VolumesList") == simulator.get("AttachmentsList") == []
    assert simulator.blocks.objects() == [1]
    simulator.blocks.release(1, 1)
    simulator.advance(1)
    simulator.service.tick()
    assert simulator.blocks.objects() == []


def test_an_unknown_client_is_told_in_the_words_that_clients_match(simulator: InProcess) -> None:
    simulator.post("VolumeCreate", {"name": "v", "size": MB})
    for item in ({"rw": [4]}, {"detach": [4]}):
        with pytest.raises(ApiError) as refused:
            simulator.post("VolumesReassignWait", [{"volume": "v", **item}])
        assert (refused.value.name, refused.value.descr) == ("invalidParam", "No such client registered")
    with pytest.raises(ApiError, match="No such client registered"):
        simulator.get("ClientConfigWait/4")


def test_a_client_holds_1024_attachments_and_not_one_more(simulator: InProcess) -> None:
    for number in range(1025):
        simulator.post("VolumeCreate", {"name": f"v{number}", "size": 512})
    simulator.post("VolumesReassignWait", [{"volume": f"v{number}", "rw": [1]} for number in range(1024)])
    assert {entry["pos"] for entry in simulator.get("AttachmentsList")} == set(range(1024))
    with pytest.raises(ApiError, match="invalidParam"):
        simulator.post("VolumesReassignWait", [{"volume": "v1024", "rw": [1]}])


def test_waiting_for_a_missing_client_ends_with_it_or_with_its_time(simulator: InProcess) -> None:
    for name in "abcd":
        simulator.post("VolumeCreate", {"name": name, "size": MB})
    simulator.post("/_sim/client/2", {"running": False})
    assert simulator.get("ServicesList")["clients"]["2"]["status"] == "down"
    simulator.post("VolumesReassignWait", {"reassign": [{"volume": "a", "rw": [2]}], "attachTimeout": 0})
    simulator.post("VolumesReassign", [{"volume": "b", "rw": [2]}])
    body = b'{"reassign": [{"volume": "c", "rw": [2]}], "attachTimeout": 10}'
    brief = simulator.ask("POST", "VolumesReassignWait", body)
    forever = simulator.ask("POST", "VolumesReassignWait", b'[{"volume": "d", "rw": [2]}]')
    gone = simulator.ask("POST", "VolumesReassignWait", b'[{"volume": "d", "ro": [2]}]')
    config = simulator.ask("GET", "ClientConfigWait/2")
    simulator.service.cancel(gone.number)
    assert simulator.service.tick() == pytest.approx(10)
    simulator.advance(10)
    simulator.service.tick()
    with pytest.raises(ApiError, match="client 2 did not report") as late:
        brief.envelope()
    assert (late.value.name, late.value.status) == ("timeout", 504)
    assert forever.reply is None and config.reply is None
    assert simulator.blocks.links(2) == {}
    simulator.restart()
    assert simulator.blocks.links(2) == {}
    simulator.post("VolumeUpdate/a", {"rename": "renamed"})
    assert simulator.blocks.links(2) == {}
    forever = simulator.ask("POST", "VolumesReassignWait", b'[{"volume": "d", "rw": [2]}]')
    config = simulator.ask("GET", "ClientConfigWait/2")
    simulator.post("/_sim/client/2", {"running": True})
    assert forever.data["ok"] is True
    [status] = config.data
    assert (status["configStatus"], status["clientGeneration"]) == ("ok", status["generation"])
    assert sorted(simulator.blocks.links(2)) == ["b", "c", "d", "renamed"]
    assert gone.reply is None


def test_the_seeded_cluster_is_the_one_that_was_promised(simulator: InProcess) -> None:
    services = simulator.get("ServicesList")
    assert set(services["servers"]) == set(services["clients"]) == {"1", "2", "3"}
    assert {entry["status"] for entry in services["clients"].values()} == {"running"}
    disks = simulator.get("DisksList")
    assert {number: disk["ssd"] for number, disk in disks.items()} == {
        f"{server}0{at}": at == 2 for server in (1, 2, 3) for at in (1, 2)
    }
    groups = {name: group["disks"] for name, group in simulator.get("PlacementGroupsList").items()}
    assert groups == {"default": [101, 102, 201, 202, 301, 302], "hdd": [101, 201, 301], "ssd": [102, 202, 302]}
    assert simulator.get("VolumeTemplatesList") == simulator.get("VolumesList") == simulator.get("SnapshotsList") == []


def test_a_copy_whose_group_is_empty_is_refused_however_many_servers_the_other_groups_have(
    simulator: InProcess,
) -> None:
    simulator.post("PlacementGroupUpdate/hdd", {"rmDisks": [101, 201, 301]})
    mixed = {"size": MB, "placeAll": "hdd", "placeTail": "ssd"}
    for replication, reuse in ((3, False), (2, False), (2, True)):
        with pytest.raises(ApiError, match="Not enough servers") as refused:
            simulator.post("VolumeCreate", {**mixed, "replication": replication, "reuseServer": reuse})
        assert refused.value.name == "insufficientResources"
    simulator.post("VolumeCreate", {**mixed, "name": "tail", "replication": 1})
    assert simulator.get("VolumeGetInfo/tail")["disksCount"] == 1


def test_a_description_too_long_for_any_client_is_refused(simulator: InProcess) -> None:
    simulator.post("VolumeCreate", {"name": "huge", "size": 1 << 60})
    with pytest.raises(ApiError, match="34359738368 objects") as refused:
        simulator.get("VolumeDescribe/huge")
    assert refused.value.name == "notImplemented"
    assert simulator.get("VolumeGetInfo/huge")["objectsCount"] == 1 << 35
