"""Faults as a client meets them: what is carried out, what is answered, what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import requests
from served_rig import Served, eventually, served

from simulator.api.faults import MOST
from simulator.api.server import Limits
from simulator.settings import Settings

SHORT = 0.5
"""Seconds after which a client leaves."""


@pytest.fixture
def simulator() -> Iterator[Served]:
    with served() as made:
        yield made


@pytest.fixture
def aside() -> Iterator[Callable[..., Future[Any]]]:
    """Calls in a thread of their own."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def error(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()["error"]
    return found


def test_a_refused_call_is_not_carried_out_and_the_next_one_is(simulator: Served) -> None:
    number = simulator.fault(kind="refuse", call="VolumeCreate", error="busy")
    answer = simulator.create("v")
    assert (answer.status_code, error(answer)["name"]) == (409, "busy")
    assert not error(answer).get("transient") and str(number) in error(answer)["descr"]
    assert simulator.volumes() == set()
    assert simulator.create("v").status_code == 200 and simulator.volumes() == {"v"}
    assert simulator.faults() == [
        {"id": number, "kind": "refuse", "call": "VolumeCreate", "error": "busy", "left": 0, "struck": 1}
    ]


def test_a_transient_error_says_that_it_is_one(simulator: Served) -> None:
    simulator.fault(kind="transient", call="VolumeCreate")
    simulator.fault(kind="transient", call="VolumesList", error="busy", count=2)
    answer = simulator.create("v")
    assert (answer.status_code, error(answer)["name"], error(answer)["transient"]) == (503, "unavailable", True)
    answers = [simulator.ask("GET", "VolumesList") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [409, 409, 200]
    assert answers[2].json()["data"] == []


def test_statuses_of_the_settings_are_those_of_faults_too() -> None:
    with served(settings=Settings(error_statuses={"busy": 418})) as simulator:
        simulator.fault(kind="refuse", call="VolumesList", error="busy")
        assert simulator.ask("GET", "VolumesList").status_code == 418


@pytest.mark.parametrize("named", ["b", "~splab.b.1"])
def test_a_fault_of_one_object_leaves_the_others_alone(simulator: Served, named: str) -> None:
    """Whether it is named in the path, in the body, or among others in a list of the body."""
    assert all(simulator.create(name).status_code == 200 for name in ("b", "a"))
    for call in ("VolumeCreate", "VolumeUpdate", "VolumesReassignWait"):
        simulator.fault(kind="refuse", call=call, object=named, error="timeout", count=9)
    reassign = {"reassign": [{"volume": "a", "rw": [1]}]}
    assert simulator.ask("POST", "VolumesReassignWait", reassign).status_code == 200
    assert simulator.ask("POST", "VolumeUpdate/a", {"size": 2 << 20}).status_code == 200
    assert simulator.create("c").status_code == 200
    reassign["reassign"].append({"volume": named, "rw": [1]})
    assert simulator.ask("POST", "VolumesReassignWait", reassign).status_code == 504
    assert simulator.ask("POST", f"VolumeUpdate/{named}", {"size": 2 << 20}).status_code == 504
    assert simulator.create(named).status_code == 504


@pytest.mark.parametrize("prefix", ["MultiCluster/", "RemoteCommand/splab/", "RemoteCommand/elsewhere/"])
def test_a_call_is_struck_under_each_of_its_paths(simulator: Served, prefix: str) -> None:
    simulator.fault(kind="refuse", call="VolumesList", error="timeout")
    assert simulator.ask("GET", f"{prefix}VolumesList").status_code == 504


def test_a_delayed_call_is_carried_out_and_answered_later(simulator: Served) -> None:
    simulator.fault(kind="delay", call="VolumeCreate", seconds=3600)
    with pytest.raises(requests.ReadTimeout):
        simulator.create("v", seconds=SHORT)
    assert simulator.volumes() == {"v"}
    simulator.fault(kind="delay", call="VolumeCreate", seconds=SHORT)
    answer = simulator.create("w")
    assert answer.status_code == 200 and answer.elapsed.total_seconds() >= SHORT
    assert simulator.log()[-1]["milliseconds"] >= SHORT * 1000


def test_a_lost_answer_ends_the_connection_and_the_change_is_there(
    simulator: Served, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.fault(kind="lose", call="VolumeCreate")
    with pytest.raises(requests.ConnectionError, match="without response"):
        simulator.create("v")
    assert simulator.volumes() == {"v"}
    assert [(line["status"], line["fault"]) for line in simulator.log()] == [(None, "lose (1)"), (200, "")]
    assert caplog.records == []


def test_a_duplicate_is_carried_out_twice_and_the_first_is_answered(simulator: Served) -> None:
    simulator.fault(kind="duplicate", call="VolumeCreate", count=2)
    assert simulator.create("v").status_code == 200
    answer = simulator.create("")
    assert answer.status_code == 200 and answer.json()["data"]["globalId"] == "splab.b.2"
    assert simulator.volumes() == {"v", "~splab.b.2", "~splab.b.3"}
    assert simulator.ask("GET", "/_sim/calls").json()["data"]["calls"]["VolumeCreate"] == 4
    twins = [(line["status"], line["error"]) for line in simulator.log() if line["fault"]]
    assert sorted(twins) == [(200, ""), (200, ""), (200, ""), (409, "objectExists")]


def test_a_call_that_hangs_is_carried_out_when_the_fault_is_lifted(
    simulator: Served, aside: Callable[..., Future[Any]]
) -> None:
    number = simulator.fault(kind="hang", call="VolumeCreate")
    hanging = aside(simulator.create, "v")
    eventually(lambda: simulator.faults()[0].get("hanging"), "hanging")
    assert simulator.volumes() == set() and not hanging.done()
    assert simulator.create("w").status_code == 200
    assert simulator.ask("DELETE", f"/_sim/faults/{number}").status_code == 200
    assert hanging.result().status_code == 200
    assert simulator.volumes() == {"v", "w"} and simulator.faults() == []


def test_a_client_that_leaves_takes_its_hanging_call_along(simulator: Served) -> None:
    simulator.fault(kind="hang", call="VolumeCreate")
    with pytest.raises(requests.ReadTimeout):
        simulator.create("v", seconds=SHORT)
    eventually(lambda: not simulator.faults()[0].get("hanging"), "forgotten")
    assert simulator.ask("DELETE", "/_sim/faults").status_code == 200
    assert simulator.volumes() == set()


def test_a_reset_forgets_faults_and_refuses_what_hangs(simulator: Served, aside: Callable[..., Future[Any]]) -> None:
    simulator.fault(kind="hang", call="VolumeCreate")
    simulator.fault(kind="refuse", call="VolumesList", error="busy")
    hanging = aside(simulator.create, "v")
    eventually(lambda: simulator.faults()[0].get("hanging"), "hanging")
    assert simulator.ask("POST", "/_sim/reset").status_code == 200
    answer = hanging.result()
    assert answer.status_code == 503 and "reset" in error(answer)["descr"]
    assert simulator.faults() == [] and simulator.volumes() == set()
    assert simulator.fault(kind="lose", call="VolumeCreate") == 1


def test_a_call_that_hangs_or_is_delayed_does_not_keep_the_simulator_from_stopping(
    simulator: Served, aside: Callable[..., Future[Any]]
) -> None:
    simulator.fault(kind="hang", call="VolumeCreate")
    simulator.fault(kind="delay", call="VolumesList", seconds=3600)
    calls = [aside(simulator.create, "v"), aside(simulator.ask, "GET", "VolumesList")]
    eventually(lambda: simulator.application.waiting == 2, "waiting")
    simulator.stop()
    assert [call.result().status_code for call in calls] == [503, 503]


def test_a_call_hangs_no_longer_than_any_call_may_wait() -> None:
    with served(limits=Limits(call_seconds=SHORT)) as simulator:
        simulator.fault(kind="hang", call="VolumeCreate")
        answer = simulator.create("v")
        assert (answer.status_code, error(answer)["name"]) == (504, "timeout")
        assert simulator.volumes() == set()


def test_chance_is_the_seeds(simulator: Served) -> None:
    def strikes() -> list[bool]:
        return [simulator.ask("GET", "VolumesList").status_code == 503 for _ in range(40)]

    simulator.fault(kind="transient", call="VolumesList", probability=0.5)
    first = strikes()
    assert 5 < sum(first) < 35 and simulator.faults()[0]["left"] is None
    for seed, same in ((0, True), (1, False), (0, True)):
        assert simulator.ask("POST", "/_sim/seed", {"seed": seed}).status_code == 200
        assert simulator.ask("GET", "/_sim/seed").json()["data"] == {"seed": seed}
        assert (strikes() == first) is same, seed
    simulator.ask("DELETE", "/_sim/faults")
    simulator.fault(kind="transient", call="VolumesList", probability=1, count=3)
    assert sum(strikes()) == 3


def test_the_first_of_several_faults_strikes_and_the_next_when_that_is_over(simulator: Served) -> None:
    simulator.fault(kind="refuse", call="VolumesList", error="busy")
    simulator.fault(kind="refuse", call="VolumesList", error="timeout")
    statuses = [simulator.ask("GET", "VolumesList").status_code for _ in range(3)]
    assert statuses == [409, 504, 200]


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"kind": "explode", "call": "VolumeCreate"}, "explode"),
        ({"call": "VolumeCreate"}, "kind"),
        ({"kind": "lose"}, "call"),
        ({"kind": "lose", "call": "VolumeCreate", "often": 2}, "often"),
        ({"kind": "lose", "call": "volumeCreate"}, "There is no call 'volumeCreate'"),
        ({"kind": "lose", "call": "VolumeCreate", "count": 0}, "count"),
        ({"kind": "lose", "call": "VolumeCreate", "probability": 0}, "probability"),
        ({"kind": "lose", "call": "VolumeCreate", "probability": 1.1}, "probability"),
        ({"kind": "lose", "call": "VolumeCreate", "object": ""}, "object"),
        ({"kind": "lose", "call": "VolumeCreate", "seconds": 1}, "lose has no seconds"),
        ({"kind": "lose", "call": "VolumeCreate", "error": "busy"}, "lose has no error"),
        ({"kind": "refuse", "call": "VolumeCreate"}, "needs error"),
        ({"kind": "refuse", "call": "VolumeCreate", "error": "angry"}, "There is no error 'angry'"),
        ({"kind": "delay", "call": "VolumeCreate"}, "delay needs seconds"),
        ({"kind": "delay", "call": "VolumeCreate", "seconds": 1e9}, "seconds"),
        ([], "object"),
    ],
)
def test_a_fault_that_cannot_be_meant_is_refused_and_says_why(simulator: Served, wanted: Any, why: str) -> None:
    answer = simulator.ask("POST", "/_sim/faults", wanted)
    assert (answer.status_code, error(answer)["name"]) == (400, "invalidParam")
    assert why in error(answer)["descr"] and "`str`" not in error(answer)["descr"]
    assert simulator.faults() == []


