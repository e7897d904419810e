"""Copies of several objects at one point in time, on every kind of blocks and under real writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from machine_rigs import LoopRig, Rig, blocks_rig, loop_rig

from simulator.blocks import gate, throttle
from simulator.blocks.gate import Held, Throttled, Watched
from simulator.blocks.throttle import NONE, Limits
from simulator.ports import BlocksError, Links

MB = 1 << 20
VOLUMES = (1, 2, 3, 4)
NOISE = (5, 6, 7, 8)
FULL = os.environ.get("SPLAB_COUNTS") == "full"
GROUPS = 1000 if FULL else 100
TORN_WITHIN = 3000
"""The unprotected copies of the same run are made until one is torn, at most so many."""
HERE = Path(__file__).parent
__all__ = ["blocks_rig"]


def test_a_group_is_copied_whole_or_not_at_all(blocks_rig: Rig) -> None:
    blocks = blocks_rig.blocks
    for key in (1, 2):
        blocks.create(key, MB)
        blocks.write(key, 512, bytes([key]) * 512)
        blocks.attach(key, Links(1, (f"v{key}",), (f"a.b.{key}",)), read_only=False)
    blocks.clone_group([(1, 11, MB), (2, 12, 2 * MB)])
    blocks.write(1, 512, b"x" * 512)
    assert blocks.read(11, 512, 512) + blocks.read(12, 512, 512) == b"\1" * 512 + b"\2" * 512
    with pytest.raises(BlocksError):
        blocks.clone_group([(1, 21, MB), (99, 22, MB)])
    for key in (21, 22):
        with pytest.raises(BlocksError):
            blocks.read(key, 0, 1)


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[LoopRig]:
    with loop_rig(tmp_path / "state", "btrfs") as rig:
        for key in (*VOLUMES, *NOISE):
            rig.blocks.create(key, 16 * MB)
            rig.blocks.attach(key, Links(1, (f"v{key}",), (f"a.b.{key}",)), read_only=False)
        yield rig


@contextmanager
def program(*words: str) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen([sys.executable, str(HERE / "writers.py"), *words], stdout=subprocess.PIPE, text=True)
    try:
        yield started
    finally:
        started.kill()
        started.wait(30)
        assert started.stdout is not None
        started.stdout.close()


def numbers(rig: LoopRig, keys: list[int]) -> list[int]:
    return [int.from_bytes(rig.blocks.read(key, 0, 8), "little") for key in keys]


def torn(found: list[int]) -> bool:
    """The writer goes through the volumes in order: none may be ahead of one before it, nor more than one behind."""
    return found != sorted(found, reverse=True) or found[0] - found[-1] > 1


def groups(rig: LoopRig, count: int, *, protected: bool) -> list[list[int]]:
    """What each of so many groups holds; those that are not protected end with the first that is torn."""
    seen = []
    for _ in range(count):
        clones = [(source, 100 + source, 16 * MB) for source in VOLUMES]
        if protected:
            rig.blocks.clone_group(clones)
        else:
            for clone in clones:
                rig.blocks.clone(*clone)
        seen.append(numbers(rig, [key for _, key, _ in clones]))
        for _, key, _ in clones:
            rig.blocks.delete(key)
        if not protected and torn(seen[-1]):
            break
    return seen


@pytest.mark.local
@pytest.mark.timeout(900)
def test_no_group_has_a_later_write_without_an_earlier_one(btrfs: LoopRig) -> None:
    """With four writers at full depth beside the ordered one; copies one after the other are torn in the same run."""
    if throttle.missing():
        pytest.skip(f"the gate needs {throttle.missing()}")
    ordered = [btrfs.device(key, 1) for key in VOLUMES]
    with program("ordered", *ordered) as writer, program("random", *(btrfs.device(key, 1) for key in NOISE)):
        assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
        protected = groups(btrfs, GROUPS, protected=True)
        unprotected = groups(btrfs, TORN_WITHIN, protected=False)
        writer.send_signal(signal.SIGTERM)
        print(writer.stdout.readline())
    assert [found for found in protected if torn(found)] == []
    assert len({found[0] for found in protected}) > GROUPS // 2, "the writer hardly wrote"
    assert torn(unprotected[-1]), (
        f"{len(unprotected)} copies one after the other, and none is torn: this proves nothing"
    )


def held(rig: LoopRig) -> list[Held]:
    return [Held(int(rig.device(key, 1).removeprefix("/dev/loop")), NONE) for key in VOLUMES]


def rules(kind: str) -> set[str]:
    return set(throttle.rule_file(kind).read_text().splitlines())


@pytest.mark.local
@pytest.mark.parametrize("child", [True, False], ids=["its child lives", "everything dies"])
def test_a_kill_while_the_gate_is_closed_leaves_nobody_stuck(btrfs: LoopRig, child: bool) -> None:
    if throttle.missing():
        pytest.skip(f"the gate needs {throttle.missing()}")
    devices = held(btrfs)
    stopped = {f"{throttle.device_id(one.number)} 1" for one in devices}
    words = [str(one.number) for one in devices]
    with program("close-gate", str(btrfs.state), *words) as closing:
        assert closing.stdout is not None
        pid = int(closing.stdout.readline())
        assert stopped <= rules("write_bps")
        if not child:
            os.kill(pid, signal.SIGKILL)
        closing.kill()
        closing.wait(30)
    if not child:
        assert stopped <= rules("write_bps")
        btrfs.restart().reconcile(dict.fromkeys((*VOLUMES, *NOISE), 16 * MB), {})
    deadline = time.monotonic() + 20
    while rules("write_bps") & stopped:
        assert time.monotonic() < deadline, rules("write_bps")
        time.sleep(0.05)
    if child:
        with program("ordered", *(btrfs.device(key, 1) for key in VOLUMES)) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
        limits = Limits(bytes_per_second=MB)
        throttle.limit(devices[0].number, limits)
        assert gate.lift_left(btrfs.state)
        assert f"{throttle.device_id(devices[0].number)} {MB}" in rules("write_bps"), "a rule of later was taken back"
        throttle.limit(devices[0].number, NONE)
    assert gate.lift_left(btrfs.state) == []


@pytest.mark.local
def test_limits_are_what_they_were_when_the_gate_opens(btrfs: LoopRig) -> None:
    if throttle.missing():
        pytest.skip(f"the gate needs {throttle.missing()}")
    number = held(btrfs)[0].number
    limits = Limits(iops=700, bytes_per_second=5 * MB)
    throttle.limit(number, limits)
    try:
        device = throttle.device_id(number)
        inside: list[set[str]] = []
        Throttled(btrfs.state).copy([Held(number, limits)], lambda: inside.append(rules("write_bps")), lambda: None)
        assert f"{device} 1" in inside[0]
        assert f"{device} {5 * MB}" in rules("write_bps") and f"{device} 700" in rules("write_iops")
    finally:
        throttle.limit(number, NONE)
    assert not [rule for kind in throttle.rules(NONE) for rule in rules(kind) if rule.startswith(f"{device} ")]


@pytest.mark.local
def test_a_write_in_spite_of_the_gate_undoes_the_copy(btrfs: LoopRig) -> None:
    if throttle.missing():
        pytest.skip(f"the gate needs {throttle.missing()}")
    done: list[str] = []
    seen = [0]

    def copy() -> None:
        # As a child that lifts the gate too early.
        throttle.limit(held(btrfs)[0].number, NONE)
        with program("ordered", *(btrfs.device(key, 1) for key in VOLUMES)) as writer:
            assert writer.stdout is not None
            deadline = time.monotonic() + 20
            while numbers(btrfs, [1])[0] == seen[-1]:
                assert time.monotonic() < deadline
            seen.append(numbers(btrfs, [1])[0])
            throttle.limit(held(btrfs)[1].number, NONE)
            throttle.limit(held(btrfs)[2].number, NONE)
            throttle.limit(held(btrfs)[3].number, NONE)
            writer.stdout.readline()

    with pytest.raises(BlocksError, match="although the gate was closed"):
        Throttled(btrfs.state).copy(held(btrfs), copy, lambda: done.append("undone"))
    assert done == ["undone"] * len(done) and len(done) > 1


@pytest.mark.local
def test_without_a_throttle_a_group_under_writers_is_refused_and_one_at_rest_is_copied(btrfs: LoopRig) -> None:
    watched = Watched()
    made: list[str] = []

    def copy() -> None:
        made.append("copied")
        # As long as copies of four volumes take; the writer needs a tenth of it for one write.
        btrfs.blocks.clone(1, 90 + len(made), 16 * MB)

    with program("ordered", *(btrfs.device(key, 1) for key in VOLUMES)) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
        with pytest.raises(BlocksError, match="was written to during each"):
            watched.copy(held(btrfs), copy, lambda: made.append("undone"))
    assert made == ["copied", "undone"] * (len(made) // 2)
    made.clear()
    watched.copy(held(btrfs), lambda: made.append("copied"), lambda: made.append("undone"))
    assert made == ["copied"]
