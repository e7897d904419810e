"""Changes under way: what readers see, who waits for whom, and what is left after a kill at any point."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from simulator.blocks.memory import MemoryBlocks
from simulator.cluster.cluster import replay
from simulator.cluster.effects import Failure
from simulator.cluster.records import Committed, JournalRecord, Prepared
from simulator.effects import Done, Work
from simulator.inprocess import TOKEN, ApiError, InProcess
from simulator.ports import BlocksError, DeviceBusy, JournalError, OutOfSpace
from simulator.service import Service
from simulator.settings import Settings

MB = 1 << 20


class ByHand:
    """Effects that are done when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Work, Done]] = []

    def start(self, work: Work, done: Done) -> None:
        self.waiting.append((work, done))

    def finish(self, at: int = 0) -> Failure | None:
        work, done = self.waiting.pop(at)
        outcome = work()
        done(outcome)
        return outcome

    def finish_all(self) -> None:
        while self.waiting:
            self.finish()


@pytest.fixture
def effects() -> ByHand:
    return ByHand()


@pytest.fixture
def simulator(effects: ByHand) -> InProcess:
    return InProcess(effects=effects)


def names(simulator: InProcess) -> list[str]:
    return [volume["name"] for volume in simulator.get("VolumesList")]


def test_readers_see_a_change_only_when_it_is_committed(simulator: InProcess, effects: ByHand) -> None:
    made = simulator.ask("POST", "VolumeCreate", b'{"name": "v", "size": 512}')
    assert made.reply is None and names(simulator) == []
    with pytest.raises(ApiError, match="objectDoesNotExist"):
        simulator.get("Volume/v")
    effects.finish()
    assert made.data["ok"] and names(simulator) == ["v"]


def test_calls_for_one_object_wait_their_turn_and_others_pass(simulator: InProcess, effects: ByHand) -> None:
    simulator.ask("POST", "VolumeCreate", b'{"name": "v", "size": 512}')
    twin = simulator.ask("POST", "VolumeCreate", b'{"name": "v", "size": 1024}')
    other = simulator.ask("POST", "VolumeCreate", b'{"name": "w", "size": 512}')
    assert len(effects.waiting) == 2
    effects.finish(1)
    assert other.data["ok"] and twin.reply is None
    effects.finish()
    with pytest.raises(ApiError, match="objectExists"):
        twin.envelope()
    # Three in line for one volume: a snapshot, a growth, a deletion; each sees what the one before it left.
    taken = simulator.ask("POST", "VolumeSnapshot/v", b'{"name": "s"}')
    grown = simulator.ask("POST", "VolumeUpdate/v", b'{"sizeAdd": 512}')
    gone = simulator.ask("POST", "VolumeDelete/v")
    late = simulator.ask("POST", "VolumeUpdate/v", b'{"tags": {"a": "b"}}')
    assert len(effects.waiting) == 1
    effects.finish()
    assert taken.data["ok"] and (grown.reply, gone.reply, late.reply) == (None, None, None)
    effects.finish_all()
    assert grown.data["generation"] + 1 == gone.data["generation"]
    with pytest.raises(ApiError, match="objectDoesNotExist"):
        late.envelope()
    assert simulator.get("Snapshot/s")[0]["size"] == 512
    assert simulator.blocks.objects() == [2, 3]


def test_a_name_that_a_waiting_call_wants_is_not_given_to_a_later_one(simulator: InProcess, effects: ByHand) -> None:
    simulator.ask("POST", "VolumeCreate", b'{"name": "v", "size": 512}')
    effects.finish()
    simulator.ask("POST", "VolumeSnapshot/v", b'{"name": "s"}')
    renamed = simulator.ask("POST", "VolumeUpdate/v", b'{"rename": "w"}')
    created = simulator.ask("POST", "VolumeCreate", b'{"name": "w", "size": 1024}')
    effects.finish_all()
    assert renamed.data["ok"]
    with pytest.raises(ApiError, match="objectExists"):
        created.envelope()
    assert names(simulator) == ["w"]


