"""Every fact that is not publicly known is a setting, and both of its sides work (spec section 12)."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from simulator.inprocess import ApiError, InProcess
from simulator.settings import Settings

MB = 1 << 20


def test_without_a_default_group_a_placement_must_be_given() -> None:
    simulator = InProcess(Settings(default_placement_group="", default_replication=1))
    with pytest.raises(ApiError, match="placeAll is missing"):
        simulator.post("VolumeCreate", {"size": MB})
    simulator.post("VolumeCreate", {"name": "v", "size": MB, "placeTail": "ssd", "placeAll": "hdd"})
    [shown] = simulator.get("Volume/v")
    assert (shown["placeAll"], shown["placeHead"], shown["placeTail"], shown["replication"]) == ("hdd", "hdd", "ssd", 1)


def test_a_volume_smaller_than_its_parent_when_that_is_allowed() -> None:
    simulator = InProcess(Settings(smaller_than_parent="allow"))
    simulator.post("VolumeCreate", {"name": "v", "size": MB})
    simulator.blocks.write(1, 0, b"x" * MB)
    simulator.post("VolumeSnapshot/v", {"name": "s"})
    simulator.post("VolumeCreate", {"name": "small", "parent": "s", "size": 1024})
    assert simulator.blocks.read(3, 0, 1024) == b"x" * 1024
    simulator.post("VolumeUpdate/small", {"size": 2048})
    assert simulator.blocks.read(3, 1024, 1024) == bytes(1024)


def test_reverting_an_attached_volume_when_that_is_allowed_replaces_its_device() -> None:
    simulator = InProcess(Settings(revert_attached="allow"))
    simulator.post("VolumeCreate", {"name": "v", "size": MB})
    simulator.post("VolumesReassignWait", [{"volume": "v", "rw": [1], "ro": [2]}])
    simulator.post("VolumeSnapshot/v", {"name": "s"})
    simulator.blocks.write(1, 0, b"new")
    simulator.post("VolumeRevert/v", {"toSnapshot": "s"})
    [now] = simulator.get("Volume/v")
    assert simulator.blocks.links(1) == simulator.blocks.links(2) == {"v": now["id"]}
    assert simulator.blocks.read_only(now["id"], 2) and not simulator.blocks.read_only(now["id"], 1)
    assert simulator.blocks.read(now["id"], 0, 3) == bytes(3)
    assert 1 not in simulator.blocks.objects()


def test_a_template_in_use_goes_when_that_is_allowed() -> None:
    simulator = InProcess(Settings(template_in_use="allow"))
    simulator.post("VolumeTemplateCreate", {"name": "t", "iops": 7})
    simulator.post("VolumeCreate", {"name": "v", "size": MB, "template": "t"})
    simulator.post("VolumeTemplateDelete/t")
    [shown] = simulator.get("Volume/v")
    assert (shown["templateName"], shown["iops"]) == ("", 7)
    simulator.post("VolumeTemplateCreate", {"name": "t"})
    assert simulator.get("VolumeTemplatesStatus")[0]["volumesCount"] == 0


def test_waiting_for_a_missing_client_may_end_in_success() -> None:
    simulator = InProcess(Settings(attach_timeout_result="success"))
    simulator.post("VolumeCreate", {"name": "v", "size": MB})
    simulator.post("/_sim/client/3", {"running": False})
    body = b'{"reassign": [{"volume": "v", "rw": [3]}], "attachTimeout": 5}'
    asked = simulator.ask("POST", "VolumesReassignWait", body)
    assert asked.reply is None
    simulator.advance(5)
    simulator.service.tick()
    assert asked.data["ok"] is True
    assert [entry["client"] for entry in simulator.get("AttachmentsList")] == [3]


def test_statuses_and_deleting_names_are_a_choice() -> None:
    simulator = InProcess(Settings(error_statuses={"objectDoesNotExist": 500}, deleting_name="*{name}"))
    with pytest.raises(ApiError) as refused:
        simulator.get("Volume/none")
    assert refused.value.status == 500
    simulator.post("VolumeCreate", {"name": "v", "size": MB})
    for _ in range(2):
        simulator.post("VolumeSnapshot/v", {"name": "s"})
        simulator.post("SnapshotDelete/s")
    assert [entry["name"] for entry in simulator.get("SnapshotsList")] == ["*s", "*s"]


@pytest.mark.parametrize("cluster_id", ["", "a", "a.b.c", "A.b", "a-b.c"])
def test_a_cluster_id_of_the_wrong_form_is_refused(cluster_id: str) -> None:
    with pytest.raises(ValueError, match="cluster id"):
        Settings(cluster_id=cluster_id)


RUN = """
import sys
from simulator.inprocess import InProcess
simulator = InProcess()
simulator.post("VolumeTemplateCreate", {"name": "t", "placeAll": "hdd", "placeTail": "ssd"})
for name in "abcdef":
    simulator.post("VolumeCreate", {"name": name, "size": 1 << 20, "template": "t", "tags": {"x": name, "y": "1"}})
    simulator.post("VolumeSnapshot/" + name, {"bind": True})
    simulator.post("VolumeCreate", {"baseOn": name})
items = [{"volume": name, "rw": [1, 3], "ro": [2]} for name in "abcdef"]
simulator.post("VolumesReassignWait", items)
simulator.post("VolumesReassignWait", [{"volume": name, "detach": "all"} for name in "abc"])
for name in "abc":
    simulator.post("VolumeDelete/" + name)
    simulator.advance(1.5)
simulator.service.tick()
queries = ("VolumesSpace", "SnapshotsList", "DisksList", "PlacementGroupsList", "AttachmentsList", "ServicesList")
answers = [simulator.ask("GET", query).reply.body for query in queries]
sys.stdout.buffer.write(b"".join([*simulator.journal.replay(), *answers]))
"""


def test_the_same_calls_give_the_same_bytes_whatever_the_hash_seed() -> None:
    digests = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, timeout=60, check=True)
        assert len(done.stdout) > 10_000
        digests.add(hashlib.sha256(done.stdout).hexdigest())
    assert len(digests) == 1
