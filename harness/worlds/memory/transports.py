"""Messages between the simulated processes: StorPool calls, and commands to agents.

The points "send" and "answer" are where other tasks may go first, and where a strike says what becomes of a message
(`harness.runtime.messages`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

import simulator.ports
from harness.agent.inflight import Failed, InFlight, TooBusy
from harness.runtime.messages import MessageFate, MessageFault
from harness.runtime.process import SimulatedEvent, SimulatedRuntime
from harness.spi.commands import AnyAnswer, AnyCommand
from harness.spi.errors import Error, Unavailable, Unknown
from harness.storpool import AnswerLost, NotSent, Reply, Request, Secret
from simulator.effects import Done, Effects, Work

T = TypeVar("T")

_PREFIX = "/ctrl/1.0/"
Refusals = dict[tuple[str, str], simulator.ports.Reply]
"""Answers to what is not carried out, by call and the object in its path."""
COME_AGAIN = simulator.ports.Reply(503, b'{"error":{"name":"unavailable","descr":"Try again later","transient":true}}')
BUSY = simulator.ports.Reply(409, b'{"error":{"name":"busy","descr":"The object is busy","transient":false}}')


class Network:
    """What is under way between processes and arrives when its sender has long given up."""

    def __init__(self, runtime: SimulatedRuntime) -> None:
        self._runtime = runtime
        self._under_way = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way

    def later(self, seconds: float, what: str, deliver: Callable[[], None]) -> None:
        """Call `deliver`, which must not wait, in `seconds`."""
        self._under_way += 1

        def arrive() -> None:
            self._runtime.sleep(seconds)
            deliver()
            self._under_way -= 1

        self._runtime.spawn(what, arrive)


class DyingEffects:
    """Effects of StorPool calls, carried out at once. When `dying` is set the process dies that makes the next one."""

    def __init__(self) -> None:
        self.dying: Callable[[str], None] | None = None
        """Kills the StorPool process of this name; used once."""
        self.after = False
        """Whether it dies between the effect and its commit, and not before the effect."""

    def of(self, process: str) -> Effects:
        """For this process."""
        return _EffectsOf(self, process)

    def start(self, process: str, work: Work, done: Done) -> None:
        dying, self.dying = self.dying, None
        if dying is None:
            done(work())
            return
        if self.after:
            work()
        dying(process)


@dataclass(frozen=True, slots=True)
class _EffectsOf:
    shared: DyingEffects
    process: str

    def start(self, work: Work, done: Done) -> None:
        self.shared.start(self.process, work, done)


class StorPoolServer:
    """The simulator's process: its service while it lives, and a task that lets its time pass."""

    def __init__(
        self,
        runtime: SimulatedRuntime,
        service: simulator.ports.Service,
        network: Network,
        calls: dict[str, int] | None = None,
        shown: str = "",
        refusals: Refusals | None = None,
    ) -> None:
        """`shown` is what points and errors call the process beside the first one's."""
        self.shown = shown
        self._refusals = {} if refusals is None else refusals
        self.calls = {} if calls is None else calls
        """Calls served, by name; kept over a restart."""
        self.runtime = runtime
        self._service = service
        self._network = network
        self._nearer = runtime.event("something to be due sooner")
        self._wakes_at = 0.0
        runtime.spawn("tick", self._tick)

    def wake(self) -> None:
        """Something may be due sooner than it was, because another cluster was asked for something."""
        if not self.runtime.dead:
            self._nearer.deliver()

    def call(
        self,
        sender: SimulatedRuntime,
        name: str,
        request: simulator.ports.Request,
        timeout: float,
        fault: MessageFault | None = None,
    ) -> Reply:
        """Carry out a call in the sender's task; raises `NoAnswer`."""
        answered = sender.event(f"the answer to StorPool {name}")
        fate = None if fault is None else fault.fate
        if fault is not None and fate in (MessageFate.LOST, MessageFate.LATE):
            if fate is MessageFate.LATE:
                self._again(timeout + fault.seconds, name, request)
            raise self._silence(name, answered, timeout)
        replies: list[simulator.ports.Reply] = []

        def receive(reply: simulator.ports.Reply) -> None:
            replies.append(reply)
            answered.deliver()

        if fault is not None and fate is MessageFate.REJECTED:
            replies.append(simulator.ports.Reply(500, fault.answer))
            number = None
        elif (refusal := self._refusals.get((name.partition(AT)[0], request.path.rpartition("/")[2]))) is not None:
            replies.append(refusal)
            number = None
        else:
            number = self.submit(name, request, receive)
        if fault is not None and fate is MessageFate.TWICE:
            self._again(fault.seconds, name, request)
        fault = sender.message("answer", f"StorPool {name}")
        if fault is not None:
            self._lose_answer(sender, name, fault, timeout)
        if not replies:
            in_time = self._await(answered, timeout)
            if not replies and number is not None and not self.runtime.dead:
                self._service.cancel(number)
            if not in_time:
                raise NoAnswer(f"StorPool {name}: no answer in {timeout:g} s")
        if not replies:
            raise NoAnswer(f"StorPool {name}: the connection broke before the answer")
        return Reply(replies[0].status, replies[0].body)

    def submit(
        self, name: str, request: simulator.ports.Request, receive: Callable[[simulator.ports.Reply], None]
    ) -> int:
        """A request arrives; its number. For a living process."""
        served = name.partition(AT)[0]
        self.calls[served] = self.calls.get(served, 0) + 1
        number = self._service.submit(request, receive)
        due = self._service.due_in()
        if due is not None and self.runtime.simulation.elapsed + due < self._wakes_at:
            self._nearer.deliver()
        return number

    def object_keys(self) -> Mapping[str, int]:
        """See `simulator.ports.Service`."""
        return self._service.object_keys()

    def _again(self, seconds: float, name: str, request: simulator.ports.Request) -> None:
        """A copy of the request arrives later, if the process lives then; nobody waits for its answer."""

        def arrive() -> None:
            if not self.runtime.dead:
                self.runtime.simulation.note(self.runtime.process, "late", f"StorPool {name}")
                self.submit(name, request, lambda _reply: None)

        self._network.later(seconds, f"late StorPool {name}", arrive)

    def _silence(self, name: str, answered: SimulatedEvent, timeout: float) -> NoAnswer:
        """Wait for an answer that does not come; what to raise then."""
        if self._await(answered, timeout):
            return NoAnswer(f"StorPool {name}: the connection broke before the answer")
        return NoAnswer(f"StorPool {name}: no answer in {timeout:g} s")

    def _lose_answer(self, sender: SimulatedRuntime, name: str, fault: MessageFault, timeout: float) -> None:
        if fault.fate is MessageFate.BROKEN:
            raise NoAnswer(f"StorPool {name}: the connection broke before the answer")
        if fault.fate is MessageFate.ANSWER_LATE:
            sender.sleep(fault.seconds)
            return
        raise self._silence(name, sender.event(f"the lost answer to StorPool {name}"), timeout)

    def _await(self, answered: SimulatedEvent, timeout: float) -> bool:
        self.runtime.at_death[me := object()] = answered.deliver
        try:
            return answered.wait(timeout)
        finally:
            del self.runtime.at_death[me]

    def _tick(self) -> None:
        while True:
            seconds = self._service.tick()
            self._wakes_at = math.inf if seconds is None else self.runtime.monotonic() + seconds
            self._nearer.wait(seconds)
            self._nearer = self.runtime.event("something to be due sooner")