def test_clones_of_one_snapshot_run_together_and_its_deletion_waits(simulator: InProcess, effects: ByHand) -> None:
    simulator.post("PlacementGroupUpdate/g", {"addDisks": [101, 201, 301]})
    simulator.post("VolumeTemplateCreate", {"name": "t", "placeAll": "g"})
    simulator.ask("POST", "VolumeCreate", b'{"name": "v", "size": 512}')
    effects.finish()
    simulator.ask("POST", "VolumeSnapshot/v", b'{"name": "s"}')
    effects.finish()
    for name in (b"one", b"two"):
        simulator.ask("POST", "VolumeCreate", b'{"name": "%s", "parent": "s", "template": "t"}' % name)
    assert len(effects.waiting) == 2
    held_up = [
        simulator.ask("POST", path) for path in ("SnapshotDelete/s", "VolumeTemplateDelete/t", "PlacementGroupDelete/g")
    ]
    third = simulator.ask("POST", "VolumeCreate", b'{"name": "three", "parent": "s"}')
    assert len(effects.waiting) == 2
    effects.finish_all()
    assert held_up[0].data["ok"]
    for asked in held_up[1:]:
        with pytest.raises(ApiError, match="busy"):
            asked.envelope()
    with pytest.raises(ApiError, match="objectDoesNotExist"):
        third.envelope()


def test_a_reset_answers_those_who_wait_and_is_refused_while_work_is_under_way(
    simulator: InProcess, effects: ByHand
) -> None:
    simulator.ask("POST", "VolumeCreate", b'{"name": "v", "size": 512}')
    with pytest.raises(ApiError, match="busy"):
        simulator.post("/_sim/reset")
    effects.finish()
    simulator.ask("POST", "/_sim/client/1", b'{"running": false}')
    waiting = simulator.ask("GET", "ClientConfigWait/1")
    simulator.post("/_sim/reset")
    with pytest.raises(ApiError, match="unavailable"):
        waiting.envelope()
    assert names(simulator) == []


def test_a_caller_that_goes_away_does_not_stop_its_change(simulator: InProcess, effects: ByHand) -> None:
    made = simulator.ask("POST", "VolumeCreate", b'{"name": "v", "size": 512}')
    simulator.service.cancel(made.number)
    effects.finish()
    assert made.reply is None and names(simulator) == ["v"]


def test_what_is_due_waits_for_a_change_on_the_same_objects(simulator: InProcess, effects: ByHand) -> None:
    simulator.ask("POST", "VolumeCreate", b'{"name": "v", "size": 512}')
    effects.finish()
    simulator.ask("POST", "VolumeSnapshot/v", b'{"name": "s"}')
    effects.finish()
    simulator.ask("POST", "SnapshotDelete/s")
    growing = simulator.ask("POST", "VolumeUpdate/v", b'{"sizeAdd": 512}')
    simulator.advance(5)
    pause = simulator.service.tick()
    assert pause is not None and 0 < pause < 1
    assert len(simulator.get("SnapshotsList")) == 1
    effects.finish()
    simulator.service.tick()
    effects.finish_all()
    assert growing.data["ok"] and simulator.get("SnapshotsList") == []
    assert (simulator.get("Volume/v")[0]["size"], simulator.get("Volume/v")[0]["parentName"]) == (1024, "")


def busy_client(simulator: InProcess) -> None:
    for name in "ab":
        simulator.post("VolumeCreate", {"name": name, "size": MB})
        simulator.blocks.write(int(simulator.get(f"Volume/{name}")[0]["id"]), 0, name.encode() * 4096)
    simulator.post("VolumesReassignWait", [{"volume": "a", "rw": [1]}])
    simulator.post("VolumeSnapshot/a", {"name": "s"})


