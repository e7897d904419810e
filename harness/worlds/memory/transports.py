"""Messages between the simulated processes: StorPool calls, and commands to agents.

A request can be lost before it arrives, and its answer after it took effect: the points "send" and "answer" are where
a fault plan does so, and where other tasks may go first.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

import simulator.ports
from harness.runtime.process import SimulatedRuntime
from harness.spi.commands import AnyAnswer, AnyCommand
from harness.spi.errors import Unavailable, Unknown
from harness.storpool import AnswerLost, NotSent, Reply, Request, Secret

_PREFIX = "/ctrl/1.0/"


class StorPoolServer:
    """The simulator's process: its service while it lives, and a task that lets its time pass."""

    def __init__(self, runtime: SimulatedRuntime, service: simulator.ports.Service) -> None:
        self._runtime = runtime
        self._service = service
        self._changed = runtime.event("changed")
        runtime.spawn("tick", self._tick)

    @property
    def alive(self) -> bool:
        return not self._runtime.dead

    def submit(self, request: simulator.ports.Request, reply: Callable[[simulator.ports.Reply], None]) -> int:
        number = self._service.submit(request, reply)
        self._changed.deliver()
        return number

    def cancel(self, number: int) -> None:
        if self.alive:
            self._service.cancel(number)

    def _tick(self) -> None:
        while True:
            seconds = self._service.tick()
            self._changed.wait(seconds)
            self._changed = self._runtime.event("changed")


class StorPoolTransport:
    """`harness.storpool.Transport` of one process, straight to the service. `reached` says whether the way is open."""

    def __init__(
        self,
        runtime: SimulatedRuntime,
        server: Callable[[], StorPoolServer | None],
        token: Secret,
        reached: Callable[[], bool] = lambda: True,
    ) -> None:
        self._runtime = runtime
        self._server = server
        self._token = token
        self._reached = reached

    def call(self, request: Request) -> Reply:
        what = request.path.removeprefix("MultiCluster/").partition("/")[0]
        self._runtime.point("send", f"StorPool {what}")
        server = self._server()
        if server is None or not server.alive or not self._reached():
            raise NotSent(f"{self._runtime.process}: connection to the StorPool API refused")
        replies: list[simulator.ports.Reply] = []
        answered = self._runtime.event(f"answer to {what}")

        def receive(reply: simulator.ports.Reply) -> None:
            replies.append(reply)
            answered.deliver()

        sent = simulator.ports.Request(
            verb=request.verb, path=_PREFIX + request.path, body=request.body or b"", token=self._token.reveal()
        )
        number = server.submit(sent, receive)
        self._runtime.point("answer", f"StorPool {what}")
        if not replies and not answered.wait(request.timeout):
            server.cancel(number)
            raise AnswerLost(f"StorPool {request.path}: no answer in {request.timeout:g} s")
        return Reply(replies[0].status, replies[0].body)


_commands: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)
_answers: msgspec.json.Decoder[AnyAnswer] = msgspec.json.Decoder(AnyAnswer)


class Listener:
    """A party that takes commands: a process and what it does with each; both are set anew when it is started again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runtime: SimulatedRuntime | None = None
        self._handle: Callable[[AnyCommand], AnyAnswer] | None = None

    def listen(self, runtime: SimulatedRuntime, handle: Callable[[AnyCommand], AnyAnswer]) -> None:
        self.runtime = runtime
        self._handle = handle

    def take(self, message: bytes, reply: Callable[[bytes | None], None]) -> bool:
        """Work on the command in a task of the process; False when nobody listens. None means: connection broken."""
        runtime, handle = self.runtime, self._handle
        if runtime is None or handle is None or runtime.dead:
            return False
        command = _commands.decode(message)

        def work() -> None:
            answer: bytes | None = None
            try:
                answer = msgspec.json.encode(handle(command))
            finally:
                # Whoever waits sees the connection end, also when the process was killed.
                reply(answer)

        runtime.spawn(type(command).__name__, work)
        return True


class MemoryEndpoint:
    """`harness.spi.ports.Endpoint` of one sender to one listener."""

    def __init__(self, runtime: SimulatedRuntime, listener: Listener) -> None:
        self._runtime = runtime
        self._listener = listener

    @property
    def name(self) -> str:
        return self._listener.name

    def send(self, command: AnyCommand, *, timeout: float) -> AnyAnswer:
        what = f"{type(command).__name__} to {self.name}"
        message = msgspec.json.encode(command)
        self._runtime.point("send", what)
        answers: list[bytes | None] = []
        answered = self._runtime.event(f"answer to {what}")

        def receive(answer: bytes | None) -> None:
            answers.append(answer)
            answered.deliver()

        if not self._listener.take(message, receive):
            raise Unavailable(f"{what}: it was not delivered, nobody listens there; is the agent running?")
        if not answered.wait(timeout):
            raise Unknown(f"{what}: no answer in {timeout:g} s; it may still be carried out")
        self._runtime.point("answer", what)
        answer = answers[0]
        if answer is None:
            raise Unknown(f"{what}: the connection broke before the answer; it may have been carried out")
        return _answers.decode(answer)