AT = " at "
"""Between a call and the process that it is made at, in points of all but the first StorPool process."""
_REMOTE = re.compile(r"RemoteCommand/[^/]+/")


def call_name(path: str) -> str:
    """`VolumeUpdate` of whatever form a call's path has."""
    return _REMOTE.sub("", path).removeprefix("MultiCluster/").partition("/")[0]


class StorPoolTransport:
    """`harness.storpool.Transport` of one process, straight to the service. `reached` says whether the way is open."""

    def __init__(
        self,
        runtime: SimulatedRuntime,
        server: Callable[[], StorPoolServer],
        token: Secret,
        reached: Callable[[], bool] = lambda: True,
    ) -> None:
        self._runtime = runtime
        self._server = server
        self._token = token
        self._reached = reached

    def call(self, request: Request) -> Reply:
        server = self._server()
        name = call_name(request.path)
        if server.shown:
            name = f"{name}{AT}{server.shown}"
        fault = self._runtime.message("send", f"StorPool {name}")
        server = self._server()
        refused = fault is not None and fault.fate is MessageFate.REFUSED
        if server.runtime.dead or refused or not self._reached():
            raise NotSent(f"StorPool {name}: {self._runtime.process} cannot connect to the StorPool API")
        sent = simulator.ports.Request(
            verb=request.verb, path=_PREFIX + request.path, body=request.body or b"", token=self._token.reveal()
        )
        try:
            return server.call(self._runtime, name, sent, request.timeout, fault)
        except NoAnswer as error:
            raise AnswerLost(f"{error}; the request may have been carried out, or may be later") from error


class NoAnswer(Exception):
    """The request was delivered and no answer came; the text says why. It may be, or may have been, carried out."""


