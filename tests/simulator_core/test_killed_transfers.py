"""Clusters that die in the middle of a move, a copy or a backup: at every write to either journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from core_rig import TWO_CLUSTERS

from simulator.api import errors, wire
from simulator.effects import Done as DoneCallback
from simulator.effects import Work
from simulator.inprocess import ApiError, InProcess, connected
from simulator.journal.memory import MemoryJournal
from simulator.multicluster.exchange import Exchange
from simulator.ports import Reply, Request, Withdraw, nothing_waits

GIB = 1 << 30
DEAD = wire.refusal(errors.unavailable("It died"))


class Killed(BaseException):
    """The process is gone; nothing that runs may catch this."""


class Fatal(MemoryJournal):
    """Dies at the n-th sync, before or after it counts, and at each one after that."""

    def __init__(self, source: MemoryJournal) -> None:
        super().__init__(source.replay())
        self.syncs = 0
        self.fatal = 0
        self.durable = False
        """Whether the fatal one still counts."""

    def sync(self) -> None:
        self.syncs += 1
        if self.fatal and self.syncs >= self.fatal:
            if self.durable and self.syncs == self.fatal:
                super().sync()
            raise Killed
        super().sync()


class Apart(Exchange):
    """As between processes: whoever asks a cluster that dies is told so."""

    def _deliver(self, cluster: str, request: Request, reply: Callable[[Reply], None]) -> Withdraw:
        try:
            return super()._deliver(cluster, request, reply)
        except Killed:
            self.leave(cluster)
            reply(DEAD)
            return nothing_waits


class Pair:
    def __init__(self, exchange: Exchange) -> None:
        self.here, self.there = connected(*TWO_CLUSTERS, exchange=exchange)
        self.exchange = exchange
        self.both = (self.here, self.there)
        made = self.here.post("VolumeCreate", {"name": "v", "size": GIB})
        self.volume = str(made["globalId"])
        self.write(0, b"old")
        self.snapshot = str(self.here.post("VolumeSnapshot/v", {"name": "s"})["snapshotGlobalId"])
        self.write(8192, b"new")

    def write(self, offset: int, data: bytes) -> None:
        self.here.blocks.write(self.here.service.object_keys()[self.volume], offset, data)

    def arm(self) -> None:
        """Put the journals that can kill in place of the ordinary ones."""
        for one in self.both:
            one.journal = Fatal(one.journal)
            one.restart()

    def revive(self, dead: list[InProcess]) -> None:
        for one in dead:
            one.journal = MemoryJournal(one.journal.replay())
            one.restart()
            assert all("removed object" in line for line in one.service.mended), one.service.mended
        for _ in range(4):
            for one in self.both:
                one.advance(15)
                one.service.tick()

    def contents(self, cluster: InProcess, global_id: str) -> bytes:
        return cluster.blocks.read(cluster.service.object_keys()[global_id], 0, 16384)

    def check_at_rest(self) -> None:
        for one in self.both:
            assert sorted(one.blocks.objects()) == sorted(one.service.object_keys().values())
            due = one.service.tick()
            assert due is None or due > one.settings.transfer_check_seconds, "something is in doubt for ever"
            for found in one.get("VolumesList"):
                assert "volumeMoveSource" not in found


def move(pair: Pair) -> None:
    pair.here.post("VolumeMoveToRemote/v", {"clusterId": "aa.c"})


def acquire(pair: Pair) -> None:
    pair.there.post("MultiCluster/VolumeAcquire/v", {})


def copy(pair: Pair) -> None:
    pair.here.post("SnapshotExport", {"snapshot": "s", "location": "sofia"})
    pair.there.post("SnapshotFromRemote", {"remoteLocation": "sofia", "remoteId": pair.snapshot})


def back_up(pair: Pair) -> None:
    pair.here.post("VolumeBackup", {"volume": "v", "location": "sofia"})


class Done(NamedTuple):
    answered: bool
    dead: list[InProcess]


def carry_out(pair: Pair, what: Callable[[Pair], None], victims: tuple[InProcess, ...]) -> Done:
    """Whether the client was told that it is done, and who must be started again."""
    try:
        what(pair)
    except Killed:
        return Done(False, list(victims))
    except ApiError as error:
        assert error.name == "unavailable", error
        return Done(False, list(victims))
    died = [one for one in victims if isinstance(one.journal, Fatal) and one.journal.syncs >= one.journal.fatal > 0]
    return Done(True, died)


@pytest.mark.parametrize("durable", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("victim", ["here", "there", "process"])
@pytest.mark.parametrize("what", [move, acquire, copy, back_up])
def test_a_death_at_any_write_loses_nothing_and_leaves_nothing(
    what: Callable[[Pair], None], victim: str, durable: bool
) -> None:
    kills = 0
    for sides in ("here", "there") if victim == "process" else (victim,):
        for at in range(1, 20):
            pair = Pair(Exchange() if victim == "process" else Apart())
            pair.arm()
            journal = getattr(pair, sides).journal
            journal.fatal, journal.durable = at, durable
            victims = pair.both if victim == "process" else (getattr(pair, sides),)
            done = carry_out(pair, what, victims)
            if journal.syncs < at:
                break
            kills += 1
            pair.revive(done.dead or list(victims))
            check(pair, what, answered=done.answered)
    assert kills > 0


def check(pair: Pair, what: Callable[[Pair], None], *, answered: bool) -> None:
    pair.check_at_rest()
    homes = [one for one in pair.both if pair.volume in one.service.object_keys()]
    assert len(homes) == 1, "the volume is in one cluster"
    assert pair.contents(homes[0], pair.volume) == b"old".ljust(8192, b"\0") + b"new".ljust(8192, b"\0")
    if what in (move, acquire):
        assert homes[0] is pair.there or not answered
        assert pair.contents(homes[0], pair.snapshot) == b"old".ljust(16384, b"\0")
        if homes[0] is pair.here:
            what(pair)
        assert pair.volume in pair.there.service.object_keys()
    elif what is copy:
        assert homes[0] is pair.here
        if pair.snapshot in pair.there.service.object_keys():
            assert pair.contents(pair.there, pair.snapshot) == pair.contents(pair.here, pair.snapshot)
        else:
            assert not answered
    else:
        pair.here.advance(4000)
        pair.here.service.tick()
        pair.here.advance(10)
        pair.here.service.tick()
        assert [one["name"] for one in pair.here.get("SnapshotsList")] == ["s"], "only the backup may stay"
        assert pair.here.get("ExportsList")["exports"] == []
        backups = pair.there.get("SnapshotsList")
        assert backups or not answered
        for found in backups:
            assert pair.contents(pair.there, found["globalId"])[:3] == b"old"
    pair.check_at_rest()


class Slow:
    """Effects that wait until they are let go."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Work, DoneCallback]] = []

    def start(self, work: Work, done: DoneCallback) -> None:
        self.waiting.append((work, done))

    def finish(self) -> None:
        for work, done in self.waiting:
            done(work())
        self.waiting.clear()


def test_a_move_that_takes_long_is_left_alone_by_the_cluster_that_wonders() -> None:
    pair, slow = Pair(Exchange()), Slow()
    pair.there = InProcess(pair.there.settings, exchange=pair.exchange, effects=slow)
    asked = pair.here.ask("POST", "VolumeMoveToRemote/v", b'{"clusterId": "aa.c"}')
    for _ in range(5):
        pair.here.advance(15)
        pair.here.service.tick()
    assert asked.reply is None
    for call, body in (
        ("VolumeUpdate/v", {"tags": {"a": "b"}}),
        ("VolumeCreate", {"parent": "s"}),
        ("VolumeDelete/v", {}),
    ):
        with pytest.raises(ApiError, match=r"is moving to cluster aa\.c"):
            pair.here.post(call, body)
    with pytest.raises(ApiError, match="already"):
        pair.here.post("VolumeMoveToRemote/v", {"clusterId": "aa.c"})
    slow.finish()
    asked.envelope()
    slow.finish()
    assert pair.volume in pair.there.service.object_keys()
    assert pair.volume not in pair.here.service.object_keys()
