"""The result stream: one JSON object a line, written while the run goes on (design section 11).

Times are seconds since the run began. A stream that was cut short (a killed run) can still be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from scenarios.table import RowId

STREAM_NAME = "results.jsonl"


class Base(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", forbid_unknown_fields=True):
    at: float = 0.0


class SuiteStarted(Base, frozen=True, kw_only=True, tag="suite-start"):
    properties: dict[str, str]
    """Lab file hash, hosts, kernel, libvirt, QEMU, commit, Python ..."""
    rows: list[RowId]
    """The rows that were chosen."""
    worlds: list[str]
    cases: dict[str, list[str]]
    """Row -> scenarios that must run in each world; a row that is not built has none."""
    existing: dict[str, int] = {}
    """Row -> how many scenarios it has, where more than were chosen."""


class Note(Base, frozen=True, kw_only=True, tag="note"):
    """A line for the reader: what is being set up, what this machine cannot do."""

    text: str


class CaseStarted(Base, frozen=True, kw_only=True, tag="case-start"):
    world: str
    row: RowId
    case: str
    title: str
    properties: dict[str, str] = {}
    """Seed, hosts."""


class Check(Base, frozen=True, kw_only=True, tag="check"):
    world: str
    case: str
    name: str
    passed: bool
    error: str = ""


class Timeline(Base, frozen=True, kw_only=True, tag="timeline"):
    """Something that happened during a case."""

    world: str
    case: str
    source: str
    """Who was asked: `CloudStack`, `StorPool`, `agent HOST`, `libvirt HOST` ..."""
    text: str


class Evidence(Base, frozen=True, kw_only=True, tag="evidence"):
    """What a host or guest showed: domain XML, device listing, guest output, a log."""

    world: str
    case: str
    title: str
    text: str


class Fault(Base, frozen=True, kw_only=True, tag="fault"):
    """What a case struck an operation with, and what became of it."""

    world: str
    case: str
    operation: str
    step: str
    """Where it struck."""
    victim: str
    """Who was killed."""
    asked: str
    """What the operation's caller was told in the end."""
    recovery: list[str]
    """What recovery did, in the words of the processes' logs."""
    outcome: str
    """Whether the operation was done or undone; empty when neither could be said."""


class Measured(Base, frozen=True, kw_only=True, tag="measured"):
    """One figure of a benchmark, beside what was measured in turns with it."""

    leg: str
    name: str
    unit: str
    value: float
    """Median of its samples."""
    baseline: float | None = None
    """Median of the baseline's samples; None of what is measured alone."""
    against: str = ""
    """What the baseline is."""
    ratio: float | None = None
    """Median of the turns' ratios, value to baseline."""
    spread: tuple[float, float] = (0.0, 0.0)
    """Quartiles of the turns' ratios, or of the values where there is no baseline."""
    bound: str = ""
    """`at least` or `at most`; empty of what is only reported."""
    target: float | None = None
    """For the ratio, or for the value where there is no baseline."""
    met: bool | None = None
    samples: list[tuple[float, float | None]] = []
    """Of each turn: value and baseline."""


class CaseEnded(Base, frozen=True, kw_only=True, tag="case-end"):
    world: str
    case: str
    outcome: str
    """"passed", "failed" or "skipped"."""
    seconds: float
    why: str = ""
    detail: str = ""
    """Traceback or log, after the first line."""
    reproduce: str = ""
    invariants_checked: int = 0
    invariants_violated: list[str] = []


class WorldFailed(Base, frozen=True, kw_only=True, tag="world-failed"):
    """A world could not be set up or torn down; its rows did not all run."""

    world: str
    why: str
    detail: str = ""


class SuiteEnded(Base, frozen=True, kw_only=True, tag="suite-end"):
    seconds: float


Event = (
    SuiteStarted
    | Note
    | CaseStarted
    | Check
    | Timeline
    | Evidence
    | Fault
    | Measured
    | CaseEnded
    | WorldFailed
    | SuiteEnded
)
Listener = Callable[[Event], None]

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """The event as a line of the stream."""
    return _encoder.encode(event) + b"\n"


def decode(line: bytes) -> Event:
    """Raises `ValueError` for what is no event."""
    return _decoder.decode(line)


class StreamWriter:
    """Appends events to a file; each is on its way to disk when the call returns."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("wb")

    def __call__(self, event: Event) -> None:
        self._file.write(encode(event))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_stream(path: Path) -> Iterator[Event]:
    """Events of a stream. A last line that is not whole is left out; any other bad line raises `ValueError`."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield decode(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
