"""Runs one plan in the memory world: clients act while faults strike, then faults are over and all is judged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from harness.explore import beginnings, model
from harness.explore.asking import DONE, Shared
from harness.explore.beginnings import Beginning
from harness.explore.client import Client
from harness.explore.judge import judge, judge_removal
from harness.explore.looks import REASSIGN, Looks
from harness.explore.model import Model, Told
from harness.explore.plan import Action, Plan
from harness.explore.violation import Violation, ViolationFound
from harness.explore.volume_actions import new_volume
from harness.faults import Injector
from harness.faults.kinds import JUMP
from harness.faults.points import AGENT, CLIENT
from harness.runtime.errors import BoundError, DeadlockError, SimulationError, TaskErrors
from harness.runtime.journal import Entry
from harness.runtime.messages import MessageFate, MessageFault
from harness.worlds.memory.processes import HOSTS
from harness.worlds.memory.safety import Safety
from harness.worlds.memory.world import MemoryWorld

MAX_STEPS = 200_000
"""A run of the largest plan takes a tenth of it."""
MAX_SECONDS = 10 * 86_400.0
CLIENT_SECONDS = 86_400.0
"""Within this every client has carried out its actions."""
_DELETE_AFTER = "storpool.delete.after.interval"
_BACKUP = "snapshot.backup.to.secondary"
_CRASHES = ("host-lost", "guests-killed")
_COPIES = (MessageFate.LATE, MessageFate.TWICE)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did, and what was wrong with it."""

    violation: Violation | None
    actions: int
    done: int
    """Actions that CloudStack said were a success."""
    action_kinds: int
    """Distinct kinds of action that were performed."""
    calls: int
    """StorPool calls of the plugin from the first action until the cloud was at rest: work, retries, recovery."""
    fired: tuple[str, ...]
    """Faults that struck, each with its point."""
    points: int
    """Points passed, with safety checked at each."""
    looks: int
    """How many of these checks found something touched since the one before, and looked at it."""
    virtual_seconds: float
    digest: str
    """Of the run's journal; empty unless asked for."""


@dataclass(slots=True)
class Evidence:
    """What a run leaves for its story."""

    performed: list[tuple[int, Action, str]] = field(default_factory=list)
    journal: list[Entry] = field(default_factory=list)


class _Watch:
    """Stands at every point of the run: checks safety, lets faults strike, and tells the model of some of them."""

    def __init__(self, plan: Plan, told: Model) -> None:
        self.injector = Injector(plan.parsed_faults())
        self.calls = 0
        self.counting = False
        """Whether what the plugin asks of StorPool is counted: from the first action until the cloud is at rest."""
        self.points = 0
        self._shrinks = plan.shrinks
        self._told = told
        self._world: MemoryWorld | None = None
        self._safety: Safety | None = None

    def aim(self, world: MemoryWorld) -> None:
        self._world = world
        machines = tuple(world.processes.machines.values())
        self._safety = Safety(machines, world.processes.blocks, shrinks=self._shrinks)
        self.injector.aim(world.faults)

    @property
    def looks(self) -> int:
        return 0 if self._safety is None else self._safety.looks

    def strike(self, process: str, kind: str, detail: str) -> MessageFault | None:
        self.points += 1
        self.check()
        injector = self.injector
        if self.counting and kind == "send" and process != CLIENT and detail.startswith("StorPool "):
            self.calls += 1
        if not injector.armed:
            return None
        fired = len(injector.fired)
        try:
            fault = injector.strike(process, kind, detail)
        finally:
            # A fault that kills the process of the task that passes here does not return.
            # One that lets the task hang returns when others have struck since.
            for struck in injector.fired[fired : fired + 1]:
                self._note(struck.fault.kind.name, str(struck))
        if fault is not None and fault.fate in _COPIES:
            self._copied(process, detail, fault)
        return fault

    def _copied(self, process: str, detail: str, fault: MessageFault) -> None:
        if detail.startswith("API request "):
            self._told.disturbed.add(detail.removeprefix("API request "))
        elif detail == f"StorPool {REASSIGN}" and (fault.fate is MessageFate.LATE or fault.seconds):
            # Without a delay the copy arrives before anybody has made another request.
            hosts = (process.removeprefix(AGENT),) if process.startswith(AGENT) else HOSTS
            self._told.reassigned(hosts)

    def check(self) -> None:
        """End the run if safety is violated."""
        if self._safety is None or self._world is None:
            return
        found = self._safety.violated()
        if found is not None:
            rule, where = found
            self._world.simulation.abort(ViolationFound(Violation(rule, where)))

    def _note(self, name: str, text: str) -> None:
        assert self._world is not None, "nothing strikes before it is aimed"
        self._world.simulation.note("fault", "strikes", text)
        if name in _CRASHES:
            for vm in self._told.vms.values():
                self._told.crashed(vm.register)


