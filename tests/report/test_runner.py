"""The runner's judgement: what passes, what fails and why, and that nothing keeps the rest from being run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import pytest

from harness.observers import Cloud, CloudApiError, Environment, Guest, Host, Json, Pool, Secondary, StorPool, World
from harness.recording import TIMELINE_LIMIT, Recorder
from harness.report.result import Outcome, Result, collect
from harness.report.stream import Event, Timeline
from harness.run import Body, Runner, Selection, select
from scenarios.registry import Case


@dataclass
class TinyWorld:
    """A cloud with nothing but volume records and StorPool volumes."""

    records: dict[str, Json] = field(default_factory=dict)
    objects: list[Json] = field(default_factory=list)
    undeletable: bool = False
    can_list: bool = True
    real: bool = False
    hosts: Sequence[Host] = ()

    @property
    def cloud(self) -> Cloud:
        return self

    @property
    def storpool(self) -> StorPool:
        return self

    primary_url: str = "nfs://s/export/primary"

    @property
    def storpools(self) -> Sequence[StorPool]:
        return (self,)

    @property
    def secondary(self) -> Secondary:
        return self

    @property
    def environment(self) -> Environment:
        return Environment(
            "zone",
            (Pool("p", "p", "p", "t"),),
            "http://image",
            1,
            "0",
            "http://iso",
            1,
            "offering",
            "os",
            "api:81",
            "token",
        )

    def call(self, command: str, /, **parameters: str | int | bool) -> Json:
        if command == "createVolume":
            name = str(parameters["name"])
            self.records[name] = {"id": name, "state": "Allocated", "size": 1}
            return {"volume": self.records[name]}
        if command == "deleteVolume":
            if self.undeletable:
                raise CloudApiError(command, 530, "no")
            del self.records[str(parameters["id"])]
            return {"success": True}
        if command == "listVolumes" and self.records:
            return {"count": len(self.records), "volume": list(self.records.values())}
        if not self.can_list:
            raise CloudApiError(command, 530, "the database is gone")
        return {}

    def files(self, directory: str) -> list[str]:
        del directory
        return []

    def download(self, url: str, offset: int, length: int) -> bytes | None:
        raise NotImplementedError

    def backups(self) -> Sequence[str]:
        return ()

    def read(self, path: str, offset: int, length: int) -> bytes:
        raise NotImplementedError

    def size(self, path: str) -> int:
        raise NotImplementedError

    def unreachable(self) -> AbstractContextManager[None]:
        raise NotImplementedError

    def start(self, command: str, /, **parameters: str | int | bool) -> str:
        raise NotImplementedError

    def wait(self, job_id: str, timeout: float = 600) -> Json:
        raise NotImplementedError

    def volumes(self) -> list[Json]:
        return self.objects

    def volume(self, name: str) -> Json | None:
        raise NotImplementedError

    def make_template(self, name: str, like: str, *, replication: bool = True) -> None:
        raise NotImplementedError

    def remove_template(self, name: str) -> bool:
        raise NotImplementedError

    def lose_snapshot(self, name: str) -> None:
        raise NotImplementedError

    def snapshots(self) -> list[Json]:
        return []

    def snapshot(self, name: str) -> Json | None:
        raise NotImplementedError

    def attachments(self) -> list[Json]:
        return []

    def update_volume(self, name: str, **changes: object) -> None:
        raise NotImplementedError

    def kept(self, bucket: str, key: str) -> str:
        raise NotImplementedError

    def keep(self, bucket: str, key: str, value: str) -> None:
        raise NotImplementedError

    def refusing(self, call: str, name: str, *, for_good: bool = False) -> AbstractContextManager[None]:
        raise NotImplementedError

    def calls(self) -> Mapping[str, int]:
        return {}

    def guest(self, vm_id: str) -> Guest:
        raise NotImplementedError

    def kill_management(self) -> None:
        raise NotImplementedError

    def start_management(self) -> None:
        raise NotImplementedError

    def name(self, stem: str) -> str:
        return stem

    @contextmanager
    def check(self, name: str) -> Iterator[None]:
        del name
        yield

    def wait_until(self, what: str, condition: Callable[[], bool], timeout: float = 60) -> None:
        if not any(condition() for _ in range(3)):
            raise TimeoutError(f"{what}: not within {timeout} s")


@dataclass
class TinyVenue:
    name: str = "memory"
    world: TinyWorld = field(default_factory=TinyWorld)
    broken: str = ""
    left: str = ""
    runs_body: bool = True

    def open(self, say: Callable[[str], None]) -> dict[str, str]:
        say("setting up")
        if self.broken:
            raise RuntimeError(self.broken)
        return {}

    def run(self, case: Case, recorder: Recorder, body: Body) -> None:
        del case, recorder
        if self.runs_body:
            body(self.world)

    def case_properties(self, case: Case) -> dict[str, str]:
        del case
        return {"seed": "1"}

    def reproduce(self, case: Case) -> str:
        return f"splab run {case.id} --world {self.name} --seed 1"

    def close(self) -> None:
        if self.left:
            raise RuntimeError(self.left)


def ran(
    *functions: Callable[[World], None], venue: TinyVenue | None = None, others: Sequence[TinyVenue] = ()
) -> Result:
    used = venue or TinyVenue()
    cases = tuple(Case(f"4.{f.__name__}", 4, f.__name__, f) for f in functions)
    events: list[Event] = []
    clock = itertools.count()
    Runner(events.append, lambda: float(next(clock))).run(Selection((4,), cases), [used, *others], {})
    result = collect(events)
    assert result.ended
    return result


def fine(world: World) -> None:
    with world.check("one"):
        pass
    with world.check("two"):
        world.cloud.call("createVolume", name="made")


def wrong(world: World) -> None:
    with world.check("sizes agree"):
        assert len(world.storpool.volumes()) == 1, "no volume\nsecond line"


def leaks(world: World) -> None:
    world.storpool.volumes().append({"globalId": "a.b.1", "name": "~a.b.1", "size": 1, "tags": {"cs": "template"}})


def test_a_case_passes_with_its_checks_and_what_it_made_is_gone() -> None:
    venue = TinyVenue()
    result = ran(fine, venue=venue)
    assert result.passed
    assert [check.name for check in result.cases[0].checks] == ["one", "two"]
    assert venue.world.records == {}
    assert result.invariants_checked > 0


def test_a_failing_check_is_named_with_its_first_line_and_the_command_that_repeats_it() -> None:
    result = ran(wrong, fine)
    failed, passed = result.cases
    assert failed.why == "check 'sizes agree': AssertionError: no volume"
    assert failed.reproduce == "splab run 4.wrong --world memory --seed 1"
    assert "second line" in failed.detail
    assert passed.outcome == Outcome.PASSED
    assert not result.passed


def test_a_leak_fails_the_case_that_made_it_and_only_that_one() -> None:
    result = ran(leaks, fine)
    assert [case.outcome for case in result.cases] == ["failed", "passed"]
    assert "belongs to no record" in result.violated[0]
    assert result.cases[0].why.startswith("invariant violated")


def test_what_cannot_be_removed_fails_the_case() -> None:
    result = ran(fine, venue=TinyVenue(world=TinyWorld(undeletable=True)))
    assert result.cases[0].why.startswith("clean-up: volume made")


def test_a_world_that_ends_early_does_not_pass() -> None:
    assert "came to its end" in ran(fine, venue=TinyVenue(runs_body=False)).cases[0].why


@pytest.mark.parametrize("broken", [TinyVenue(broken="no loop devices"), TinyVenue(left="loop7 is still there")])
def test_a_broken_world_fails_the_run_and_the_next_world_is_run(broken: TinyVenue) -> None:
    result = ran(fine, venue=broken, others=[TinyVenue("local")])
    assert not result.passed
    assert (broken.broken or broken.left) in result.broken["memory"].why
    assert result.row(4, "local").outcome == Outcome.PASSED


def test_a_world_that_cannot_list_fails_the_case_with_the_reason() -> None:
    events: list[Event] = []
    case = Case("4.fine", 4, "fine", fine)
    Runner(events.append, lambda: 0.0).run(Selection((4,), (case,)), [TinyVenue(world=TinyWorld(can_list=False))], {})
    assert "the database is gone" in collect(events).cases[0].why


def test_the_timeline_of_a_case_is_bounded() -> None:
    events: list[Event] = []
    recorder = Recorder("memory", "4.hot", events.append, lambda: 0.0)
    for number in range(TIMELINE_LIMIT + 50):
        recorder.timeline("StorPool", f"call {number}")
    assert len(events) == TIMELINE_LIMIT
    assert isinstance(events[-1], Timeline) and "left out" in events[-1].text


def test_choosing_nothing_chooses_everything() -> None:
    case = Case("4.fine", 4, "fine", fine)
    assert select([case], ()).cases == (case,)