def exchange(
    sender: SimulatedRuntime,
    receiver: SimulatedRuntime,
    what: str,
    work: Callable[[], T],
    timeout: float,
    network: Network,
) -> T:
    """Have a task of `receiver` do `work` and wait for what it gives, at most `timeout` seconds.

    Raises `NoAnswer`, and `ConnectionError` when the receiver is dead, so that nothing was done.
    """
    fault = sender.message("send", what)
    fate = None if fault is None else fault.fate
    if receiver.dead or fate is MessageFate.REFUSED:
        raise ConnectionRefusedError(f"{what}: it was not delivered, {receiver.process} does not run")
    answers: list[T] = []
    answered = sender.event(f"the answer to {what}")

    def serve() -> None:
        try:
            answers.append(work())
        finally:
            answered.deliver()

    def again() -> None:
        if not receiver.dead:
            receiver.spawn(f"late {what}", _ignored(work))

    # A receiver that is killed is seen at once, as a connection that breaks.
    receiver.at_death[me := object()] = answered.deliver
    try:
        if fault is not None and fate in (MessageFate.LATE, MessageFate.TWICE):
            network.later(fault.seconds + (timeout if fate is MessageFate.LATE else 0.0), f"late {what}", again)
        if fate not in (MessageFate.LOST, MessageFate.LATE):
            receiver.spawn(what, serve)
        in_time = answered.wait(timeout)
    finally:
        del receiver.at_death[me]
    if not in_time:
        raise NoAnswer(f"{what}: no answer in {timeout:g} s")
    fault = sender.message("answer", what)
    if fault is not None and fault.fate is MessageFate.ANSWER_LATE:
        sender.sleep(fault.seconds)
    elif fault is not None and fault.fate is MessageFate.ANSWER_LOST:
        sender.sleep(timeout)
        raise NoAnswer(f"{what}: no answer in {timeout:g} s")
    if not answers or (fault is not None and fault.fate is MessageFate.BROKEN):
        raise NoAnswer(f"{what}: the connection broke before the answer")
    return answers[0]


def _ignored(work: Callable[[], object]) -> Callable[[], None]:
    """Carries out a copy of a message; nobody hears what comes of it."""

    def carry_out() -> None:
        work()

    return carry_out


_commands: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)
_answers: msgspec.json.Decoder[AnyAnswer] = msgspec.json.Decoder(AnyAnswer)
_encoder = msgspec.json.Encoder()


COMMANDS = 32
"""Commands that one party carries out at a time; more are turned away."""


class Listener:
    """A party that takes commands: a process and what it does with each. Both are set anew when it starts again.

    As with the real server, one command id is carried out once.
    """

    def __init__(self, name: str, network: Network) -> None:
        self.name = name
        self.network = network
        self.runtime: SimulatedRuntime | None = None
        self._commands: InFlight | None = None

    def listen(self, runtime: SimulatedRuntime, handle: Callable[[AnyCommand], AnyAnswer]) -> None:
        self.runtime = runtime
        self._commands = InFlight(runtime, handle, COMMANDS)

    def work(self, command_id: str, message: bytes, patience: float) -> bytes | Error:
        """Carry out one encoded command; for a task of the process. An `Error` stands for a refusal of the server."""
        assert self._commands is not None, "a process that listens has set it"
        try:
            return _encoder.encode(self._commands.run(command_id, _commands.decode(message), patience))
        except TooBusy as error:
            return Unavailable(f"{self.name}: {error}")
        except Failed as error:
            if error.__cause__ is not None:
                # A bug of ours, which the run must end with.
                raise error.__cause__ from None
            return Unknown(f"{self.name}: {error}")


class MemoryEndpoint:
    """`harness.spi.ports.Endpoint` of one sender to one listener. Only what can go over a wire gets through."""

    def __init__(self, runtime: SimulatedRuntime, listener: Listener) -> None:
        self._runtime = runtime
        self._listener = listener

    @property
    def name(self) -> str:
        return self._listener.name

    def send(self, command: AnyCommand, *, timeout: float) -> AnyAnswer:
        what = f"{type(command).__name__} to {self.name}"
        message = _encoder.encode(command)
        command_id = self._runtime.uuid()
        listener = self._listener
        if listener.runtime is None:
            raise Unavailable(f"{what}: it was not delivered, nobody listens there; is the agent running?")

        def work() -> bytes | Error:
            return listener.work(command_id, message, timeout)

        try:
            answer = exchange(self._runtime, listener.runtime, what, work, timeout, listener.network)
        except ConnectionError as error:
            raise Unavailable(f"{error}; is the agent running?") from error
        except NoAnswer as error:
            raise Unknown(f"{error}; the command may have been carried out, or may still be") from error
        if isinstance(answer, Error):
            raise answer
        return _answers.decode(answer)
