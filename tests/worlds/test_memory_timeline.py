"""The timeline of a case in memory: what was asked of the API, of agents, of StorPool and of libvirt, in order."""

from __future__ import annotations

import time

from harness.report.result import Outcome, collect
from harness.report.stream import Event
from harness.run import Runner, select
from harness.worlds.memory_venue import MemoryVenue
from scenarios.registry import load


def test_an_attach_is_told_from_the_api_down_to_libvirt_and_back_although_no_virtual_time_passes() -> None:
    events: list[Event] = []
    Runner(events.append, time.monotonic).run(select(load(), ["4.hot"]), [MemoryVenue(3)], {})
    (case,) = [case for row in collect(events).rows() for case in row.cases]
    assert case.outcome is Outcome.PASSED
    told = [f"{entry.source}: {entry.text}" for entry in case.timeline]
    expected = [
        "CloudStack: attachVolume",
        "management: send: AttachCommand to kvm",
        "agent-kvm",  # whichever host it is
        " StorPool: POST MultiCluster/VolumesReassignWait {",
        "attach-device",
        "management: answer: AttachCommand",
        "management StorPool: POST MultiCluster/VolumeUpdate",
        "CloudStack: list",
    ]
    position = 0
    for words in expected:
        found = [number for number, text in enumerate(told) if number >= position and words in text]
        assert found, f"{words!r} does not follow: {told[position : position + 40]}"
        position = found[0]