def test_there_are_only_so_many_faults_and_those_that_are_over_make_room(
    simulator: Served, aside: Callable[..., Future[Any]]
) -> None:
    simulator.fault(kind="hang", call="VolumeCreate")
    hanging = aside(simulator.create, "v")
    eventually(lambda: simulator.faults()[0].get("hanging"), "hanging")
    for _ in range(MOST - 1):
        simulator.fault(kind="refuse", call="VolumesList", error="busy")
    answer = simulator.ask("POST", "/_sim/faults", {"kind": "lose", "call": "VolumesList"})
    assert answer.status_code == 400 and "lift one first" in error(answer)["descr"]
    assert simulator.ask("GET", "VolumesList").status_code == 409
    assert simulator.fault(kind="lose", call="VolumesList") == MOST + 1
    assert [found["id"] for found in simulator.faults()] == [1, *range(3, MOST + 2)]
    assert simulator.ask("DELETE", "/_sim/faults").status_code == 200
    assert hanging.result().status_code == 200


@pytest.mark.parametrize("path", ["/_sim/faults/7", "/_sim/faults/x", "/_sim/faults/1/2", "/_sim/faultsx", "/_sim/log"])
def test_what_is_not_there_cannot_be_lifted(simulator: Served, path: str) -> None:
    assert simulator.ask("DELETE", path).status_code in (404, 405)


def test_faults_are_for_the_control_api_only_and_a_wrong_token_neither_sets_nor_uses_them_up(simulator: Served) -> None:
    for verb, path in (
        ("GET", "/_sim/faults"),
        ("DELETE", "/_sim/faults"),
        ("GET", "/_sim/log"),
        ("GET", "/_sim/seed"),
    ):
        assert simulator.ask(verb, path, token="wrong").status_code == 401, path
    simulator.fault(kind="refuse", call="VolumesList", error="busy")
    assert simulator.ask("GET", "VolumesList", token="wrong").status_code == 401
    assert simulator.ask("GET", "VolumesList").status_code == 409
    with served(control=False) as plain:
        wanted = {"kind": "lose", "call": "VolumesList"}
        assert plain.ask("POST", "/_sim/faults", wanted).status_code == 404
        assert plain.ask("GET", "/_sim/log").status_code == 404
        assert plain.ask("DELETE", "/_sim/faults").status_code == 405
