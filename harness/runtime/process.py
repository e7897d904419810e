"""One process of a simulated run, its tasks, locks and events: the parts of `Simulation` that production code sees."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from harness.runtime.generator import Generator
from harness.runtime.messages import MessageFault
from harness.spi.errors import Dead, MisuseError

if TYPE_CHECKING:
    from greenlet import greenlet

    from harness.runtime.simulated import Simulation


class SimulatedRuntime:
    """`harness.spi.runtime.Runtime` of one incarnation of a process; made by `Simulation.process`.

    Calls that can wait are for the process's own tasks; `spawn`, `lock` and `event` are for anybody, so that a world
    can build a process from outside.
    """

    def __init__(self, simulation: Simulation, name: str, generator: Generator) -> None:
        self.simulation = simulation
        self.generator = generator
        self.dead = False
        self.tasks: list[SimulatedTask] = []
        self.at_death: dict[object, Callable[[], None]] = {}
        """Called when the process has been killed: how others see its connections end. They must not wait."""
        self._name = name
        self._spawned = 0
        self._transaction = _Transaction(self)

    @property
    def process(self) -> str:
        return self._name

    def now(self) -> float:
        if self.dead:
            self.check_alive()
        return self.simulation.clock(self._name)

    def monotonic(self) -> float:
        if self.dead:
            self.check_alive()
        return self.simulation.elapsed

    def sleep(self, seconds: float) -> None:
        self.check_waiting("sleep")
        if seconds > 0:
            self.simulation.block(f"{seconds:g} s to pass", seconds)
        else:
            self.simulation.pause()

    def spawn(self, name: str, function: Callable[[], None]) -> SimulatedTask:
        self.check("spawn")
        current = self.simulation.current
        if current is not None:
            # A task that is falling apart must not go on through somebody else's runtime.
            current.process.check_alive()
        self._spawned += 1
        task = SimulatedTask(self, name, f"{self._name}/{name}#{self._spawned}", function)
        self.tasks.append(task)
        self.simulation.admit(task)
        if current is not None and current.process is self:
            self.simulation.pause()
        return task

    def lock(self, name: str) -> SimulatedLock:
        self.check("lock")
        return SimulatedLock(self, name)

    def event(self, name: str) -> SimulatedEvent:
        self.check("event")
        return SimulatedEvent(self, name)

    def random(self) -> float:
        self.check_alive()
        return self.generator.random()

    def random_bytes(self, count: int) -> bytes:
        self.check_alive()
        return self.generator.bytes(count)

    def uuid(self) -> str:
        self.check_alive()
        return self.generator.uuid()

    def point(self, kind: str, detail: str) -> None:
        self.message(kind, detail)

    def message(self, kind: str, detail: str) -> MessageFault | None:
        """As `point`, for whoever carries a message: what becomes of it, or None when nothing befalls it."""
        self.check_waiting("point")
        simulation = self.simulation
        simulation.pause()
        simulation.note(self._name, kind, detail)
        if simulation.strike is None:
            return None
        fault = simulation.strike(self._name, kind, detail)
        self.check_alive()
        return fault

    def transaction(self) -> AbstractContextManager[None]:
        return self._transaction

    def check_alive(self) -> None:
        """Raise `Dead` in a killed process."""
        if self.dead:
            raise Dead(f"process {self._name} was killed")

    def check(self, call: str) -> None:
        """Raise `Dead` in a killed process and `MisuseError` inside a record transaction."""
        if self.dead:
            raise Dead(f"process {self._name} was killed")
        if self.simulation.transaction is not None:
            raise MisuseError(f"{call}() inside a record transaction of {self._name}; end the transaction first")

    def check_waiting(self, call: str) -> None:
        """As `check`, and the caller must be a task of this process: else a kill would end the wrong one."""
        current = self.simulation.current
        if self.dead or current is None or current.process is not self or self.simulation.transaction is not None:
            self.check(call)
            caller = "nobody" if current is None else current.label
            raise MisuseError(f"{call}() of process {self._name} was called by {caller}, which is no task of it")


class SimulatedTask:
    __slots__ = (
        "ended",
        "function",
        "greenlet",
        "joiners",
        "label",
        "name",
        "process",
        "wait_number",
        "waits_for",
        "woken",
    )

    def __init__(self, process: SimulatedRuntime, name: str, label: str, function: Callable[[], None]) -> None:
        self.process = process
        self.name = name
        self.label = label
        """Unique in a run among the tasks that live at one time."""
        self.function = function
        self.greenlet: greenlet | None = None
        self.waits_for: str | None = None
        """What the task waits for, in words; None when it can run."""
        self.wait_number = 0
        self.woken = False
        self.ended = False
        self.joiners: list[SimulatedTask] = []

    def join(self, timeout: float | None = None) -> bool:
        process = self.process
        process.check_waiting("join")
        simulation = process.simulation
        me = simulation.current
        assert me is not None, "check_waiting has seen to it"
        if me is self:
            raise MisuseError(f"task {self.label} joins itself")
        if self.ended:
            simulation.pause()
        else:
            self.joiners.append(me)
            simulation.block(f"the end of task {self.label}", timeout)
            self.joiners.remove(me)
        return self.ended


class SimulatedLock:
    def __init__(self, runtime: SimulatedRuntime, name: str) -> None:
        self._runtime = runtime
        self._name = name
        self._owner: SimulatedTask | None = None
        self._waiters: list[SimulatedTask] = []

    def acquire(self, timeout: float | None = None) -> bool:
        runtime = self._runtime
        simulation = runtime.simulation
        me = simulation.current
        if runtime.dead or me is None or me.process is not runtime or simulation.transaction is not None:
            runtime.check_waiting("acquire")
        assert me is not None, "check_waiting has seen to it"
        if self._owner is me:
            raise MisuseError(f"lock {self._name} is not reentrant and this task holds it already")
        simulation.pause()
        deadline = None if timeout is None else simulation.elapsed + timeout
        while self._owner is not None:
            remaining = None if deadline is None else deadline - simulation.elapsed
            if remaining is not None and remaining <= 0:
                return False
            self._waiters.append(me)
            simulation.block(f"lock {self._name}, which {self._owner.label} holds", remaining)
            if me in self._waiters:
                self._waiters.remove(me)
        self._owner = me
        return True

    def release(self) -> None:
        runtime = self._runtime
        simulation = runtime.simulation
        me = simulation.current
        if runtime.dead or me is None or me.process is not runtime or simulation.transaction is not None:
            runtime.check_waiting("release")
        if self._owner is not me:
            raise MisuseError(f"lock {self._name} is released by a task that does not hold it")
        self._owner = None
        if self._waiters:
            simulation.wake(self._waiters.pop(simulation.draw(len(self._waiters))))

    def __enter__(self) -> SimulatedLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class SimulatedEvent:
    def __init__(self, runtime: SimulatedRuntime, name: str) -> None:
        self._runtime = runtime
        self._name = name
        self._set = False
        self._waiters: list[SimulatedTask] = []

    def set(self) -> None:
        self._runtime.check_waiting("set")
        self._runtime.simulation.pause()
        self.deliver()

    def deliver(self) -> None:
        """Set it from another process, as a message that arrives: no fence, no scheduling point."""
        self._set = True
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            self._runtime.simulation.wake(waiter)

    def is_set(self) -> bool:
        self._runtime.check_alive()
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        self._runtime.check_waiting("wait")
        simulation = self._runtime.simulation
        if self._set:
            simulation.pause()
        else:
            me = simulation.current
            assert me is not None, "check_waiting has seen to it"
            self._waiters.append(me)
            simulation.block(f"event {self._name}", timeout)
            if me in self._waiters:
                self._waiters.remove(me)
        return self._set


class _Transaction:
    def __init__(self, runtime: SimulatedRuntime) -> None:
        self._runtime = runtime

    def __enter__(self) -> None:
        self._runtime.check("transaction")
        self._runtime.simulation.transaction = self._runtime

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runtime.simulation.transaction = None
