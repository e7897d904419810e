"""The log of calls: what it tells, what it never tells, and that it stays small."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
import requests
from served_rig import SECONDS, Served, eventually, served

from simulator.api.log import MOST, SHOWN_BODY, SHOWN_PATH
from simulator.api.log import Served as Entry
from simulator.inprocess import TOKEN
from simulator.page.site import FOLLOWERS, LINES

UVICORNS_PATIENCE = 4.0
"""Seconds, and a little less than it waits for those who do not end by themselves."""


@pytest.fixture
def simulator() -> Iterator[Served]:
    with served() as made:
        yield made


def test_a_line_tells_what_was_asked_by_whom_and_what_came_of_it(simulator: Served) -> None:
    simulator.create("v")
    simulator.create("v")
    simulator.ask("PUT", "VolumesList")
    simulator.ask("POST", "VolumesReassign", [{"volume": "v", "rw": [1]}, {"snapshot": "s", "ro": [1]}])
    lines = simulator.log()
    assert [(line["number"], line["status"], line["error"]) for line in lines] == [
        (1, 200, ""),
        (2, 409, "objectExists"),
        (3, 405, "unknownCall"),
        (4, 404, "objectDoesNotExist"),
    ]
    assert [line["objects"] for line in lines] == [["v"], ["v"], [], ["v", "s"]]
    first = lines[0]
    assert (first["verb"], first["path"], first["call"]) == ("POST", "/ctrl/1.0/VolumeCreate", "VolumeCreate")
    assert first["client"] == "127.0.0.1" and first["time"] == 1_700_000_000
    assert json.loads(first["body"]) == {"name": "v", "size": 1 << 20} and 0 < first["milliseconds"] < 10_000
    assert [line["number"] for line in simulator.log(after=2)] == [3, 4]
    assert simulator.log(after=4) == [] and len(simulator.log(after=99)) == 4


@pytest.mark.parametrize("after", ["x", "-1", "1e3", "9" * 30])
def test_a_number_that_is_none_is_refused(simulator: Served, after: str) -> None:
    assert simulator.ask("GET", f"/_sim/log?after={after}").status_code == 400


def test_no_secret_is_told_wherever_it_stood(simulator: Served) -> None:
    secret = "hush-hush-hush"
    initiator = {"createInitiator": {"name": "iqn.a", "username": "u", "secret": secret}}
    simulator.ask("POST", "iSCSIConfig", {"commands": [initiator, {"createInitiator": {"Secret": [secret]}}]})
    simulator.ask("POST", "KV/Create/b")
    simulator.ask("POST", "KV/Set/b", {"set": {"key": secret}})
    simulator.ask("POST", "VolumeCreate", json.dumps({"secret": secret}))
    simulator.ask("POST", "/login", {"pin": secret})
    simulator.ask("POST", f"VolumeUpdate/{TOKEN}", {"tags": {"a": TOKEN}})
    headers = {"Authorization": f"Storpool v1:{TOKEN}"}
    requests.post(f"{simulator.url}/ctrl/1.0/KV/Set/b", data=f'{{"set": "{secret}', headers=headers, timeout=SECONDS)
    lines = simulator.log()
    assert len(lines) == 7
    text = json.dumps(lines) + requests.get(simulator.url, timeout=SECONDS).text
    assert secret not in text and TOKEN not in text
    assert "createInitiator" in lines[0]["body"] and lines[-1]["body"] == "[23 bytes]"


def test_what_is_long_is_cut_and_old_calls_are_forgotten(simulator: Served) -> None:
    simulator.ask("POST", "VolumeCreate", {"name": "v", "tags": {"t": "x" * 1000}})
    simulator.ask("POST", "VolumeCreate", {"name": "v", "tags": {"t": "x" * 10_000}})
    simulator.ask("GET", "Volume/" + "y" * 1000)
    cut, long, path = simulator.log()
    assert len(cut["body"]) == SHOWN_BODY + 1 and cut["body"].endswith("…")
    assert long["body"].endswith(" bytes]") and len(path["path"]) == SHOWN_PATH + 1
    log = simulator.application.log
    assert log is not None
    for _ in range(MOST):
        log.add(Entry(0.0, "GET", "/", ""))
    assert [line["number"] for line in simulator.log()] == list(range(4, MOST + 4))


def test_whoever_follows_hears_of_calls_as_they_come(simulator: Served) -> None:
    simulator.create("early")
    headers = {"Last-Event-ID": "0"}
    with requests.get(f"{simulator.url}/page/log?after=77", headers=headers, stream=True, timeout=SECONDS) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines(chunk_size=1)
        assert json.loads(next(data(lines)))["objects"] == ["early"]
        simulator.create("late")
        assert json.loads(next(data(lines)))["objects"] == ["late"]


def test_a_simulator_that_stops_does_not_wait_for_who_follows(simulator: Served) -> None:
    with requests.get(f"{simulator.url}/page/log", stream=True, timeout=SECONDS) as answer:
        lines = answer.iter_lines(chunk_size=1)
        assert next(lines) == b"retry: 2000"
        begun = time.monotonic()
        simulator.stop()
        assert list(data(lines)) == []
        assert time.monotonic() < begun + UVICORNS_PATIENCE


def data(lines: Iterator[bytes]) -> Iterator[bytes]:
    return (line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: "))


def test_a_follower_that_was_overrun_is_sent_the_newest(simulator: Served) -> None:
    for _ in range(LINES + 5):
        simulator.create("v")
    with requests.get(f"{simulator.url}/page/log?after=0", stream=True, timeout=SECONDS) as answer:
        lines = data(answer.iter_lines(chunk_size=1))
        numbers = [json.loads(next(lines))["number"] for _ in range(LINES)]
        assert numbers == list(range(6, LINES + 6))


def test_only_so_many_may_follow_and_who_leaves_makes_room(simulator: Served) -> None:
    def follow() -> requests.Response:
        return requests.get(f"{simulator.url}/page/log?after=0", stream=True, timeout=SECONDS)

    followers = [follow() for _ in range(FOLLOWERS)]
    assert [answer.status_code for answer in followers] == [200] * FOLLOWERS
    with follow() as refused:
        assert refused.status_code == 503
    for answer in followers:
        answer.close()
    eventually(lambda: follow().status_code == 200, "a place")