def run(plan: Plan, *, evidence: Evidence | None = None, digest: bool = False) -> Outcome:
    """Run the plan; the same plan gives the same run. Bounded in steps and virtual time."""
    told = Model()
    watch = _Watch(plan, told)
    beginning = beginnings.beginning(seeded=plan.seeded, compares=plan.compares, vms=plan.vms, volumes=plan.volumes)
    world = MemoryWorld(plan.seed, strike=watch.strike, start=lambda: beginning.cloud)
    performed: list[tuple[int, Action, str]] = []
    violation: Violation | None = None
    try:
        world.run(lambda world: _explore(plan, beginning, world, watch, told, performed))
    except ViolationFound as error:
        violation = error.violation
    except SimulationError as error:
        violation = _ended_badly(error)
    except Exception as error:
        violation = Violation(f"error: {type(error).__name__}", f"{error}")
        if evidence is not None:
            logging.getLogger("harness.explore").exception("the run ended with an error that nobody expected")
    if evidence is not None:
        evidence.performed = performed
        evidence.journal = world.simulation.journal.entries
    return Outcome(
        violation=violation,
        actions=len(performed),
        done=sum(how == DONE for _, _, how in performed),
        action_kinds=len({action.kind for _, action, _ in performed}),
        calls=watch.calls,
        fired=tuple(str(fired) for fired in watch.injector.fired),
        points=watch.points,
        looks=watch.looks,
        virtual_seconds=world.simulation.elapsed,
        digest=world.simulation.digest() if digest else "",
    )


def _ended_badly(error: SimulationError) -> Violation:
    if isinstance(error, DeadlockError):
        return Violation("deadlock", str(error))
    if isinstance(error, BoundError):
        return Violation("the run does not end", str(error))
    if isinstance(error, TaskErrors):
        task, first = error.errors[0]
        return Violation(f"error: {type(first).__name__}", f"escaped from task {task}: {error}")
    return Violation("the run ended early", str(error))


def _explore(
    plan: Plan,
    beginning: Beginning,
    world: MemoryWorld,
    watch: _Watch,
    told: Model,
    performed: list[tuple[int, Action, str]],
) -> None:
    simulation = world.simulation
    simulation.bound(steps=MAX_STEPS, seconds=MAX_SECONDS)
    watch.aim(world)
    shared = Shared(
        world=world,
        model=told,
        looks=Looks(world.processes, told),
        templates=beginning.templates,
        disk_offerings=beginning.disk_offerings,
        performed=performed,
    )
    _begin(plan, shared, beginning)
    watch.injector.armed = watch.counting = True
    tasks = [
        simulation.main.spawn(f"client {number}", _guarded(world, Client(shared, number, actions).run))
        for number, actions in enumerate(plan.clients)
    ]
    ended = [task.join(CLIENT_SECONDS) for task in tasks]
    watch.injector.armed = False
    world.faults.disarm()
    simulation.note("judge", "faults", "over")
    if not all(ended):
        raise ViolationFound(Violation("a client never ends", f"not in {CLIENT_SECONDS:g} s"))
    skew = _skew(watch.injector)
    picture = judge(shared, skew)
    watch.counting = False
    judge_removal(shared, picture, skew)
    watch.check()


def _guarded(world: MemoryWorld, work: Callable[[], None]) -> Callable[[], None]:
    """What a client finds ends the run at once."""

    def guarded() -> None:
        try:
            work()
        except ViolationFound as error:
            world.simulation.abort(error)

    return guarded


def _skew(injector: Injector) -> float:
    """By how many seconds clocks of different processes may be apart, at most."""
    return JUMP * sum(1 for fired in injector.fired if "clock" in fired.fault.kind.name)


def _begin(plan: Plan, shared: Shared, beginning: Beginning) -> None:
    """What is there before the clients begin."""
    world, told = shared.world, shared.model
    if plan.delete_after:
        for pool in world.environment.pools:
            world.cloud.call("updateConfiguration", name=_DELETE_AFTER, value=str(plan.delete_after), storageid=pool.id)
    if plan.bypass:
        world.cloud.call("updateConfiguration", name=_BACKUP, value="false")
    for slot, made in enumerate(beginning.vms):
        vm = told.vms[slot] = Told(made.name, asked=True, id=made.id, instance_name=made.instance_name)
        vm.register.value = model.RUNNING
    for slot, made in enumerate(beginning.volumes):
        volume = told.volumes[slot] = Told(made.name, asked=True, id=made.id)
        volume.register.value = model.FREE
        new_volume(volume, shared.disk_offerings[0])
