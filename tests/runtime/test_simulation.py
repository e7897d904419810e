"""What the simulated runtime promises beyond the contract: one seed, one run; and every run ends."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from greenlet import getcurrent

from harness.runtime.errors import BoundError, DeadlockError, TaskErrors
from harness.runtime.process import SimulatedRuntime
from harness.runtime.simulated import EPOCH, Simulation
from harness.spi.errors import Dead, MisuseError, Unavailable


def busy(simulation: Simulation) -> list[str]:
    """Four tasks in two processes with locks, events, sleeps and draws; the order in which they got on."""
    order: list[str] = []
    one, two = simulation.process("one"), simulation.process("two")

    def work(runtime: SimulatedRuntime, name: str) -> Callable[[], None]:
        lock = runtime.lock("l")

        def task() -> None:
            for _ in range(3):
                with lock:
                    runtime.point("send", runtime.uuid())
                    order.append(name)
                runtime.sleep(runtime.random())

        return task

    def main() -> None:
        for runtime in (one, two):
            for number in range(2):
                runtime.spawn(f"t{number}", work(runtime, f"{runtime.process}{number}"))
        simulation.main.sleep(100)

    simulation.run(main)
    assert len(order) == 12
    return order


PROGRAM = """
import sys
sys.path.insert(0, {root!r})
import importlib.util
spec = importlib.util.spec_from_file_location("claims", {file!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
for seed in range(20):
    simulation = module.Simulation(seed)
    module.busy(simulation)
    print(simulation.digest(), simulation.schedule_digest())
"""


def test_the_same_seed_gives_the_same_run_in_processes_with_different_hash_seeds() -> None:
    program = PROGRAM.format(root=str(Path.cwd()), file=__file__)
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].splitlines())) == 20


def test_different_seeds_go_through_many_schedules() -> None:
    digests, schedules, orders = set(), set(), set()
    for seed in range(60):
        simulation = Simulation(seed)
        orders.add(tuple(busy(simulation)))
        digests.add(simulation.digest())
        schedules.add(simulation.schedule_digest())
    assert len(digests) == 60
    assert len(schedules) > 55
    assert len(orders) > 50


def test_sleep_costs_no_real_time_and_moves_both_clocks() -> None:
    simulation = Simulation(1)

    def main() -> float:
        simulation.main.sleep(86_400 * 3)
        assert simulation.main.now() == simulation.now == EPOCH + 86_400 * 3
        return simulation.main.monotonic()

    assert simulation.run(main) == 86_400 * 3


def test_a_deadlock_names_every_task_its_stack_and_what_it_waits_for() -> None:
    simulation = Simulation(3)
    process = simulation.process("p")

    def main() -> None:
        a, b = process.lock("a"), process.lock("b")
        met = [process.event("first"), process.event("second")]

        def cross(number: int, one: str) -> Callable[[], None]:
            first, second = (a, b) if one == "a" else (b, a)

            def crossing() -> None:
                with first:
                    met[number].set()
                    met[1 - number].wait()
                    with second:
                        raise AssertionError("impossible")

            return crossing

        process.spawn("x", cross(0, "a"))
        process.spawn("y", cross(1, "b"))
        simulation.main.event("both").wait()

    with pytest.raises(DeadlockError) as caught:
        simulation.run(main)
    text = str(caught.value)
    assert "task p/x#1 waits for lock b, which p/y#2 holds" in text
    assert "task p/y#2 waits for lock a, which p/x#1 holds" in text
    assert "task scenario/main#1 waits for event both" in text
    assert text.count("in crossing") == 2
    assert "in main" in text


@pytest.mark.parametrize("alone", [True, False])
def test_a_run_that_never_ends_is_ended_by_its_bounds(alone: bool) -> None:
    def spin(simulation: Simulation, seconds: float) -> Callable[[], None]:
        def main() -> None:
            if not alone:
                simulation.process("p").spawn("other", lambda: forever(simulation.process("q"), seconds))
            forever(simulation.main, seconds)

        return main

    def forever(runtime: SimulatedRuntime, seconds: float) -> None:
        while True:
            try:
                runtime.sleep(seconds)
            except Exception as error:
                raise AssertionError("the bound must not be catchable") from error

    steps = Simulation(1, steps=1000)
    with pytest.raises(BoundError, match=r"more steps(.|\n)*task scenario/main#1"):
        steps.run(spin(steps, 0))
    seconds = Simulation(1, seconds=50)
    with pytest.raises(BoundError, match=r"more than 50 virtual seconds(.|\n)*task scenario/main#1"):
        seconds.run(spin(seconds, 1))


def test_the_end_of_main_stops_other_tasks_and_their_finally_blocks_do_nothing() -> None:
    simulation = Simulation(5)
    process = simulation.process("p")
    tried, effects = [], []

    def work() -> None:
        try:
            process.sleep(10)
        finally:
            tried.append(1)
            process.point("effect-begin", "tidy up")
            effects.append(1)

    def main() -> str:
        process.spawn("t", work)
        process.spawn("never started", work)
        simulation.main.sleep(1)
        return "done"

    assert simulation.run(main) == "done"
    assert tried == [1, 1]
    assert effects == []
    with pytest.raises(Dead):
        process.now()
    with pytest.raises(MisuseError):
        simulation.process("late")


def test_a_killed_process_starts_again_as_a_new_incarnation_with_other_draws() -> None:
    simulation = Simulation(5)
    first = simulation.process("p")

    def main() -> None:
        with pytest.raises(MisuseError, match="is running"):
            simulation.process("p")
        drawn = first.uuid()
        simulation.kill("p")
        simulation.kill("p")
        assert not simulation.alive("p")
        second = simulation.process("p")
        assert second.uuid() != drawn
        with pytest.raises(Dead):
            first.uuid()
        with pytest.raises(MisuseError):
            simulation.kill("nobody")
        with pytest.raises(MisuseError):
            simulation.kill("scenario")

    simulation.run(main)


def test_a_fault_plan_is_asked_at_every_point_and_may_fail_it_or_kill() -> None:
    struck: list[tuple[str, str, str]] = []
    effects: list[str] = []

    def strike(process: str, kind: str, detail: str) -> None:
        struck.append((process, kind, detail))
        if detail == "fail":
            raise Unavailable("struck")
        if detail == "kill":
            simulation.kill(process)

    simulation = Simulation(1, strike=strike)
    process = simulation.process("p")

    def work() -> None:
        with pytest.raises(Unavailable):
            process.point("send", "fail")
        try:
            process.point("commit", "kill")
            effects.append("went on")
        except Exception:
            effects.append("caught")
        finally:
            try:
                process.point("commit", "late")
            finally:
                effects.append("ran")

    def main() -> None:
        process.spawn("t", work)
        simulation.main.sleep(1)

    simulation.run(main)
    assert struck == [("p", "send", "fail"), ("p", "commit", "kill")]
    assert effects == ["ran"]
    assert "p kill" in simulation.journal.render()


def test_an_error_of_main_wins_and_carries_what_escaped_other_tasks() -> None:
    def broken() -> None:
        raise ValueError("from a task")

    for own_error in (True, False):
        simulation = Simulation(1)

        def main(simulation: Simulation = simulation, own_error: bool = own_error) -> None:
            simulation.main.spawn("t", broken).join()
            if own_error:
                raise KeyError("own")

        if own_error:
            with pytest.raises(KeyError) as caught:
                simulation.run(main)
            assert "from a task" in caught.value.__notes__[0]
        else:
            with pytest.raises(TaskErrors, match="scenario/t#2: ValueError: from a task"):
                simulation.run(main)


def test_a_waiting_call_on_another_process_is_misuse() -> None:
    simulation = Simulation(1)
    process = simulation.process("p")

    def main() -> None:
        event = process.event("e")
        for call in (lambda: process.sleep(1), process.lock("l").acquire, event.wait, event.set):
            with pytest.raises(MisuseError, match="scenario/main#1"):
                call()

    simulation.run(main)
    with pytest.raises(MisuseError, match="once"):
        simulation.run(main)


def test_a_dying_task_cannot_go_on_through_the_runtime_of_another_process() -> None:
    simulation = Simulation(1)
    victim, other = simulation.process("victim"), simulation.process("other")
    effects: list[str] = []

    def work() -> None:
        try:
            victim.sleep(10)
        finally:
            other.spawn("helper", lambda: None)
            effects.append("went on")

    def main() -> None:
        victim.spawn("t", work)
        simulation.main.sleep(1)
        simulation.kill("victim")
        simulation.main.sleep(1)

    simulation.run(main)
    assert effects == []


def test_a_run_leaves_nothing_in_memory_and_its_tasks_share_greenlets() -> None:
    seen: set[int] = set()

    def run() -> weakref.ref[Simulation]:
        simulation = Simulation(1)
        victim = simulation.process("victim")

        def main() -> None:
            for turn in range(20):
                for process in (simulation.main, victim):
                    process.spawn("short", lambda: seen.add(id(getcurrent())))
                simulation.main.sleep(1)
                if turn == 9:
                    victim.spawn("waits", lambda: victim.sleep(1000))
            simulation.kill("victim")

        simulation.run(main)
        return weakref.ref(simulation)

    over = run()
    gc.collect()
    assert over() is None
    assert len(seen) == 2
