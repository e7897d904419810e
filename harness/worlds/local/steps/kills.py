"""Kills at every step of deploy, attach and delete, in the local world."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness import checks, tidy
from harness.observers import Cloud, CloudApiError, World
from harness.recording import Recorder
from harness.report.stream import Fault, Listener
from harness.run import Body, Runner, Selection
from harness.worlds.local.cloud import CsCloud
from harness.worlds.local.processes import Pace, Routes
from harness.worlds.local.steps.gate import Gate, Passing
from harness.worlds.local.steps.operations import OPERATIONS, Attempt, Operation
from harness.worlds.local.steps.plan import Found, Kill, plan
from harness.worlds.local.steps.proxy import Proxy
from harness.worlds.local.steps.recovery import recovery_lines
from harness.worlds.local.steps.stage import Stage, make_small_image, set_stage
from harness.worlds.local.steps.victims import Target, Victims
from harness.worlds.local.venue import LocalVenue
from lab.errors import LabError
from lab.file import Lab
from lab.local import machine_lock
from lab.local.layout import CLIENT_ADDRESS, State, default_state
from scenarios.registry import Case

PACE = Pace(
    ping_interval=0.5,
    cleanup_interval=2.0,
    settle_time=6.0,
    answer_time=3.0,
    settings={
        # With the settle time: how long an agent that does not answer may be copying an image.
        "primary.storage.download.wait": "5",
        # A guest without an operating system hears no power button.
        "vm.destroy.forcestop": "true",
    },
)
"""So that recovery need not be waited for: no message is held here for longer than a few seconds."""
QUIET_SECONDS = 30.0
STEP_SECONDS = 60.0
"""How long an operation may take until it comes to a step."""
ANSWER_SECONDS = 150.0
"""How long the operation's caller may wait for an answer once the victim is back."""
REST_SECONDS = 90.0


def local_kills(
    listen: Listener, words: Sequence[str] = (), *, full: bool = False, properties: dict[str, str] | None = None
) -> None:
    """Run them on a local lab of their own, which is brought up first and taken down last; events go to `listen`.

    Every step of each operation is hit once; with `full`, by every victim. `words` choose rows (`2`), operations
    (`attach-new`) or single cases (`2.deploy.07.agent`); none means all. An error of the lab is an event too.
    """
    runner = Runner(listen, time.monotonic)
    venue = KillVenue(full=full)
    venue.prepare(runner.note)
    cases = [case for case in venue.cases() if not words or _chosen(case, words)]
    rows = tuple(dict.fromkeys(operation.row for operation in OPERATIONS))
    chosen = tuple(row for row in rows if not words or any(case.row == row for case in cases))
    runner.run(Selection(chosen or rows, tuple(cases)), [venue], properties or {})


def _chosen(case: Case, words: Sequence[str]) -> bool:
    row, operation = case.id.split(".")[:2]
    return any(word in (row, operation, case.id) for word in words)


@dataclass(slots=True)
class Strike:
    """What came of one kill."""

    target: Target
    asked: str = ""
    """What the operation's caller was told."""
    recovery: list[str] = field(default_factory=list)
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Rig:
    """All that a case needs, of one lab."""

    proxy: Proxy
    gate: Gate
    victims: Victims
    stage: Stage
    caller: Cloud
    """A client of its own for whoever asks for the operation, in a thread of its own."""
    read_logs: Callable[[], list[tuple[float, str, str]]]


class KillVenue:
    """The local lab with a proxy between its processes. `prepare` opens it and finds the steps; then it is a venue."""

    def __init__(self, *, full: bool) -> None:
        self._full = full
        self._gate = Gate()
        self._proxy: Proxy | None = None
        self._venue = LocalVenue(None, routes=self._routes, pace=PACE)
        self._rig: Rig | None = None
        self._properties: dict[str, str] = {}
        self._error: Exception | None = None
        self._kills: dict[str, Kill] = {}
        self._strikes: dict[str, Strike] = {}

    @property
    def name(self) -> str:
        return self._venue.name

    def prepare(self, say: Callable[[str], None]) -> None:
        """Never raises an `Exception`: `open` does, when the run has begun."""
        try:
            self._prepare(say)
        except Exception as error:
            self._error = error
        except BaseException:
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
        try:
            self._venue.close()
        finally:
            if self._proxy is not None:
                self._proxy.close()

    def _routes(self, lab: Lab) -> Routes:
        self._proxy = Proxy(lab, CLIENT_ADDRESS, self._gate)
        return self._proxy.routes

    def _prepare(self, say: Callable[[str], None]) -> None:
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
        )
        steps = []
        for operation in OPERATIONS:
            found = find_steps(self._rig, operation, world)
            say(f"{operation.name} has {len(found)} steps")
            steps.append((operation.name, operation.row, found))
        self._kills = {kill.id: kill for kill in plan(steps, full=self._full)}

    def _case(self, kill: Kill) -> Callable[[World], None]:
        def run(world: World) -> None:
            assert self._rig is not None
            operation = next(operation for operation in OPERATIONS if operation.name == kill.operation)
            strike = self._strikes[kill.id] = Strike(Target(self._rig.stage.host.name, None))
            strike_at(self._rig, kill, operation, world, strike)

        return run


