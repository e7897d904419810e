"""Kills at every step of deploy, attach and delete, in the local world."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from harness.observers import World
from harness.recording import Recorder
from harness.report.stream import Fault, Listener
from harness.run import Body, Runner, Selection
from harness.worlds.local.cloud import CsCloud
from harness.worlds.local.processes import Pace, Routes
from harness.worlds.local.steps.gate import Gate
from harness.worlds.local.steps.operations import OPERATIONS, Operation
from harness.worlds.local.steps.plan import Found, Kill, chosen
from harness.worlds.local.steps.proxy import Proxy
from harness.worlds.local.steps.stage import make_small_image, set_stage
from harness.worlds.local.steps.strike import Rig, Strike, find_steps, strike_at
from harness.worlds.local.steps.victims import Target, Victims
from harness.worlds.local.venue import LocalVenue
from lab.errors import LabError
from lab.file import Lab
from lab.local import machine_lock
from lab.local.layout import CLIENT_ADDRESS, State, default_state
from scenarios.registry import Case
from scenarios.table import RowId

PACE = Pace(
    ping_interval=0.5,
    cleanup_interval=2.0,
    settle_time=6.0,
    answer_time=3.0,
    # A guest without an operating system hears no power button.
    settings={"vm.destroy.forcestop": "true"},
)
"""So that recovery need not be waited for: no message is held here for longer than a few seconds."""
END_SECONDS = 60.0
COPY_SECONDS = 5
"""With the settle time: how long an agent that does not answer may be copying an image. The small one takes none."""


def local_kills(
    listen: Listener, words: Sequence[str] = (), *, full: bool = False, properties: dict[str, str] | None = None
) -> None:
    """Run them on a local lab of their own, which is brought up first and taken down last; events go to `listen`.

    Every step of each operation is hit once; with `full`, by every victim. `words` choose rows (`2`), operations
    (`attach-new`) or single cases (`2.deploy.07.agent`, also one that only `full` would run); none means all. Raises
    `KeyError` for a word that names nothing. An error of the lab is an event.
    """
    for word in words:
        if not any(may_name(word, operation) for operation in OPERATIONS):
            raise KeyError(word)
    runner = Runner(listen, time.monotonic)
    venue = KillVenue()
    venue.prepare([one for one in OPERATIONS if not words or _any_names(words, one)], runner.note)
    venue.choose(words, full=full)
    rows = dict.fromkeys(operation.row for operation in OPERATIONS if not words or _any_names(words, operation))
    runner.run(Selection(tuple(rows), tuple(venue.cases())), [venue], properties or {})


def may_name(word: str, operation: Operation) -> bool:
    """Whether the word is the operation's row or name, or has the form of one of its cases."""
    return word in (str(operation.row), operation.name) or word.startswith(f"{operation.row}.{operation.name}.")


def _any_names(words: Sequence[str], operation: Operation) -> bool:
    return any(may_name(word, operation) for word in words)


