"""What the processes of a lab logged during a case: JSON lines with ts, logger, host and message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

Read = Callable[[int], tuple[int, str]]
"""What a log holds after a byte position, and the position of its end."""


class LogLine(msgspec.Struct, frozen=True):
    """A line as the processes write it; further members are left out."""

    ts: float
    """Unix seconds."""
    logger: str
    message: str
    level: str = "info"


@dataclass(slots=True)
class Log:
    """One process's log, read piece by piece."""

    name: str
    read: Read
    position: int = 0
    rest: str = ""

    def lines(self) -> Iterator[LogLine]:
        """Lines since the last call. What is no JSON line (a traceback of the interpreter) comes as it is."""
        self.position, text = self.read(self.position)
        *whole, self.rest = (self.rest + text).split("\n")
        last = 0.0
        for line in whole:
            if not line.strip():
                continue
            try:
                found = _decoder.decode(line)
            except msgspec.DecodeError:
                found = LogLine(ts=last, logger="stderr", message=line)
            last = found.ts
            yield found


@dataclass(slots=True)
class Logs:
    """All logs of a lab."""

    logs: list[Log] = field(default_factory=list)

    def entries(self) -> list[tuple[float, str, str]]:
        """(Unix seconds, source, text) of everything logged since the last call, in order of time."""
        found = [(line.ts, _source(log.name, line), line.message) for log in self.logs for line in log.lines()]
        return sorted(found, key=lambda entry: entry[0])


def _source(name: str, line: LogLine) -> str:
    room = line.logger.rpartition(".")[2]
    return f"{name} {room}" if line.level in ("info", "debug") else f"{name} {room} {line.level}"


_decoder = msgspec.json.Decoder(LogLine)
