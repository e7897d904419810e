"""Moves over bridges that lose, repeat and delay messages, between clusters that die: one owner, and no update lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import hypothesis.strategies as st
from core_rig import TWO_CLUSTERS
from hypothesis import given, settings

from simulator.api import errors, wire
from simulator.inprocess import ApiError, InProcess, connected
from simulator.multicluster.exchange import Exchange
from simulator.ports import Reply, Request, Withdraw, nothing_waits

GIB = 1 << 30
LOST = wire.refusal(errors.unavailable("No answer"))
MOVES = ("Depart", "Departed", "Stay", "Arrived", "Acquire")
FATES = ("arrives", "arrives", "arrives", "request lost", "answer lost", "late", "twice")


class Unreliable(Exchange):
    """Does to the messages of moves what `fates` say, and nothing once they are used up."""

    def __init__(self, fates: Iterator[str]) -> None:
        super().__init__()
        self._fates = fates
        self.late: list[tuple[str, Request]] = []

    def submit(self, cluster: str, request: Request, reply: Callable[[Reply], None]) -> Withdraw:
        fate = next(self._fates, "arrives") if request.path.rpartition("/")[2] in MOVES else "arrives"
        if fate == "request lost":
            reply(LOST)
        elif fate == "late":
            self.late.append((cluster, request))
            reply(LOST)
        elif fate == "answer lost":
            super().submit(cluster, request, lambda _reply: reply(LOST))
        else:
            if fate == "twice":
                super().submit(cluster, request, lambda _reply: None)
            return super().submit(cluster, request, reply)
        return nothing_waits

    def deliver_late(self) -> None:
        late, self.late = self.late, []
        for cluster, request in late:
            super().submit(cluster, request, lambda _reply: None)


class Clouds:
    def __init__(self, fates: list[str]) -> None:
        self.exchange = Unreliable(iter(fates))
        self.both = connected(*TWO_CLUSTERS, exchange=self.exchange)
        self.volume = str(self.both[0].post("VolumeCreate", {"name": "v", "size": GIB})["globalId"])
        self.both[0].post("VolumeSnapshot/v", {"name": "s"})
        self.acknowledged = 0
        self.tried = 0

    def step(self, what: str, at: int) -> None:
        cluster = self.both[at]
        if what == "move":
            other = self.both[1 - at]
            self._try(cluster, f"VolumeMoveToRemote/~{self.volume}", {"clusterId": other.settings.cluster_id})
        elif what == "acquire":
            self._try(cluster, f"MultiCluster/VolumeAcquire/~{self.volume}", {})
        elif what == "update":
            self.tried += 1
            if self._try(cluster, f"VolumeUpdate/~{self.volume}", {"tags": {"n": str(self.tried)}}):
                key = cluster.service.object_keys()[self.volume]
                cluster.blocks.write(key, 0, b"%8d" % self.tried)
                self.acknowledged = self.tried
        elif what == "kill":
            cluster.restart()
        elif what == "late":
            self.exchange.deliver_late()
        else:
            self.tick()

    def _try(self, cluster: InProcess, path: str, body: object) -> bool:
        try:
            cluster.post(path, body)
        except ApiError as error:
            assert error.name in ("unavailable", "busy", "objectDoesNotExist"), error
            return False
        return True

    def tick(self) -> None:
        for one in self.both:
            one.advance(15)
            one.service.tick()


STEPS = st.tuples(st.sampled_from(["move", "acquire", "update", "update", "kill", "late", "tick"]), st.integers(0, 1))


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(STEPS, min_size=5, max_size=25), fates=st.lists(st.sampled_from(FATES), max_size=40))
def test_an_acknowledged_update_is_in_the_one_cluster_that_has_the_volume(
    steps: list[tuple[str, int]], fates: list[str]
) -> None:
    clouds = Clouds(fates)
    for what, at in steps:
        clouds.step(what, at)
    clouds.exchange.deliver_late()
    clouds.exchange._fates = iter(())
    for _ in range(4):
        clouds.tick()
        clouds.exchange.deliver_late()
    homes = [one for one in clouds.both if clouds.volume in one.service.object_keys()]
    assert len(homes) == 1
    [shown] = homes[0].get(f"Volume/~{clouds.volume}")
    assert "volumeMoveSource" not in shown
    assert int(shown["tags"].get("n", 0)) == clouds.acknowledged
    if clouds.acknowledged:
        key = homes[0].service.object_keys()[clouds.volume]
        assert homes[0].blocks.read(key, 0, 8) == b"%8d" % clouds.acknowledged
    for one in clouds.both:
        assert sorted(one.blocks.objects()) == sorted(one.service.object_keys().values())
        one.restart()
        assert one.service.mended == []
