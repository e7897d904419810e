"""The simulated runtime: one thread, virtual time, and a seeded choice of who goes next.

Every task is a greenlet and exactly one runs. Each call of the runtime that could wait is a scheduling point: there
the scheduler, fed by its own stream of the seed, picks one of the tasks that can go on. Time stands still while a task
can run and jumps to the next time-out when all wait. The same seed gives the same run, entry by entry of the journal.
"""

from __future__ import annotations

import heapq
import traceback
from collections.abc import Callable
from typing import TypeVar

from greenlet import getcurrent, greenlet

from harness.runtime.errors import BoundError, DeadlockError, SimulationError, TaskErrors
from harness.runtime.generator import Generator
from harness.runtime.journal import SCHEDULE, RunJournal
from harness.runtime.messages import MessageFault
from harness.runtime.process import SimulatedRuntime, SimulatedTask
from harness.spi.errors import Dead, MisuseError

T = TypeVar("T")

EPOCH = 1_700_000_000.0
"""The wall clock at the start of every run, in Unix seconds."""

Strike = Callable[[str, str, str], MessageFault | None]
"""Called at each point with process, kind and detail. It may kill processes, wait, and raise in the caller's place.

At the points "send" and "answer" it may also say what becomes of the message.
"""

MAIN = "scenario"
"""Process of the task that `run` is given; it cannot be killed."""


