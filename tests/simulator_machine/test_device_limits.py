"""Limits of volumes hold on loop devices, are others at once, and are gone with the device."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine_rigs import LoopRig, loop_rig

from simulator.blocks import throttle
from simulator.blocks.destroy import destroy
from simulator.ports import DeviceBusy, Links

MB = 1 << 20
SECONDS = 1.0
HERE = Links(1, ("v1",), ("a.b.1",))

pytestmark = pytest.mark.local


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[LoopRig]:
    if throttle.missing():
        pytest.skip(f"limits need {throttle.missing()}")
    with loop_rig(tmp_path / "state", "btrfs") as made:
        made.blocks.create(1, 16 * MB)
        yield made


def writes_per_second(device: str) -> float:
    """Of 4 KiB, one after the other, counted over `SECONDS`."""
    descriptor = os.open(device, os.O_WRONLY | os.O_DIRECT)
    try:
        buffer = mmap.mmap(-1, 4096)
        began, count = time.monotonic(), 0
        while time.monotonic() < began + SECONDS:
            os.pwrite(descriptor, buffer, 4096 * (count % 4000))
            count += 1
        return count / (time.monotonic() - began)
    finally:
        os.close(descriptor)


def rules_of(device: str) -> list[str]:
    wanted = throttle.device_id(int(device.removeprefix("/dev/loop"))) + " "
    every = (
        line for kind in throttle.rules(throttle.NONE) for line in throttle.rule_file(kind).read_text().splitlines()
    )
    return [line for line in every if line.startswith(wanted)]


def test_a_limit_holds_is_changed_at_once_and_leaves_nothing(rig: LoopRig) -> None:
    assert rig.blocks.enforces_limits
    rig.blocks.limit(1, 200, 0)
    device = rig.blocks.attach(1, HERE, read_only=False)
    limited = writes_per_second(device)
    rig.blocks.limit(1, 0, 400 * 4096)
    by_bandwidth = writes_per_second(device)
    rig.blocks.limit(1, 0, 0)
    free = writes_per_second(device)
    # The kernel lets a slice's worth go at once, so a second may have somewhat more; a slow machine has less.
    assert limited < 300 and by_bandwidth < 600
    assert free > 2 * limited, "the machine is too slow to tell a limit from none"
    rig.blocks.limit(1, 200, 0)
    rig.blocks.detach(1, 1, force=False)
    assert rules_of(device) == []


def test_a_restart_keeps_the_device_and_says_its_limits_again(rig: LoopRig) -> None:
    rig.blocks.limit(1, 300, 0)
    device = rig.blocks.attach(1, HERE, read_only=False)
    assert len(rules_of(device)) == 2
    blocks = rig.restart()
    blocks.reconcile({1: 16 * MB}, {1: [(HERE, False)]})
    blocks.limit(1, 500, 0)
    assert sorted(rule.split()[1] for rule in rules_of(device)) == ["500", "500"]
    blocks.reconcile({1: 16 * MB}, {})
    assert rules_of(device) == []


def test_other_rights_take_the_limits_to_the_new_device(rig: LoopRig) -> None:
    rig.blocks.limit(1, 300, 0)
    before = rig.blocks.attach(1, HERE, read_only=False)
    after = rig.blocks.attach(1, HERE, read_only=True)
    assert after != before and rules_of(before) == [] and len(rules_of(after)) == 2


def test_a_device_that_stays_because_it_is_open_keeps_its_limits(rig: LoopRig) -> None:
    rig.blocks.limit(1, 300, 0)
    device = rig.blocks.attach(1, HERE, read_only=False)
    with rig.hold(1, 1), pytest.raises(DeviceBusy):
        rig.blocks.detach(1, 1, force=False)
    assert len(rules_of(device)) == 2


def test_a_removed_simulator_leaves_no_limit(rig: LoopRig) -> None:
    rig.blocks.limit(1, 300, 0)
    device = rig.blocks.attach(1, HERE, read_only=False)
    rig.blocks.close()
    destroy(rig.state)
    assert rules_of(device) == []
