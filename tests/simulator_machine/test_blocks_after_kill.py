"""SIGKILL at every system call of a sequence of changes; the next start finds everything and leaks nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from simulator.blocks.destroy import destroy
from simulator.blocks.links import all_links
from simulator.blocks.machine import LoopBlocks
from simulator.ports import Blocks, Links

if TYPE_CHECKING:
    from machine_rigs import LoopRig

pytest_plugins = ("machine_rigs",)
pytestmark = pytest.mark.local

MB = 1 << 20
HERE = Links(1, ("v1",), ("l.c.1",))
RENAMED = Links(1, ("v1new",), ("l.c.1",))
THERE = Links(2, (), ("l.c.1",))
CLONE = Links(2, ("clone",), ("l.c.2",))
FULL_COUNTS = os.environ.get("SPLAB_COUNTS") == "full"


@dataclass(frozen=True)
class Journalled:
    """What a journal says there is."""

    sizes: dict[int, int] = field(default_factory=dict)
    attached: dict[tuple[int, int], tuple[Links, bool]] = field(default_factory=dict)

    def grouped(self) -> dict[int, list[tuple[Links, bool]]]:
        groups: dict[int, list[tuple[Links, bool]]] = {}
        for (key, _), entry in self.attached.items():
            groups.setdefault(key, []).append(entry)
        return groups


@dataclass(frozen=True)
class Step:
    act: Callable[[Blocks], object]
    after: Callable[[Journalled], Journalled]
    first_journalled: bool = False
    """The journal has the change before its effect, as for deleting; else a change that was interrupted is not made."""


def sized(key: int, size: int | None) -> Callable[[Journalled], Journalled]:
    def change(before: Journalled) -> Journalled:
        rest = {other: value for other, value in before.sizes.items() if other != key}
        return replace(before, sizes=rest if size is None else rest | {key: size})

    return change


def linked(key: int, client: int, entry: tuple[Links, bool] | None) -> Callable[[Journalled], Journalled]:
    def change(before: Journalled) -> Journalled:
        rest = {place: value for place, value in before.attached.items() if place != (key, client)}
        return replace(before, attached=rest if entry is None else rest | {(key, client): entry})

    return change


STEPS = [
    Step(lambda b: b.create(1, 2 * MB), sized(1, 2 * MB)),
    Step(lambda b: b.write(1, 0, b"payload"), lambda before: before),
    Step(lambda b: b.attach(1, HERE, read_only=False), linked(1, 1, (HERE, False))),
    Step(lambda b: b.attach(1, THERE, read_only=True), linked(1, 2, (THERE, True))),
    Step(lambda b: b.clone(1, 2, 3 * MB), sized(2, 3 * MB)),
    Step(lambda b: b.resize(1, 4 * MB), sized(1, 4 * MB)),
    Step(lambda b: b.attach(1, RENAMED, read_only=False), linked(1, 1, (RENAMED, False))),
    Step(lambda b: b.attach(1, THERE, read_only=False), linked(1, 2, (THERE, False))),
    Step(lambda b: b.attach(2, CLONE, read_only=True), linked(2, 2, (CLONE, True))),
    Step(lambda b: b.detach(1, 1, force=False), linked(1, 1, None)),
    Step(lambda b: b.detach(1, 2, force=True), linked(1, 2, None), first_journalled=True),
    Step(lambda b: b.delete(1), sized(1, None), first_journalled=True),
]


def run_until_killed(state: Path, kind: str, begun: int, calls: int, *, from_start: bool = False) -> tuple[int, bool]:
    """In a child: reconcile, then the steps from `begun` on, with SIGKILL at the `calls`-th call that Python audits.

    With `from_start` there are no steps, and the calls that make the pool count. The number of steps that were done,
    and whether it was killed.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        left = calls

        def count(event: str, _arguments: object) -> None:
            nonlocal left
            if event.startswith(("os.", "fcntl.", "ctypes.", "open", "subprocess.")):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            if from_start:
                sys.addaudithook(count)
            blocks = LoopBlocks(state, kind=kind, size=512 * MB)
            if not from_start:
                sys.addaudithook(count)
            journal = Journalled()
            for step in STEPS[:begun]:
                journal = step.after(journal)
            blocks.reconcile(journal.sizes, journal.grouped())
            for step in [] if from_start else STEPS[begun:]:
                step.act(blocks)
                os.write(write, b".")
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    done = b""
    while part := os.read(read, 100):
        done += part
    os.close(read)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the child failed with status {status}"
    return begun + len(done), status != 0


