"""Commands that run, and answers that were given: one id is carried out once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from harness.spi.commands import AnyAnswer, AnyCommand
from harness.spi.runtime import Event, Runtime

Handler = Callable[[AnyCommand], AnyAnswer]

REMEMBERED = 1024
"""Answers kept for a command that arrives again, late; the oldest go first."""


class TooBusy(Exception):
    """As many commands run as may; this one was not begun."""


class Failed(Exception):
    """There is no answer, and what was done is not known: the handler ended with an error of its own making, or the
    same command is still being carried out."""


@dataclass
class _Running:
    command: AnyCommand
    done: Event
    answer: AnyAnswer | None = None


class InFlight:
    """Runs commands, at most `limit` at a time.

    A command that arrives again with the same id waits for the first one, or gets the answer that was given: a late
    twin must not undo what came after it.
    """

    def __init__(self, runtime: Runtime, handler: Handler, limit: int) -> None:
        self._runtime = runtime
        self._handler = handler
        self._limit = limit
        self._guard = runtime.lock("commands")
        self._idle = runtime.event("commands-idle")
        self._running = 0
        self._closed = False
        self._by_id: OrderedDict[str, _Running] = OrderedDict()

    def run(self, command_id: str | None, command: AnyCommand, patience: float) -> AnyAnswer:
        """The command's answer; a twin waits for it up to `patience` seconds. Raises `TooBusy` or `Failed`."""
        with self._guard:
            first = self._by_id.get(command_id) if command_id is not None else None
            if first is None:
                mine = self._begin(command_id, command)
        if first is not None:
            return self._await(first, command, patience)
        try:
            mine.answer = self._handler(command)
        except Exception as error:
            raise Failed(f"{type(error).__name__} in {type(command).__name__}") from error
        finally:
            self._end(command_id, mine)
        return mine.answer

    def drain(self, timeout: float) -> bool:
        """Begin nothing more, and wait for what runs; whether all of it ended within `timeout` seconds."""
        with self._guard:
            self._closed = True
            if not self._running:
                return True
        return self._idle.wait(timeout)

    def _begin(self, command_id: str | None, command: AnyCommand) -> _Running:
        if self._closed:
            raise TooBusy("this server is stopping")
        if self._running >= self._limit:
            raise TooBusy(f"{self._running} commands are running already, which is the limit")
        self._running += 1
        mine = _Running(command, self._runtime.event("command"))
        if command_id is not None:
            self._by_id[command_id] = mine
        return mine

    def _end(self, command_id: str | None, mine: _Running) -> None:
        with self._guard:
            self._running -= 1
            if command_id is not None and mine.answer is None:
                del self._by_id[command_id]
            elif len(self._by_id) > REMEMBERED:
                self._forget_oldest()
            if self._closed and not self._running:
                self._idle.set()
        mine.done.set()

    def _forget_oldest(self) -> None:
        for key, entry in self._by_id.items():
            if entry.answer is not None:
                del self._by_id[key]
                return

    def _await(self, first: _Running, command: AnyCommand, patience: float) -> AnyAnswer:
        if first.command != command:
            raise ValueError("this command id was used for another command")
        if not first.done.wait(patience):
            raise Failed("the same command, sent before, is still running")
        if first.answer is None:
            raise Failed("the same command, sent before, failed inside")
        return first.answer
