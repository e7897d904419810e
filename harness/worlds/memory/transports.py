"""Messages between the simulated processes: StorPool calls, and commands to agents.

A request can be lost before it arrives, and its answer after it took effect: the points "send" and "answer" are where
a fault plan does so, and where other tasks may go first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import msgspec

import simulator.ports
from harness.runtime.process import SimulatedEvent, SimulatedRuntime
from harness.spi.commands import AnyAnswer, AnyCommand
from harness.spi.errors import Unavailable, Unknown
from harness.storpool import AnswerLost, NotSent, Reply, Request, Secret

T = TypeVar("T")

_PREFIX = "/ctrl/1.0/"


class StorPoolServer:
    """The simulator's process: its service while it lives, and a task that lets its time pass."""

    def __init__(
        self, runtime: SimulatedRuntime, service: simulator.ports.Service, calls: dict[str, int] | None = None
    ) -> None:
        self.calls = {} if calls is None else calls
        """Calls served, by name; kept over a restart."""
        self.runtime = runtime
        self._service = service
        self._nearer = runtime.event("something to be due sooner")
        self._wakes_at = 0.0
        runtime.spawn("tick", self._tick)

    def call(self, sender: SimulatedRuntime, name: str, request: simulator.ports.Request, timeout: float) -> Reply:
        """Carry out a call in the sender's task; raises `NoAnswer`."""
        replies: list[simulator.ports.Reply] = []
        answered = sender.event(f"the answer to StorPool {name}")

        def receive(reply: simulator.ports.Reply) -> None:
            replies.append(reply)
            answered.deliver()

        self.calls[name] = self.calls.get(name, 0) + 1
        number = self._service.submit(request, receive)
        due = self._service.due_in()
        if due is not None and sender.monotonic() + due < self._wakes_at:
            self._nearer.deliver()
        sender.point("answer", f"StorPool {name}")
        if not replies:
            in_time = self._await(answered, timeout)
            if not replies and not self.runtime.dead:
                self._service.cancel(number)
            if not in_time:
                raise NoAnswer(f"StorPool {name}: no answer in {timeout:g} s")
        if not replies:
            raise NoAnswer(f"StorPool {name}: the connection broke before the answer")
        return Reply(replies[0].status, replies[0].body)

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
        name = request.path.removeprefix("MultiCluster/").partition("/")[0]
        self._runtime.point("send", f"StorPool {name}")
        server = self._server()
        if server.runtime.dead or not self._reached():
            raise NotSent(f"StorPool {name}: {self._runtime.process} cannot connect to the StorPool API")
        sent = simulator.ports.Request(
            verb=request.verb, path=_PREFIX + request.path, body=request.body or b"", token=self._token.reveal()
        )
        try:
            return server.call(self._runtime, name, sent, request.timeout)
        except NoAnswer as error:
            raise AnswerLost(f"{error}; the request may have been carried out, or may be later") from error


class NoAnswer(Exception):
    """The request was delivered and no answer came; the text says why. It may be, or may have been, carried out."""


def exchange(
    sender: SimulatedRuntime, receiver: SimulatedRuntime, what: str, work: Callable[[], T], timeout: float
) -> T:
    """Have a task of `receiver` do `work` and wait for what it gives, at most `timeout` seconds.

    Raises `NoAnswer`, and `ConnectionError` when the receiver is dead, so that nothing was done.
    """
    sender.point("send", what)
    if receiver.dead:
        raise ConnectionRefusedError(f"{what}: it was not delivered, {receiver.process} does not run")
    answers: list[T] = []
    answered = sender.event(f"the answer to {what}")

    def serve() -> None:
        try:
            answers.append(work())
        finally:
            answered.deliver()

    # A receiver that is killed is seen at once, as a connection that breaks.
    receiver.at_death[me := object()] = answered.deliver
    try:
        receiver.spawn(what, serve)
        in_time = answered.wait(timeout)
    finally:
        del receiver.at_death[me]
    if not in_time:
        raise NoAnswer(f"{what}: no answer in {timeout:g} s")
    sender.point("answer", what)
    if not answers:
        raise NoAnswer(f"{what}: the connection broke before the answer")
    return answers[0]


_commands: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)
_answers: msgspec.json.Decoder[AnyAnswer] = msgspec.json.Decoder(AnyAnswer)
_encoder = msgspec.json.Encoder()


class Listener:
    """A party that takes commands: a process and what it does with each. Both are set anew when it starts again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runtime: SimulatedRuntime | None = None
        self._handle: Callable[[AnyCommand], AnyAnswer] | None = None

    def listen(self, runtime: SimulatedRuntime, handle: Callable[[AnyCommand], AnyAnswer]) -> None:
        self.runtime = runtime
        self._handle = handle

    def work(self, message: bytes) -> bytes:
        """Carry out one encoded command; for a task of the process."""
        if self._handle is None:
            raise ConnectionError(f"{self.name} does not listen yet")
        return _encoder.encode(self._handle(_commands.decode(message)))


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
        listener = self._listener
        if listener.runtime is None:
            raise Unavailable(f"{what}: it was not delivered, nobody listens there; is the agent running?")
        try:
            answer = exchange(self._runtime, listener.runtime, what, lambda: listener.work(message), timeout)
        except ConnectionError as error:
            raise Unavailable(f"{error}; is the agent running?") from error
        except NoAnswer as error:
            raise Unknown(f"{error}; the command may have been carried out, or may still be") from error
        return _answers.decode(answer)
