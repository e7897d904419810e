"""Which faults there are, where they fit, and that a plan strikes there and nowhere else."""

from __future__ import annotations

import multiprocessing

import pytest

from harness.faults import KINDS, Fault, Injector, Point, fitting, parse_fault
from harness.runtime.messages import MessageFate
from harness.worlds.memory.world import MemoryWorld
from scenarios import steps

COMMIT = Point("management", "commit", "volume attach")
SEND = Point("agent-kvm1", "send", "StorPool VolumesReassignWait")
ANSWER = Point("management", "answer", "StartCommand to kvm2")


def kinds(point: Point) -> set[str]:
    return {kind.name for kind in fitting(point)}


def test_kinds_fit_the_points_that_they_can_befall() -> None:
    assert {"killed", "hang", "clock-forward"} <= kinds(COMMIT)
    assert not kinds(COMMIT) & {"request-lost", "answer-lost", "device-late", "host-lost"}
    assert {"request-lost", "request-late", "transient", "busy", "device-stale", "peer-killed", "host-lost"} <= kinds(
        SEND
    )
    assert not kinds(SEND) & {"answer-lost", "broken", "pool-full", "agent-killed"}
    assert {"answer-lost", "broken", "host-lost"} <= kinds(ANSWER)
    assert ANSWER.peer == "agent-kvm2" and ANSWER.host == "kvm2" and ANSWER.call is None
    assert SEND.peer == "storpool" and SEND.host == "kvm1" and SEND.call == "VolumesReassignWait"


def test_faults_of_changes_do_not_fit_pings() -> None:
    pings = kinds(Point("management", "send", "PingCommand to kvm1")) | kinds(
        Point("management", "answer", "PingCommand to kvm1")
    )
    assert {"request-lost", "refused", "peer-gone", "answer-late"} <= pings
    assert not pings & {"request-late", "request-very-late", "request-doubled", "copy-late", "answer-lost", "broken"}


def test_looks_of_a_client_at_cloudstack_are_no_points() -> None:
    assert fitting(Point("scenario", "send", "API request listVolumes")) == ()
    assert fitting(Point("scenario", "send", "API request queryAsyncJobResult")) == ()
    assert "request-lost" in kinds(Point("scenario", "send", "API request attachVolume"))


@pytest.mark.parametrize("text", ["answer-lost@7", "killed@1"])
def test_a_fault_is_read_as_it_is_written_and_goes_to_another_process(text: str) -> None:
    fault = parse_fault(text)
    assert str(fault) == text
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(str, (fault,)) == text
        assert pool.apply(parse_fault, (text,)) == fault


@pytest.mark.parametrize(
    "text", ["", "answer-lost", "answer-lost@", "answer-lost@0", "answer-lost@x", "no-such@1", "@1"]
)
def test_a_fault_that_cannot_be_read_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}'"):
        parse_fault(text)


def test_nothing_strikes_before_it_is_armed_nor_at_another_number() -> None:
    injector = Injector([Fault(KINDS["refused"], 2)])
    injector.aim(MemoryWorld(1).faults)
    assert injector.strike(*SEND) is None
    injector.armed = True
    assert injector.strike(*SEND) is None
    assert injector.strike(*COMMIT) is None
    struck = injector.strike(*SEND)
    assert struck is not None and struck.fate is MessageFate.REFUSED
    assert injector.strike(*SEND) is None
    assert [str(fired) for fired in injector.fired] == [f"refused@2 ({SEND})"]


def test_points_are_those_that_a_run_passes() -> None:
    """Two attaches pass the points of one twice; none is written down anywhere."""

    def points(times: int) -> list[Point]:
        injector = Injector(count_all=True)
        world = MemoryWorld(1, strike=injector.strike)
        injector.aim(world.faults)

        def body(inner: MemoryWorld) -> None:
            vm = steps.booted_vm(inner)
            volumes = [steps.attach(inner, steps.data_volume(inner), vm) for _ in range(times)]
            for volume in volumes:
                steps.detach(inner, volume)
            injector.armed = True
            for volume in volumes:
                inner.cloud.call("attachVolume", id=volume["id"], virtualmachineid=vm["id"])
            injector.armed = False

        world.run(body)
        return injector.points

    once, twice = points(1), points(2)
    assert len(once) > 15
    assert sum(point.detail == "attach-device i-2-1-VM" or "attach-device" in point.detail for point in once) == 2
    for point in set(once):
        assert twice.count(point) >= 2 * once.count(point), str(point)