CHANGES: dict[str, tuple[str, bytes]] = {
    "create": ("VolumeCreate", b'{"name": "n", "size": 512}'),
    "create from parent": ("VolumeCreate", b'{"name": "n", "parent": "s", "size": 2097152}'),
    "copy": ("VolumeCreate", b'{"name": "n", "baseOn": "a"}'),
    "snapshot": ("VolumeSnapshot/a", b'{"name": "n"}'),
    "grow": ("VolumeUpdate/b", b'{"sizeAdd": 1048576}'),
    "shrink": ("VolumeUpdate/b", b'{"size": 512, "shrinkOk": true}'),
    "rename": ("VolumeUpdate/a", b'{"rename": "n"}'),
    "move": ("VolumesReassignWait", b'[{"volume": "a", "detach": [1], "rw": [2]}, {"volume": "b", "ro": [2]}]'),
    "revert": ("VolumeRevert/b", b'{"toSnapshot": "s"}'),
    "delete": ("VolumeDelete/b", b""),
    "detach and delete": ("VolumeDelete/a", b'{"onAttached": "detachForce"}'),
}


@pytest.mark.parametrize("done", [False, True], ids=["effects not done", "effects done"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_kill_between_intent_and_commit_leaves_before_or_after_and_no_litter(change: str, done: bool) -> None:
    effects = ByHand()
    simulator = InProcess(effects=effects)
    path, body = CHANGES[change]

    def prepare(on: InProcess) -> None:
        on._effects = None  # the set-up's effects are done at once
        on.restart()
        busy_client(on)
        on._effects = effects
        on.restart()

    prepare(simulator)
    before = simulator.service.encoded_state()
    asked = simulator.ask("POST", path, body)
    if done and effects.waiting:
        work, _ = effects.waiting[0]
        assert work() is None
    acknowledged = asked.reply is not None
    decode = msgspec.msgpack.Decoder(JournalRecord).decode
    intents = [record for record in map(decode, simulator.journal.replay()) if isinstance(record, Prepared)]
    simulator._effects = None
    simulator.restart()
    sizes = {entry["id"]: entry["size"] for entry in simulator.get("VolumesAndSnapshotsList")["volumes"]}
    assert {key: simulator.blocks.size(key) for key in simulator.blocks.objects()} == sizes
    assert {name for client in (1, 2) for name in simulator.blocks.links(client)} == {
        entry["volume"] for entry in simulator.get("AttachmentsList")
    }
    if acknowledged or change == "shrink":
        assert simulator.service.encoded_state() != before
        if change == "shrink":
            assert simulator.get("Volume/b")[0]["size"] == 512
    else:
        shown = [simulator.get(query) for query in ("VolumesList", "SnapshotsList", "AttachmentsList")]
        plain = InProcess()
        busy_client(plain)
        assert shown == [plain.get(query) for query in ("VolumesList", "SnapshotsList", "AttachmentsList")]
    # A new object never gets a number that the interrupted change may have used.
    simulator.post("VolumeCreate", {"name": "afterwards", "size": 512})
    assert simulator.get("Volume/afterwards")[0]["id"] >= intents[-1].next_serial
    simulator.restart()
    assert simulator.service.mended == []


def test_replaying_twice_and_restoring_a_snapshot_give_equal_states(simulator: InProcess, effects: ByHand) -> None:
    decode = msgspec.msgpack.Decoder(JournalRecord).decode
    for path, body in CHANGES.values():
        simulator.ask("POST", path, body)
        effects.finish_all()
    records = [decode(record) for record in simulator.journal.replay()]
    assert sum(isinstance(record, Prepared) for record in records) > 0
    first, settling = replay(records)
    second, _ = replay(records)
    assert first.encode() == second.encode() == simulator.service.encoded_state() and settling == []
    restored, _ = replay([first.snapshot_record()])
    assert restored.encode() == first.encode()
    for index in ("names", "global_ids", "children", "positions", "watched", "volumes_by_visible_id"):
        ours = {key: value for key, value in getattr(first, index).items() if value != {}}
        assert ours == getattr(restored, index)


def test_the_journal_is_compacted_and_still_says_the_same() -> None:
    simulator = InProcess(Settings(compact_every=10))
    for number in range(40):
        simulator.post("VolumeCreate", {"name": f"v{number}", "size": 512})
    state = simulator.service.encoded_state()
    assert len(list(simulator.journal.replay())) <= 12
    simulator.restart()
    assert simulator.service.encoded_state() == state


class Faulty(MemoryBlocks):
    """Fails the given method once it was called `after` times."""

    def __init__(self, method: str, error: Exception, after: int = 0) -> None:
        super().__init__(1 << 40)
        self._method, self._error, self._after = method, error, after
        self.armed = False

    def _maybe(self, method: str) -> None:
        if self.armed and method == self._method:
            if self._after == 0:
                raise self._error
            self._after -= 1

    def clone(self, source: int, key: int, size: int) -> None:
        self._maybe("clone")
        super().clone(source, key, size)

    def create(self, key: int, size: int) -> None:
        self._maybe("create")
        super().create(key, size)

    def delete(self, key: int) -> None:
        self._maybe("delete")
        super().delete(key)


def faulty(method: str, error: Exception, after: int = 0) -> tuple[InProcess, Faulty]:
    simulator = InProcess()
    blocks = Faulty(method, error, after)
    simulator.blocks = blocks
    simulator.restart()
    busy_client(simulator)
    blocks.armed = True
    return simulator, blocks


@pytest.mark.parametrize(
    ("method", "error", "after", "path", "body", "name"),
    [
        ("create", OutOfSpace("full"), 0, "VolumeCreate", {"name": "n", "size": 512}, "insufficientResources"),
        ("clone", OutOfSpace("full"), 1, "VolumeCreate", {"baseOn": "a"}, "insufficientResources"),
        ("clone", BlocksError("broken"), 0, "VolumeRevert/b", {"toSnapshot": "s"}, "internalError"),
        ("clone", OSError(5, "I/O error"), 0, "VolumeSnapshot/a", {}, "internalError"),
    ],
)
def test_a_failed_effect_is_an_error_and_nothing_is_left_of_it(
    method: str, error: Exception, after: int, path: str, body: dict[str, object], name: str
) -> None:
    simulator, blocks = faulty(method, error, after)
    shown = [simulator.get(query) for query in ("VolumesList", "SnapshotsList", "AttachmentsList")]
    keys = blocks.objects()
    with pytest.raises(ApiError) as refused:
        simulator.post(path, body)
    assert refused.value.name == name
    assert [simulator.get(query) for query in ("VolumesList", "SnapshotsList", "AttachmentsList")] == shown
    assert blocks.objects() == keys
    blocks.armed = False
    simulator.post(path, body)


def test_a_deletion_that_the_machine_refuses_is_tried_again_ever_more_seldom() -> None:
    simulator, blocks = faulty("delete", DeviceBusy("still open"))
    simulator.post("VolumeDelete/b")
    pauses = []
    for _ in range(8):
        pause = simulator.service.tick()
        assert pause is not None
        pauses.append(round(pause))
        simulator.advance(pause)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    blocks.armed = False
    assert simulator.service.tick() is None
    assert 2 not in blocks.objects()


def test_when_the_journal_fails_nothing_is_acknowledged_and_nothing_more_is_served() -> None:
    simulator = InProcess()
    simulator.post("VolumeCreate", {"name": "v", "size": 512})

    def fail() -> None:
        raise JournalError("disk gone")

    sync: Callable[[], None] = simulator.journal.sync
    simulator.journal.sync = fail  # type: ignore[method-assign]  # the one way to make a memory journal fail
    for path in ("VolumeUpdate/v", "VolumeDelete/v"):
        with pytest.raises(ApiError, match="disk gone") as refused:
            simulator.post(path, {"tags": {"a": "b"}} if path == "VolumeUpdate/v" else None)
        assert (refused.value.name, refused.value.status) == ("unavailable", 503)
    with pytest.raises(ApiError, match="unavailable"):
        simulator.get("VolumesList")
    simulator.journal.sync = sync  # type: ignore[method-assign]  # as above
    simulator.restart()
    assert simulator.get("Volume/v")[0]["tags"] == {}


def test_the_token_shows_in_no_representation() -> None:
    simulator = InProcess()
    assert isinstance(simulator.service, Service)
    shown = repr(simulator.service) + repr(vars(simulator.service)["_cluster"]) + repr(Committed(1))
    assert TOKEN not in shown
