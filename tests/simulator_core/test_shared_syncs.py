"""Changes that share one sync of the journal: who is told what and when, and what a kill leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from simulator.cluster.effects import Failure
from simulator.effects import Done, Work
from simulator.inprocess import ApiError, InProcess
from simulator.ports import JournalError

MB = 1 << 20
QUERIES = ("VolumesList", "SnapshotsList", "AttachmentsList")


class Turns:
    """An event loop that turns when the test says so, around a simulator whose effects are done by hand or at once."""

    def __init__(self, *, by_hand: bool = False) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.works: list[tuple[Work, Done]] = []
        self.simulator = InProcess(effects=self if by_hand else None, later=self.waiting.append)

    def start(self, work: Work, done: Done) -> None:
        self.works.append((work, done))

    def work(self) -> Failure | None:
        work, done = self.works.pop(0)
        outcome = work()
        done(outcome)
        return outcome

    def turn(self) -> None:
        """What was put off until the calls that came together are served."""
        waiting, self.waiting[:] = list(self.waiting), []
        for call in waiting:
            call()

    def settle(self) -> None:
        while self.waiting or self.works:
            self.turn()
            while self.works:
                self.work()

    def kill(self) -> None:
        self.waiting.clear()
        self.works.clear()
        self.simulator.restart()

    def post(self, path: str, body: bytes = b"") -> Any:
        asked = self.simulator.ask("POST", path, body)
        self.settle()
        return asked.data

    def shown(self) -> list[Any]:
        return [self.simulator.get(query) for query in QUERIES]


def counted(turns: Turns) -> list[int]:
    """Grows by one number, of the records on disk, with each sync."""
    journal, syncs = turns.simulator.journal, []
    sync = journal.sync

    def count() -> None:
        sync()
        syncs.append(journal._synced)

    journal.sync = count  # type: ignore[method-assign]  # a memory journal has no other way to tell
    return syncs


def test_calls_of_one_turn_share_a_sync_and_nobody_hears_of_a_change_before_it() -> None:
    turns = Turns()
    turns.post("VolumeCreate", b'{"name": "v", "size": 512}')
    syncs = counted(turns)
    made = [turns.simulator.ask("POST", "VolumeCreate", b'{"name": "v%d", "size": 512}' % at) for at in range(8)]
    tagged = turns.simulator.ask("POST", "VolumeUpdate/v", b'{"tags": {"a": "b"}}')
    twin = turns.simulator.ask("POST", "VolumeCreate", b'{"name": "v3", "size": 512}')
    listed = turns.simulator.ask("GET", "VolumesList")
    after = turns.simulator.ask("POST", "VolumeUpdate/v", b'{"tags": {"a": "c"}}')
    asked = [*made, tagged, twin, listed, after]
    assert [each.reply for each in asked] == [None] * len(asked) and syncs == []
    turns.turn()
    assert len(syncs) == 1
    generations = [each.envelope()["generation"] for each in [*made, tagged]]
    assert generations == sorted(set(generations))
    with pytest.raises(ApiError, match="objectExists"):
        twin.envelope()
    # As it was when it was asked for, by the data and by the generation.
    assert listed.envelope()["generation"] == generations[-1] and len(listed.data) == 9
    assert listed.data[0]["tags"] == {"a": "b"}
    assert turns.waiting == [] and turns.simulator.ask("GET", "VolumesList").data[0]["tags"] == {"a": "c"}


CHANGES: dict[str, tuple[str, bytes]] = {
    "create": ("VolumeCreate", b'{"name": "n", "size": 512}'),
    "copy": ("VolumeCreate", b'{"name": "n", "baseOn": "a"}'),
    "snapshot": ("VolumeSnapshot/a", b'{"name": "n"}'),
    "group": ("VolumesGroupSnapshot", b'{"volumes": [{"volume": "a"}, {"volume": "b"}]}'),
    "tag": ("VolumeUpdate/a", b'{"tags": {"a": "b"}}'),
    "shrink": ("VolumeUpdate/b", b'{"size": 512, "shrinkOk": true}'),
    "grow": ("VolumeUpdate/b", b'{"sizeAdd": 1048576}'),
    "move": ("VolumesReassignWait", b'[{"volume": "a", "detach": [1], "rw": [2]}, {"volume": "b", "ro": [2]}]'),
    "revert": ("VolumeRevert/b", b'{"toSnapshot": "s"}'),
    "delete": ("VolumeDelete/b", b""),
}


def prepared() -> Turns:
    turns = Turns(by_hand=True)
    for name in (b"a", b"b"):
        turns.post("VolumeCreate", b'{"name": "%s", "size": 1048576}' % name)
    turns.post("VolumesReassignWait", b'[{"volume": "a", "rw": [1]}]')
    turns.post("VolumeSnapshot/a", b'{"name": "s"}')
    turns.simulator.time += 1
    return turns


@pytest.mark.parametrize("steps", range(5))
@pytest.mark.parametrize("change", CHANGES)
def test_a_kill_at_any_step_leaves_all_or_nothing_and_all_of_what_was_told(change: str, steps: int) -> None:
    turns = prepared()
    before = turns.shown()
    told = turns.simulator.ask("POST", *CHANGES[change])
    for at in range(steps):
        if at % 2 == 0:
            turns.turn()
        elif turns.works:
            turns.work()
    acknowledged = told.reply is not None
    turns.kill()
    left = turns.shown()
    turns.settle()
    whole = prepared()
    whole.post(*CHANGES[change])
    assert left in (before, whole.shown())
    if acknowledged:
        assert left == whole.shown()
    sizes = {entry["id"]: entry["size"] for entry in turns.simulator.get("VolumesAndSnapshotsList")["volumes"]}
    assert {key: turns.simulator.blocks.size(key) for key in turns.simulator.blocks.objects()} == sizes
    # What was begun and never told of may have had the number that comes next.
    turns.post("VolumeCreate", b'{"name": "afterwards", "size": 512}')
    turns.kill()
    assert turns.simulator.service.mended == [] and turns.simulator.get("Volume/afterwards")[0]["size"] == 512


def test_only_what_cannot_be_undone_waits_until_its_record_is_on_disk() -> None:
    for name, (path, body) in CHANGES.items():
        turns = prepared()
        syncs = counted(turns)
        turns.simulator.ask("POST", path, body)
        late = not turns.works
        turns.turn()
        if turns.works:
            assert (late, len(syncs)) == ((True, 1) if name in ("shrink", "delete") else (False, 0)), name


def test_when_the_shared_sync_fails_nobody_is_told_of_a_success_and_nothing_is_begun() -> None:
    turns = prepared()
    durable = turns.shown()

    def fail() -> None:
        raise JournalError("disk gone")

    sync: Callable[[], None] = turns.simulator.journal.sync
    turns.simulator.journal.sync = fail  # type: ignore[method-assign]  # the one way to make a memory journal fail
    asked = [
        turns.simulator.ask("POST", "VolumeUpdate/a", b'{"tags": {"a": "b"}}'),
        turns.simulator.ask("POST", "VolumeUpdate/b", b'{"size": 512, "shrinkOk": true}'),
        turns.simulator.ask("GET", "VolumesList"),
    ]
    turns.turn()
    for each in asked:
        with pytest.raises(ApiError, match="disk gone"):
            each.envelope()
    assert turns.works == []
    turns.simulator.journal.sync = sync  # type: ignore[method-assign]  # as above
    turns.kill()
    assert turns.shown() == durable