class Simulation:
    """One run. `steps` and `seconds` bound it, so that it ends whatever its tasks do.

    It begins `elapsed` virtual seconds after the time at which runs begin.
    """

    def __init__(
        self,
        seed: int,
        *,
        strike: Strike | None = None,
        steps: int = 1_000_000,
        seconds: float = 7 * 86_400.0,
        elapsed: float = 0.0,
    ) -> None:
        self.seed = seed
        self.strike = strike
        self.journal = RunJournal()
        self.elapsed = elapsed
        """Virtual seconds since the start."""
        self.current: SimulatedTask | None = None
        self.transaction: SimulatedRuntime | None = None
        """The process that is inside a record transaction, if any: nobody else runs meanwhile."""
        self._steps_left = steps
        self._seconds = seconds
        self._choose = Generator.of(seed, "schedule")
        self._ready: list[SimulatedTask] = []
        self._timers: list[tuple[float, int, SimulatedTask, int]] = []
        self._timer_number = 0
        self.clocks: dict[str, float] = {}
        """By how many seconds the wall clock of a process is wrong; a restart of the process does not mend it."""
        self._processes: dict[str, SimulatedRuntime] = {}
        self._incarnations: dict[str, int] = {}
        self._errors: list[tuple[str, BaseException]] = []
        self._verdict: BaseException | None = None
        self._idle: list[greenlet] = []
        """Greenlets whose task has ended."""
        self._hub: greenlet = getcurrent()
        self._over = False
        self.main = self.process(MAIN)
        """Runtime of the task that `run` is given."""

    @property
    def now(self) -> float:
        """Virtual wall clock, Unix seconds."""
        return EPOCH + self.elapsed

    def clock(self, name: str) -> float:
        """What the wall clock of this process shows, Unix seconds."""
        return EPOCH + self.elapsed + self.clocks.get(name, 0.0)

    def process(self, name: str) -> SimulatedRuntime:
        """A new process; `MisuseError` while one of that name lives."""
        if self._over:
            raise MisuseError(f"cannot start process {name}: the run is over")
        alive = self._processes.get(name)
        if alive is not None and not alive.dead:
            raise MisuseError(f"process {name} is running; kill it before starting it again")
        number = self._incarnations[name] = self._incarnations.get(name, 0) + 1
        runtime = SimulatedRuntime(self, name, Generator.of(self.seed, f"process:{name}:{number}"))
        self._processes[name] = runtime
        self.note(name, "start", str(number))
        return runtime

    def alive(self, name: str) -> bool:
        process = self._processes.get(name)
        return process is not None and not process.dead

    def kill(self, name: str) -> None:
        """SIGKILL: fence the process, then end its tasks. Does not return when a task of it calls.

        No error when it is dead already.
        """
        process = self._processes.get(name)
        if process is None:
            raise MisuseError(f"no process {name} was ever started")
        if process is self.main and not self._over:
            raise MisuseError("the scenario's own process cannot be killed")
        if process.dead:
            return
        self.note(name, "kill", "")
        self._end(process)
        if self.current is not None and self.current.process is process:
            raise Dead(f"process {name} was killed")

    def run(self, main: Callable[[], T]) -> T:
        """Run until `main` ends, then stop every process; once in a simulation's life.

        Raises what `main` raised; else `TaskErrors` when errors escaped other tasks, `DeadlockError` or `BoundError`.
        """
        if self._over or self.current is not None:
            raise MisuseError("a simulation runs once")
        self._hub = getcurrent()
        result: list[T] = []
        task = self.main.spawn("main", lambda: result.append(main()))
        try:
            while not task.ended and self._verdict is None:
                following = self._next()
                if following is not None:
                    self._resume(following)
            if isinstance(self._verdict, SimulationError):
                self._verdict = type(self._verdict)(f"{self._verdict}\n{self._describe_tasks()}")
        finally:
            self.stop()
        return self._conclude(task, result)

    def bound(self, *, steps: int, seconds: float) -> None:
        """From now on the run may take so many more steps and virtual seconds; `BoundError` ends it otherwise."""
        self._steps_left = steps
        self._seconds = self.elapsed + seconds

    def abort(self, error: BaseException) -> None:
        """End the run with this error, whatever the task that calls would catch; does not return."""
        self._verdict = error
        self._running()
        self._hub.switch()

    def stop(self) -> None:
        """Fence and end every process. May be called again."""
        self._over = True
        for process in self._processes.values():
            if not process.dead:
                self._end(process)
        self.current = None
        while self._idle:
            # One that is left suspended would keep the whole run in memory.
            idle = self._idle.pop()
            idle.parent = getcurrent()
            idle.throw()

    def digest(self) -> str:
        """Of the whole run: every choice and point, and how far each generator was drawn."""
        states = [f"{name}:{process.generator.state}" for name, process in sorted(self._processes.items())]
        return self.journal.digest(",".join(states))

    def schedule_digest(self) -> str:
        """Of the schedule alone: equal for two runs whose tasks went in the same order."""
        return self.journal.schedule_digest()

    def note(self, who: str, what: str, detail: str) -> None:
        """Write an entry into the journal."""
        self.journal.entries.append((self.elapsed, who, what, detail))

    # What follows is for SimulatedRuntime and its locks and events.

    def admit(self, task: SimulatedTask) -> None:
        """A new task may run from now on."""
        self._ready.append(task)

    def pause(self) -> None:
        """The current task could go on, and so may others."""
        self._steps_left -= 1
        task = self.current
        if task is None or task.process.dead:
            task = self._running()
        if self._steps_left < 0:
            self._give_up()
        ready = self._ready
        if not ready:
            return
        # As `_pick` with the task among the ready ones, spelled out: most points come here.
        count = len(ready)
        index = self._choose.below(count + 1)
        if index == count:
            self.journal.entries.append((self.elapsed, task.label, SCHEDULE, str(count + 1)))
            return
        following = ready[index]
        ready[index] = task
        self.journal.entries.append((self.elapsed, following.label, SCHEDULE, str(count + 1)))
        self._resume(following)

    def block(self, waits_for: str, timeout: float | None) -> bool:
        """The current task waits for `wake`; False when `timeout` seconds passed first."""
        self._steps_left -= 1
        task = self._running()
        task.waits_for = waits_for
        task.wait_number += 1
        task.woken = False
        if timeout is not None:
            self._timer_number += 1
            deadline = self.elapsed + max(timeout, 0.0)
            heapq.heappush(self._timers, (deadline, self._timer_number, task, task.wait_number))
        following = self._next()
        if following is None:
            self._hub.switch()
        elif following is not task:
            self._resume(following)
        return task.woken

    def wake(self, task: SimulatedTask) -> None:
        """What the task waits for has come."""
        if task.waits_for is not None and not task.ended and not task.process.dead:
            task.waits_for = None
            task.woken = True
            self._ready.append(task)

    def draw(self, bound: int) -> int:
        """A choice of the scheduler in [0, bound)."""
        return self._choose.below(bound) if bound > 1 else 0

    def _running(self) -> SimulatedTask:
        if self.current is None:
            raise MisuseError("only a task of a running simulation can wait")
        if self.current.process.dead:
            # A task that is falling apart must not get the turn again through somebody else's runtime.
            raise Dead(f"process {self.current.process.process} was killed")
        return self.current

    def _pick(self) -> SimulatedTask:
        ready = self._ready
        count = len(ready)
        if count == 1:
            return ready.pop()
        index = self._choose.below(count)
        chosen = ready[index]
        last = ready.pop()
        if index < count - 1:
            ready[index] = last
        self.journal.entries.append((self.elapsed, chosen.label, SCHEDULE, str(count)))
        return chosen

    def _next(self) -> SimulatedTask | None:
        """Who goes next; None, with the verdict set, when the run cannot go on."""
        if self._steps_left < 0:
            self._verdict = BoundError("the run took more steps than it may")
            return None
        if not self._ready and not self._advance():
            return None
        return self._pick()

    def _advance(self) -> bool:
        """Let time jump to the next time-out that somebody still waits for."""
        timers = self._timers
        while timers:
            deadline = timers[0][0]
            while timers and timers[0][0] == deadline:
                _, _, task, wait_number = heapq.heappop(timers)
                if task.waits_for is not None and task.wait_number == wait_number and not task.ended:
                    task.waits_for = None
                    self._ready.append(task)
            if self._ready:
                self.elapsed = max(self.elapsed, deadline)
                if self.elapsed <= self._seconds:
                    return True
                self._verdict = BoundError(f"the run took more than {self._seconds:g} virtual seconds")
                return False
        self._verdict = DeadlockError("deadlock: every task waits")
        return False

    def _give_up(self) -> None:
        self._ready.append(self._running())
        self._next()
        self._hub.switch()

    def _resume(self, task: SimulatedTask) -> None:
        self.current = task
        if task.greenlet is None:
            task.greenlet = self._idle.pop() if self._idle else greenlet(self._work, self._hub)
        task.greenlet.switch()

    def _work(self) -> None:
        """What a greenlet does: one task after another, because making a greenlet costs more than a short task."""
        me = getcurrent()
        while True:
            task = self.current
            assert task is not None, "it was resumed for a task"
            self._body(task)
            if task.process.dead:
                # Back to whoever killed it.
                return
            self._idle.append(me)
            self._hub.switch()

    def _body(self, task: SimulatedTask) -> None:
        try:
            task.function()
        except KeyboardInterrupt as error:
            self._verdict = error
        except BaseException as error:
            # What a killed process says while it falls apart nobody hears.
            if not task.process.dead:
                self._errors.append((task.label, error))
        finally:
            task.ended = True
            task.process.tasks.remove(task)
            for waiter in task.joiners:
                self.wake(waiter)

    def _end(self, process: SimulatedRuntime) -> None:
        process.dead = True
        before, transaction = self.current, self.transaction
        me = getcurrent()
        self._ready = [task for task in self._ready if task.process is not process]
        for task in list(process.tasks):
            if task.greenlet is None:
                task.ended = True
            elif task.greenlet is not me and not task.ended:
                task.greenlet.parent = me
                self.current = task
                task.greenlet.throw(Dead(f"process {process.process} was killed"))
        self.current, self.transaction = before, transaction
        for notice in process.at_death.values():
            notice()

    def _conclude(self, main: SimulatedTask, result: list[T]) -> T:
        own = [error for label, error in self._errors if label == main.label]
        others = [(label, error) for label, error in self._errors if label != main.label]
        error = own[0] if own else self._verdict
        if error is not None:
            for label, other in others:
                error.add_note(f"escaped from task {label}: {type(other).__name__}: {other}")
            raise error
        if others:
            raise TaskErrors(others) from others[0][1]
        if not result:
            raise SimulationError("the run ended before its main task did")
        return result[0]

    def _describe_tasks(self) -> str:
        return "\n".join(
            _describe(task) for process in self._processes.values() for task in process.tasks if not task.ended
        )


def _describe(task: SimulatedTask) -> str:
    state = f"waits for {task.waits_for}" if task.waits_for else "can run"
    frame = task.greenlet.gr_frame if task.greenlet is not None else None
    if frame is None:
        return f"task {task.label} {state}\n  not started"
    own = [entry for entry in traceback.extract_stack(frame) if entry.filename not in _INTERNAL]
    return f"task {task.label} {state}\n{''.join(traceback.format_list(own))}"


_INTERNAL = (__file__, SimulatedTask.join.__code__.co_filename)
"""Files whose frames say nothing about why a task waits."""
