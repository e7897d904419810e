"""One kill: the operation is asked for, the victim killed while a message is held, and what comes of it is judged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from harness import checks, tidy
from harness.observers import Cloud, CloudApiError, World
from harness.worlds.local.steps.gate import Gate, Passing
from harness.worlds.local.steps.operations import Attempt, Operation
from harness.worlds.local.steps.plan import Found, Kill
from harness.worlds.local.steps.proxy import Proxy
from harness.worlds.local.steps.recovery import recovery_lines
from harness.worlds.local.steps.stage import Stage
from harness.worlds.local.steps.victims import QEMU, Target, Victims

QUIET_SECONDS = 30.0
TAGS = "(tags)"
"""How names of steps end that change tags."""
STEP_SECONDS = 60.0
"""How long an operation may take until it comes to a step."""
QEMU_SECONDS = 30.0
"""How long the QEMU that ran at a step when it was found may take to run there again, while the message is held."""
ANSWER_SECONDS = 150.0
"""How long the operation's caller may wait for an answer once the victim is back."""
REST_SECONDS = 90.0
SUCCESS = "success"
DONE, UNDONE, STOPPED = "done", "undone", "done, then its guest was dead"
AGAIN = ", then done when asked again"


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
    open_operations: Callable[[], list[str]]
    """Those of the storage driver that are not over: kind, subject and step."""


def find_steps(rig: Rig, operation: Operation, world: World) -> list[Found]:
    """The steps of the operation, as it shows them when nobody is killed; what it made is removed again."""
    before = tidy.inventory(world)
    attempt = operation.prepare(rig.stage, world)
    found: list[Found] = []
    quiet(rig, TAGS)

    def look(passing: Passing) -> None:
        found.append(Found(passing.step, attempt.vm_name() is not None))

    with rig.gate.counting(look=look, there=existing(world)):
        attempt.ask(rig.caller)
    assert attempt.done(), f"{operation.title}: it is not done although nobody was killed"
    attempt.check()
    left = tidy.tidy(world, before)
    assert not left, f"after {operation.title} something is left: {left}"
    return found


def strike_at(rig: Rig, kill: Kill, operation: Operation, world: World, strike: Strike) -> None:
    """Ask for the operation, kill at the step, and judge what recovery makes of it."""
    with world.check("the operation can begin"):
        attempt = operation.prepare(rig.stage, world)
        quiet(rig, kill.step.name)
    asking = Asking(attempt, rig.caller)
    try:
        with rig.gate.counting(kill.step, there=existing(world)):
            asking.start()
            with world.check("the step comes, and its message is held"):
                passing = rig.gate.wait_held(STEP_SECONDS)
                assert passing is not None, f"no {kill.step} within {STEP_SECONDS:g} s; the caller: {asking.told()}"
            rig.read_logs()
            with world.check(f"{kill.victim} is killed, the message goes on, {kill.victim} comes back"):
                if kill.victim == QEMU:
                    # A look of the management server may come before or after what an agent does at the same time.
                    world.wait_until("the VM's QEMU runs", lambda: attempt.vm_name() is not None, QEMU_SECONDS)
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
        strike.outcome = DONE if done else UNDONE
    if asking.succeeded and not done:
        with world.check("who was told success has it, but for a guest that was killed"):
            assert kill.victim == QEMU, "the caller was told success, but the operation is undone"
            strike.outcome = STOPPED
    if not done:
        with world.check("it can be asked for again"):
            attempt.again()
            strike.outcome += AGAIN
    with world.check("every byte is where it should be"):
        attempt.check()
    assert not rig.proxy.errors, f"the proxy failed: {rig.proxy.errors}"


def target_of(rig: Rig, passing: Passing, attempt: Attempt) -> Target:
    """The host that the message is about, else the VM's."""
    hosts = rig.victims.hosts
    host = next((party for party in passing.parties if party in hosts), rig.stage.host.name)
    return Target(host, attempt.vm_name())


def existing(world: World) -> set[str]:
    """Ids by which the volumes and snapshots there are can be found; one that was reverted has its first as a name."""
    found = [*world.storpool.volumes(), *world.storpool.snapshots()]
    return {str(one[key]).removeprefix("~") for one in found for key in ("globalId", "name")}


def quiet(rig: Rig, step: str) -> None:
    """Wait until nothing of the case before is under way any more, nor to come that could be taken for this step.

    Tags are sent once more when a copy of them can be under way no longer: seconds later, of a volume that is there.
    """
    if step.endswith(TAGS):
        deadline = time.monotonic() + QUIET_SECONDS
        while left := [text for text in rig.open_operations() if text.startswith("tags ")]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"tags of a case before are not settled after {QUIET_SECONDS:g} s: {left}")
            time.sleep(0.1)
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

    @property
    def succeeded(self) -> bool:
        return self._told == SUCCESS

    def _run(self) -> None:
        try:
            self._attempt.ask(self._cloud)
            self._told = SUCCESS
        except CloudApiError as error:
            self._told = str(error)
        except Exception as error:
            # The management server was killed, so that no answer can come: it is asked again when it is back.
            self._told = f"no answer: {type(error).__name__}"
