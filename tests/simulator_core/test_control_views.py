"""What the control API and the page are told of a cluster: its clock, its last changes, its overview."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.api.draws import Draws
from simulator.blocks.memory import MemoryBlocks
from simulator.cluster.changes import MOST_EVENTS
from simulator.cluster.overview import Overview
from simulator.inprocess import ApiError, InProcess
from simulator.ports import JournalError

MB = 1 << 20


@pytest.fixture
def simulator() -> InProcess:
    return InProcess()


def test_the_clock_is_told_and_moved(simulator: InProcess) -> None:
    before = simulator.get("/_sim/clock")["now"]
    simulator.post("/_sim/clock", {"advance": 90})
    assert simulator.get("/_sim/clock") == {"now": before + 90}


def journal(simulator: InProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = simulator.get("/_sim/journal")["changes"]
    return found


def test_the_last_changes_are_told_by_name_and_never_by_value(simulator: InProcess) -> None:
    assert journal(simulator) == []
    simulator.post("VolumeCreate", {"name": "v", "size": MB, "tags": {"t": "hush"}})
    simulator.post("VolumeDelete/v")
    simulator.post("KV/Create/b")
    simulator.post("KV/Set/b", {"set": {"k": "hush"}})
    initiator = {"name": "iqn.2026-11.example:a", "username": "u", "secret": "hush"}
    simulator.post("iSCSIConfig", {"commands": [{"createInitiator": initiator}]})
    with pytest.raises(ApiError):
        simulator.post("VolumeDelete/v")
    told = journal(simulator)
    assert [(each["number"], each["record"]) for each in told[:3]] == [
        (1, "prepared"),
        (2, "committed"),
        (3, "applied"),
    ]
    assert told[0]["change"] == told[1]["change"] and told[0]["put"] == ["object 1 v"]
    assert told[2]["drop"] == ["object 1"]
    assert [each["put"] for each in told[-3:]] == [["bucket 1 b"], ["bucket 1 b"], ["iscsi 1"]]
    assert "hush" not in str(told)
    simulator.post("/_sim/reset")
    assert journal(simulator) == []


def test_only_so_much_of_the_journal_is_told(simulator: InProcess) -> None:
    names = [f"v{number}" for number in range(MOST_EVENTS + 5)]
    for name in names:
        simulator.post("VolumeCreate", {"name": name, "size": MB})
    simulator.post("VolumesReassign", [{"volume": name, "rw": [1]} for name in names])
    told = next(each for each in journal(simulator) if "more" in each)
    assert len(told["put"]) == MOST_EVENTS and told["more"] == 5
    for _ in range(120):
        simulator.post("VolumeUpdate/v1", {"tags": {"t": "a"}})
        simulator.post("VolumeUpdate/v1", {"tags": {"t": "b"}})
    assert len(journal(simulator)) == 200


def overview(simulator: InProcess, rows: int = 100) -> Overview:
    return simulator.service.overview(rows)


def test_an_overview_of_an_empty_cluster(simulator: InProcess) -> None:
    simulator.advance(5)
    found = overview(simulator)
    assert (found.name, found.id, found.version) == ("splab", "splab.b", simulator.settings.version)
    assert (found.generation, found.uptime, found.operational, found.trouble) == (1, 5, True, "")
    assert (found.capacity, found.free) == (1 << 40, 1 << 40)
    assert [part.id for part in found.disks.shown] == [101, 102, 201, 202, 301, 302]
    assert found.disks.shown[1].about == "SSD of server 1"
    assert {part.status for part in found.servers.shown + found.clients.shown} == {"running"}
    assert (found.tree, found.more_objects, found.limits_enforced) == ([], 0, False)


def test_children_stand_below_their_parents_with_who_has_them(simulator: InProcess) -> None:
    simulator.post("VolumeTemplateCreate", {"name": "t", "placeAll": "hdd", "replication": 3})
    simulator.post("VolumeCreate", {"name": "base", "size": MB})
    simulator.post("VolumeCreate", {"name": "other", "size": 2 * MB})
    simulator.post("VolumeSnapshot/base", {"name": "golden"})
    for name in ("a", "b"):
        simulator.post("VolumeCreate", {"name": name, "parent": "golden", "template": "t"})
    simulator.post("VolumeSnapshot/a", {"name": "of-a"})
    simulator.post("VolumesReassign", [{"volume": "a", "rw": [1], "ro": [2]}])
    rows = overview(simulator).tree
    assert [(row.depth, row.name, row.parent) for row in rows] == [
        (0, "other", ""),
        (0, "golden", ""),
        (1, "base", "golden"),
        (1, "b", "golden"),
        (1, "of-a", "golden"),
        (2, "a", "of-a"),
    ]
    last = rows[-1]
    assert (last.template, last.snapshot, last.size) == ("t", False, MB)
    assert last.attachments == ["client 1 (rw)", "client 2 (ro)"] and last.more_attachments == 0
    found = overview(simulator)
    assert (found.volumes, found.snapshots, found.attachments) == (4, 2, 2)


@pytest.mark.parametrize("shape", ["flat", "star", "chain"])
def test_of_many_objects_and_parts_some_are_shown_and_the_rest_is_counted(simulator: InProcess, shape: str) -> None:
    simulator.post("VolumeCreate", {"name": "root", "size": MB})
    simulator.post("VolumeSnapshot/root", {"name": "golden"})
    for number in range(60):
        if shape == "chain":
            simulator.post("VolumeSnapshot/root", {"name": f"s{number}"})
        else:
            origin = {"parent": "golden"} if shape == "star" else {"size": MB}
            simulator.post("VolumeCreate", {"name": f"v{number}", **origin})
    found = overview(simulator, rows=5)
    assert (len(found.tree), found.more_objects) == (5, 57)
    assert (len(found.disks.shown), found.disks.more, found.clients.more) == (5, 1, 0)
    assert len({row.name for row in overview(simulator).tree}) == 62 and overview(simulator).more_objects == 0


def test_parts_that_are_not_well_say_so(simulator: InProcess) -> None:
    for path in ("client/2", "server/3", "server/2"):
        simulator.post(f"/_sim/{path}", {"running": False})
    simulator.post("/_sim/disk/101", {"up": False})
    found = overview(simulator)
    assert [part.status for part in found.clients.shown] == ["running", "down", "running"]
    assert [part.status for part in found.disks.shown] == ["down", "up", "down", "down", "down", "down"]
    assert not found.operational
    simulator.post("/_sim/disk/101", {"up": True})
    assert overview(simulator).disks.shown[0].status == "recovering, 0%"


def test_a_simulator_that_serves_nothing_any_more_tells_why(
    simulator: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise JournalError("no space left")

    def no_capacity(_blocks: MemoryBlocks) -> tuple[int, int]:
        raise OSError("gone")

    monkeypatch.setattr(simulator.journal, "sync", fail)
    monkeypatch.setattr(MemoryBlocks, "capacity", no_capacity)
    with pytest.raises(ApiError):
        simulator.post("KV/Create/b")
    found = overview(simulator)
    assert "no space left" in found.trouble and found.capacity == 0


def test_draws_are_what_they_were() -> None:
    """A seed that somebody wrote down must strike the same calls with every version."""
    draws = Draws(7, "fault 1")
    assert [round(draws.next(), 6) for _ in range(4)] == [0.616666, 0.152981, 0.31657, 0.810645]
    assert Draws(7, "fault 2").next() != Draws(7, "fault 1").next() != Draws(8, "fault 1").next()