def journal_after_kill(done: int) -> Journalled:
    journal = Journalled()
    for number, step in enumerate(STEPS):
        if number < done or (number == done and step.first_journalled):
            journal = step.after(journal)
    return journal


def assert_exactly(rig: LoopRig, blocks: Blocks, journal: Journalled) -> None:
    """Devices, links, sizes and contents are what the journal says, no more and no less."""
    devices = rig.devices()
    places = {tuple(map(int, status.tag.split(":")[2:])): status for status in devices}
    assert set(places) == set(journal.attached) and len(devices) == len(places)
    wanted: dict[Path, str] = {}
    for place, (links, read_only) in journal.attached.items():
        status = places[place]
        assert status.read_only == read_only and not status.leaving and not status.fenced
        folder = rig.state / "clients" / str(links.client)
        wanted |= {folder / "storpool" / name: status.path for name in links.names}
        wanted |= {folder / "storpool-byid" / name: status.path for name in links.by_id}
    assert {path: str(path.readlink()) for path in all_links(rig.state)} == wanted
    for key, size in journal.sizes.items():
        content = blocks.read(key, 0, size)
        assert len(content) == size
        if key == 2:
            assert content[:7] == b"payload"
    assert rig.objects() == sorted(journal.sizes)


def test_a_kill_at_any_system_call_leaks_nothing_and_loses_nothing(loop_machine: LoopRig) -> None:
    loop_machine.blocks.close()
    kills = 0
    for calls in range(1, 10_000, 1 if FULL_COUNTS else 16):
        done, killed = run_until_killed(loop_machine.state, loop_machine.kind, 0, calls)
        journal = journal_after_kill(done)
        blocks = loop_machine.restart()
        blocks.reconcile(journal.sizes, journal.grouped())
        assert_exactly(loop_machine, blocks, journal)
        assert loop_machine.restart().reconcile(journal.sizes, journal.grouped()) == []
        # Whoever starts it again carries out what is left, and what was interrupted once more.
        for step in STEPS[done:]:
            step.act(loop_machine.blocks)
        assert_exactly(loop_machine, loop_machine.blocks, journal_after_kill(len(STEPS)))
        loop_machine.restart().reconcile({}, {})
        loop_machine.blocks.close()
        if not killed:
            break
        kills += 1
    assert not killed and kills >= 6


def test_a_kill_while_the_pool_is_made_leaves_what_the_next_start_can_use(loop_machine: LoopRig) -> None:
    loop_machine.blocks.close()
    for calls in range(1, 10_000, 1 if FULL_COUNTS else 5):
        destroy(loop_machine.state)
        _, killed = run_until_killed(loop_machine.state, loop_machine.kind, 0, calls, from_start=True)
        if not killed:
            break
        blocks = loop_machine.restart()
        assert blocks.reconcile({}, {}) == []
        blocks.create(1, MB)
        blocks.close()
        assert not list(loop_machine.state.glob("pool-*.img"))
    assert not killed and calls > 20


def test_a_kill_while_the_pool_is_reconciled_is_mended_by_the_next_start(loop_machine: LoopRig) -> None:
    """The killed start is the one that mends what a killed run left, again and again."""
    loop_machine.blocks.close()
    done, _ = run_until_killed(loop_machine.state, loop_machine.kind, 0, 10_000)
    assert done == len(STEPS)
    journal = journal_after_kill(9)
    loop_machine.restart().reconcile({}, {})
    for step in STEPS[:9]:
        step.act(loop_machine.blocks)
    for calls in range(1, 60, 1 if FULL_COUNTS else 6):
        for link in all_links(loop_machine.state):
            link.unlink()
        extra = loop_machine.restart()
        extra.reconcile(journal.sizes, {1: [(HERE, False)]})
        extra.close()
        run_until_killed(loop_machine.state, loop_machine.kind, 9, calls)
    blocks = loop_machine.restart()
    blocks.reconcile(journal.sizes, journal.grouped())
    assert_exactly(loop_machine, blocks, journal)