class KillVenue:
    """The local lab with a proxy between its processes. `prepare` opens it and finds the steps; then it is a venue."""

    def __init__(self) -> None:
        self._gate = Gate()
        self._proxy: Proxy | None = None
        self._venue = LocalVenue(None, routes=self._routes, pace=PACE)
        self._rig: Rig | None = None
        self._properties: dict[str, str] = {}
        self._error: Exception | None = None
        self._steps: list[tuple[str, RowId, Sequence[Found]]] = []
        self._kills: dict[str, Kill] = {}
        self._strikes: dict[str, Strike] = {}

    @property
    def name(self) -> str:
        return self._venue.name

    def prepare(self, operations: Sequence[Operation], say: Callable[[str], None]) -> None:
        """Never raises an `Exception`: `open` does, when the run has begun."""
        try:
            self._prepare(operations, say)
        except Exception as error:
            self._error = error
        except BaseException:
            self.close()
            raise

    def choose(self, words: Sequence[str], *, full: bool) -> None:
        """Which kills are cases. Raises `KeyError` for one that there is not, and has closed everything then."""
        if self._error is None:
            try:
                self._kills = {kill.id: kill for kill in chosen(self._steps, words, full=full)}
            except KeyError:
                self.close()
                raise

    def cases(self) -> list[Case]:
        titles = {operation.name: operation.title for operation in OPERATIONS}
        return [
            Case(kill.id, kill.row, f"{titles[kill.operation]}: {kill.victim} killed at {kill.step}", self._case(kill))
            for kill in self._kills.values()
        ]

    def open(self, say: Callable[[str], None]) -> dict[str, str]:
        del say
        if self._error is not None:
            raise self._error
        return self._properties

    def run(self, case: Case, recorder: Recorder, body: Body) -> None:
        kill = self._kills[case.id]
        try:
            self._venue.run(case, recorder, body)
        finally:
            strike = self._strikes.get(case.id)
            recorder.listen(
                Fault(
                    at=recorder.now(),
                    world=recorder.world,
                    case=case.id,
                    operation=kill.operation,
                    step=str(kill.step),
                    victim=kill.victim,
                    asked=strike.asked if strike else "",
                    recovery=strike.recovery if strike else [],
                    outcome=strike.outcome if strike else "",
                )
            )

    def case_properties(self, case: Case) -> dict[str, str]:
        kill = self._kills[case.id]
        return {**self._venue.case_properties(case), "step": str(kill.step), "victim": kill.victim}

    def reproduce(self, case: Case) -> str:
        return f"splab faults {case.id} --world local"

    def close(self) -> None:
        """Raises `LabError` when something is left, of the lab or of what the driver began."""
        try:
            left = self._left_open() if self._rig is not None else []
        finally:
            try:
                self._venue.close()
            finally:
                if self._proxy is not None:
                    self._proxy.close()
        if left:
            raise LabError(f"operations of the storage driver are not over after {END_SECONDS:g} s: {'; '.join(left)}")

    def _left_open(self) -> list[str]:
        """Operations that do not end by themselves; each should, once a lost request can no longer arrive."""
        deadline = time.monotonic() + END_SECONDS
        while (left := self._venue.management.open_operations()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def _routes(self, lab: Lab) -> Routes:
        self._proxy = Proxy(lab, CLIENT_ADDRESS, self._gate)
        return self._proxy.routes

    def _prepare(self, operations: Sequence[Operation], say: Callable[[str], None]) -> None:
        state = State(default_state().resolve())
        if machine_lock.owner() is not None:
            raise LabError(
                "a local lab is up, and kills are run on one of their own, so that nothing of yours is struck;"
                f" take it down first: SPLAB_STATE={machine_lock.owner()} splab lab down"
            )
        self._properties = self._venue.open(say)
        lab, proxy = self._venue.lab, self._proxy
        assert proxy is not None
        make_small_image(state.images)
        say("a VM with a guest, a template, a volume with bytes on it")
        world = self._venue.world("stage")
        management = self._venue.management
        self._rig = Rig(
            proxy=proxy,
            gate=self._gate,
            victims=Victims(
                lab,
                state,
                proxy,
                management,
                {agent.name: agent for agent in self._venue.agents},
                {host.name: host for host in world.hosts},
            ),
            stage=set_stage(world),
            caller=CsCloud(lab.management.api_address, *management.keys()),
            read_logs=self._venue.read_logs,
            open_operations=management.open_operations,
        )
        world.cloud.call("updateConfiguration", name="primary.storage.download.wait", value=str(COPY_SECONDS))
        for operation in operations:
            found = find_steps(self._rig, operation, world)
            say(f"{operation.name} has {len(found)} steps")
            self._steps.append((operation.name, operation.row, found))

    def _case(self, kill: Kill) -> Callable[[World], None]:
        def run(world: World) -> None:
            assert self._rig is not None
            operation = next(operation for operation in OPERATIONS if operation.name == kill.operation)
            strike = self._strikes[kill.id] = Strike(Target(self._rig.stage.host.name, None))
            strike_at(self._rig, kill, operation, world, strike)

        return run
