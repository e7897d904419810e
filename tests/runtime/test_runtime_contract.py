"""What every Runtime promises, asked of both implementations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

from harness.runtime.errors import TaskErrors
from harness.runtime.process import SimulatedRuntime
from harness.runtime.simulated import Simulation
from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import Conflict, Dead, MisuseError
from harness.spi.locks import KeyedLocks
from harness.spi.runtime import Event, Lock, Runtime


class Rig(Protocol):
    """One process, `runtime`, and somebody outside who watches it and can kill it."""

    runtime: Runtime
    outside: Runtime

    def run(self, body: Callable[[], None]) -> list[str]:
        """Run `body` outside; the texts of the errors that escaped tasks."""
        ...

    def kill(self) -> None: ...


class ThreadRig:
    def __init__(self) -> None:
        self._escaped: list[str] = []
        self.outside: Runtime = ThreadRuntime("outside")
        self._process = ThreadRuntime("p", lambda _task, error: self._escaped.append(str(error)))
        self.runtime: Runtime = self._process

    def run(self, body: Callable[[], None]) -> list[str]:
        body()
        return self._escaped

    def kill(self) -> None:
        self._process.kill()


class SimulatedRig:
    def __init__(self, seed: int) -> None:
        self._simulation = Simulation(seed)
        self.outside: Runtime = self._simulation.main
        self.runtime: Runtime = self._simulation.process("p")

    def run(self, body: Callable[[], None]) -> list[str]:
        try:
            self._simulation.run(body)
        except TaskErrors as escaped:
            return [str(error) for _, error in escaped.errors]
        return []

    def kill(self) -> None:
        self._simulation.kill("p")


@pytest.fixture(params=["threads", "simulated:1", "simulated:2", "simulated:3"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    kind, _, seed = str(request.param).partition(":")
    if kind == "simulated":
        yield SimulatedRig(int(seed))
        return
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield ThreadRig()
    finally:
        sys.setswitchinterval(before)


def until(rig: Rig, condition: Callable[[], bool]) -> None:
    """Wait outside; a bound of ten seconds."""
    for _ in range(2000):
        if condition():
            return
        rig.outside.sleep(0.005)
    raise AssertionError("the condition did not come true in ten seconds")


def inside(rig: Rig, work: Callable[[], None]) -> None:
    """Run `work` as a task of the process and wait for it; its error is raised here."""
    ended: list[BaseException | None] = []

    def task() -> None:
        try:
            work()
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    rig.runtime.spawn("work", task)
    until(rig, lambda: bool(ended))
    if ended[0] is not None:
        raise ended[0]


def waiting_calls(runtime: Runtime, lock: Lock, event: Event) -> dict[str, Callable[[], object]]:
    """Every call that may wait, by name."""
    return {
        "sleep": lambda: runtime.sleep(0.0),
        "spawn": lambda: runtime.spawn("t", lambda: None),
        "lock": lambda: runtime.lock("l"),
        "event": lambda: runtime.event("e"),
        "point": lambda: runtime.point("send", "x"),
        "acquire": lambda: lock.acquire(0.0),
        "release": lock.release,
        "with": lock.__enter__,
        "set": event.set,
        "wait": lambda: event.wait(0.0),
        "transaction": lambda: runtime.transaction().__enter__(),
    }


def test_a_waiting_call_inside_a_transaction_is_refused_and_has_no_effect(rig: Rig) -> None:
    runtime = rig.runtime
    refused: list[str] = []

    def work() -> None:
        lock, event = runtime.lock("l"), runtime.event("e")
        calls = waiting_calls(runtime, lock, event)
        with runtime.transaction():
            for name, call in calls.items():
                with pytest.raises(MisuseError, match="transaction"):
                    call()
                refused.append(name)
            assert len(runtime.uuid()) == 36
            assert 0 <= runtime.random() < 1
            assert len(runtime.random_bytes(11)) == 11
            assert runtime.now() > 1e9
        with pytest.raises(ZeroDivisionError), runtime.transaction():
            raise ZeroDivisionError
        runtime.sleep(0)
        assert not event.is_set()
        assert lock.acquire(0)

    assert rig.run(lambda: inside(rig, work)) == []
    assert len(refused) == 11


def test_a_kill_ends_every_wait_in_progress_and_leaves_finally_blocks_no_effect(rig: Rig) -> None:
    runtime = rig.runtime
    lock, event, never = runtime.lock("l"), runtime.event("e"), runtime.event("never")
    begun: list[str] = []
    ended: list[str] = []
    effects: list[str] = []
    held: list[bool] = []

    def waiter(name: str, wait: Callable[[], object]) -> Callable[[], None]:
        def task() -> None:
            begun.append(name)
            try:
                wait()
                effects.append(f"{name} went on")
            finally:
                for what, call in waiting_calls(runtime, lock, event).items():
                    try:
                        call()
                        effects.append(f"{name}: {what}")
                    except Dead:
                        pass
                ended.append(name)
                raise ValueError("nobody hears what a dead process says")

        return task

    def body() -> None:
        sleeper = runtime.spawn("sleep", waiter("sleep", lambda: runtime.sleep(1000)))

        def hold() -> None:
            lock.acquire()
            held.append(True)
            never.wait()

        runtime.spawn("hold", waiter("hold", hold))
        until(rig, lambda: bool(held))
        runtime.spawn("lock", waiter("lock", lock.acquire))
        runtime.spawn("event", waiter("event", never.wait))
        runtime.spawn("timed", waiter("timed", lambda: never.wait(1000)))
        runtime.spawn("join", waiter("join", sleeper.join))
        until(rig, lambda: len(begun) == 6)
        rig.kill()
        until(rig, lambda: len(ended) == 6)
        for name, call in waiting_calls(runtime, lock, event).items():
            with pytest.raises(Dead):
                call()
                raise AssertionError(f"{name} of a dead process was let through")
        for silent in (runtime.now, runtime.monotonic, runtime.uuid, runtime.random, event.is_set):
            with pytest.raises(Dead):
                silent()

    assert rig.run(body) == []
    assert effects == []


def test_an_error_that_escapes_a_task_is_reported_and_join_returns(rig: Rig) -> None:
    def body() -> None:
        def broken() -> None:
            raise ValueError("boom")

        def work() -> None:
            assert rig.runtime.spawn("broken", broken).join(5)

        inside(rig, work)

    assert rig.run(body) == ["boom"]


def test_only_one_task_at_a_time_holds_a_lock_and_all_get_their_turn(rig: Rig) -> None:
    runtime = rig.runtime
    counter = 0

    def work() -> None:
        lock = runtime.lock("counter")

        def count() -> None:
            nonlocal counter
            for _ in range(20):
                with lock:
                    seen = counter
                    runtime.point("effect-begin", "count")
                    counter = seen + 1

        for task in [runtime.spawn(f"count {number}", count) for number in range(5)]:
            assert task.join(30)

    assert rig.run(lambda: inside(rig, work)) == []
    assert counter == 100


def test_a_lock_is_neither_reentrant_nor_released_by_others_and_waiting_for_it_ends_in_time(rig: Rig) -> None:
    runtime = rig.runtime

    def work() -> None:
        lock = runtime.lock("l")
        answers: list[object] = []

        def other() -> None:
            answers.append(lock.acquire(0.01))
            try:
                lock.release()
            except MisuseError as error:
                answers.append(str(error))

        with lock:
            with pytest.raises(MisuseError, match="not reentrant"):
                lock.acquire(0.01)
            assert runtime.spawn("other", other).join(10)
        assert answers == [False, "lock l is released by a task that does not hold it"]
        assert lock.acquire(0), "a waiter that gave up left the lock free"
        lock.release()
        with pytest.raises(MisuseError):
            lock.release()

    assert rig.run(lambda: inside(rig, work)) == []


def test_waits_end_with_false_when_their_time_is_over_and_with_true_when_what_they_wait_for_comes(rig: Rig) -> None:
    runtime = rig.runtime

    def work() -> None:
        event = runtime.event("e")
        before = runtime.monotonic()
        assert not event.wait(0.02)
        assert runtime.monotonic() - before >= 0.02

        def set_later() -> None:
            runtime.sleep(0.02)
            event.set()

        task = runtime.spawn("set", set_later)
        assert not task.join(0.001)
        assert event.wait(10)
        assert event.is_set()
        assert event.wait(0)
        assert task.join(10)
        assert task.join(0)

    assert rig.run(lambda: inside(rig, work)) == []


def test_a_task_cannot_join_itself(rig: Rig) -> None:
    runtime = rig.runtime
    refusals: list[str] = []

    def work() -> None:
        go = runtime.event("go")

        def own() -> None:
            go.wait(10)
            try:
                task.join(1)
            except MisuseError as error:
                refusals.append(str(error))

        task = runtime.spawn("own", own)
        go.set()
        assert task.join(10)

    assert rig.run(lambda: inside(rig, work)) == []
    assert len(refusals) == 1


def test_keyed_locks_exclude_by_key_give_up_in_time_and_forget_keys(rig: Rig) -> None:
    runtime = rig.runtime
    inside_now: dict[str, int] = {"a": 0, "b": 0}
    most: list[int] = []
    refused: list[str] = []

    def work() -> None:
        locks = KeyedLocks(runtime, "volume")

        def use(key: str) -> Callable[[], None]:
            def task() -> None:
                for _ in range(10):
                    with locks.hold(key, 30):
                        inside_now[key] += 1
                        most.append(inside_now[key])
                        runtime.point("effect-begin", key)
                        inside_now[key] -= 1

            return task

        for task in [runtime.spawn(f"{key}{number}", use(key)) for key in "ab" for number in range(3)]:
            assert task.join(30)

        def impatient() -> None:
            with locks.hold("b", 30):
                pass
            try:
                with locks.hold("a", 0.01):
                    refused.append("let in")
            except Conflict as error:
                refused.append(str(error))

        with locks.hold("a", 1):
            assert runtime.spawn("impatient", impatient).join(30)
        assert not locks._held

    assert rig.run(lambda: inside(rig, work)) == []
    assert max(most) == 1
    assert len(most) == 60
    assert refused == ["volume a: another operation has been holding it for 0.01 s"]


def test_values_of_a_process_look_right_and_differ(rig: Rig) -> None:
    runtime = rig.runtime
    uuids = {runtime.uuid() for _ in range(50)}
    assert len(uuids) == 50
    assert all(uuid[14] == "4" and uuid[19] in "89ab" and len(uuid) == 36 for uuid in uuids)
    assert len({runtime.random() for _ in range(50)}) == 50
    assert runtime.random_bytes(0) == b""
    assert runtime.process == "p"
    assert isinstance(runtime, ThreadRuntime | SimulatedRuntime)