def find_steps(rig: Rig, operation: Operation, world: World) -> list[Found]:
    """The steps of the operation, as it shows them when nobody is killed; what it made is removed again."""
    before = tidy.inventory(world)
    attempt = operation.prepare(rig.stage, world)
    found: list[Found] = []
    quiet(rig)

    def look(passing: Passing) -> None:
        found.append(Found(passing.step, attempt.vm_name() is not None))

    with rig.gate.counting(look=look):
        attempt.ask(rig.caller)
    assert attempt.done(), f"{operation.title}: it is not done although nobody was killed"
    attempt.check()
    left = tidy.tidy(world, before)
    assert not left, f"after {operation.title} something is left: {left}"
    return found


def strike_at(rig: Rig, kill: Kill, operation: Operation, world: World, strike: Strike) -> None:
    """Ask for the operation, kill at the step, and judge what recovery makes of it."""
    with world.check("the operation can begin"):
        rig.stage.up(world)
        attempt = operation.prepare(rig.stage, world)
        quiet(rig)
    asking = Asking(attempt, rig.caller)
    try:
        with rig.gate.counting(kill.step):
            asking.start()
            with world.check("the step comes, and its message is held"):
                passing = rig.gate.wait_held(STEP_SECONDS)
                assert passing is not None, f"no {kill.step} within {STEP_SECONDS:g} s; the caller: {asking.told()}"
            rig.read_logs()
            with world.check(f"{kill.victim} is killed, the message goes on, {kill.victim} comes back"):
                strike.target = target_of(rig, passing, attempt)
                rig.victims.kill(kill.victim, strike.target)
                assert rig.gate.release(), "the message that was held neither arrived nor broke"
                rig.victims.start_again()
    finally:
        rig.victims.start_again()
    with world.check("whoever asked is told how it ended"):
        asking.wait(ANSWER_SECONDS)
        strike.asked = asking.told()
    try:
        with world.check("the cloud comes to rest"):
            rest(world)
    finally:
        strike.recovery = recovery_lines(rig.read_logs())
    with world.check("it was done, or undone"):
        done = attempt.done()
        strike.outcome = "done" if done else "undone"
    if not done:
        with world.check("it can be asked for again"):
            attempt.again()
            strike.outcome = "undone, then done when asked again"
    with world.check("every byte is where it should be"):
        attempt.check()
    assert not rig.proxy.errors, f"the proxy failed: {rig.proxy.errors}"


def target_of(rig: Rig, passing: Passing, attempt: Attempt) -> Target:
    """The host that the message is about, else the VM's."""
    hosts = rig.victims.hosts
    host = next((party for party in passing.parties if party in hosts), rig.stage.host.name)
    return Target(host, attempt.vm_name())


def quiet(rig: Rig) -> None:
    """Wait until nothing of the case before is under way any more."""
    if not rig.proxy.quiet_tick(rig.stage.host.name, QUIET_SECONDS):
        raise TimeoutError(f"something besides pings is sent again and again for {QUIET_SECONDS:g} s")


def rest(world: World) -> None:
    """Every host Up, and the invariants hold."""
    found: list[checks.Violation] = []

    def at_rest() -> bool:
        hosts = world.cloud.call("listHosts", type="Routing").get("host", [])
        found[:] = checks.violations(checks.take(world))
        return not found and all(host["state"] == "Up" for host in hosts)

    try:
        world.wait_until("every host is Up and the invariants hold", at_rest, REST_SECONDS)
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {'; '.join(map(str, found)) or 'a host is not Up'}") from error


class Asking:
    """Asks for an operation in a thread of its own: its answer may take as long as the recovery."""

    def __init__(self, attempt: Attempt, cloud: Cloud) -> None:
        self._attempt = attempt
        self._cloud = cloud
        self._told = "no answer yet"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"the API call did not end within {seconds:g} s")

    def told(self) -> str:
        return self._told

    def _run(self) -> None:
        try:
            self._attempt.ask(self._cloud)
            self._told = "success"
        except CloudApiError as error:
            self._told = str(error)
        except Exception as error:
            # The management server was killed, so that no answer can come: it is asked again when it is back.
            self._told = f"no answer: {type(error).__name__}"
