"""Programs that the agent runs on a model machine: arguments, files, and copies that go on when the agent dies.

Kinder than the real ones: a copy takes `COPY_SECONDS` whatever its size, and a program has only the options that the
agent uses. Any other is refused, as is a format that is not given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.runtime.process import SimulatedEvent, SimulatedRuntime
from harness.spi.errors import Unknown
from harness.spi.ports import Output
from harness.worlds.memory.machine import Machine
from harness.worlds.memory.model_running import ModelProgram
from harness.worlds.memory.model_storage import NfsFiles
from simulator.ports import BlocksError

COPY_SECONDS = 12.0
SLOWNESS = 50.0
"""Of copies that are slow."""
PRINT_SECONDS = 2.5
"""Between two numbers of a program that prints how far it is."""

Options = Mapping[str, bool]
"""Options that a program understands, and whether a value follows."""


class Files(NfsFiles, Protocol):
    """What the network has: image files, and web pages."""

    @property
    def stalls(self) -> int:
        """How many reasons there are for which the NFS server does not answer."""
        ...

    def page(self, url: str) -> bytes | None:
        """What a web server has at the URL."""
        ...


class Failed(Exception):
    """The program ends with an error status and this text."""


@dataclass(slots=True)
class Call:
    """Arguments of a program."""

    options: dict[str, str] = field(default_factory=dict)
    operands: list[str] = field(default_factory=list)

    def need(self, option: str) -> str:
        if option not in self.options:
            raise Failed(f"refused: {option} FORMAT is missing; a format must never be probed")
        return self.options[option]

    def operand(self, index: int, count: int) -> str:
        if len(self.operands) != count:
            raise Failed(f"expected {count} file names, got {len(self.operands)}")
        return self.operands[index]


def parse(arguments: Sequence[str], known: Options) -> Call:
    call = Call()
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            call.operands.append(argument)
        elif argument not in known:
            raise Failed(f"the model does not know option {argument}")
        else:
            call.options[argument] = next(rest, "") if known[argument] else ""
    return call


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a program. `runtime` is its agent's, `operation` what the program is found by, `timeout` seconds."""

    machine: Machine
    runtime: SimulatedRuntime
    files: Files
    arguments: tuple[str, ...]
    stdin: bytes
    operation: str | None
    timeout: float
    output: Output | None = None
    """Who hears how far it is, of one with -p."""

    def call(self, known: Options) -> Call:
        """What follows the program and its verb."""
        return parse(self.arguments[2:], known)

    def device(self, path: str) -> int:
        """The object behind a device, as programs open it for writing."""
        key = self.machine.storage.key(path)
        if key is None:
            raise Failed(f"Could not open '{path}': No such file or directory")
        return key

    def work(self, work: Callable[[ModelProgram], None], reads: int | None = None) -> None:
        """Have the machine do what takes its time, and wait for it; `reads` as `ModelProgram.reads`.

        Raises `Failed`, or `Unknown` when it was not over in time and was killed.
        """
        machine = self.machine
        killed = machine.runtime.event("a signal")
        slowness = SLOWNESS if machine.slow_copies else 1.0
        copies = " ".join(self.arguments) if self.arguments[1:2] == ("convert",) else ""
        program = ModelProgram(machine.runtime, self.operation, killed, reads, copies, slowness)
        failures: list[BlocksError] = []
        ended = self.runtime.event(f"the end of qemu-img on {machine.name}")

        def copy() -> None:
            try:
                work(program)
            except BlocksError as error:
                failures.append(error)
            machine.programs.remove(program)
            ended.deliver()

        machine.programs.append(program)
        machine.runtime.spawn("qemu-img", copy)
        if not self._await(ended, program):
            program.killed.deliver()
            ended.wait()
            raise Unknown(f"qemu-img did not end within {self.timeout:g} s and was killed")
        if program.killed.is_set():
            raise Failed("killed")
        if failures:
            raise Failed(f"error while writing: {failures[0]}")

    def _await(self, ended: SimulatedEvent, program: ModelProgram) -> bool:
        """Whether it ended in time. Meanwhile it prints how far it is."""
        left = self.timeout
        if self.output is None or "-p" not in self.arguments:
            return ended.wait(left)
        while left > 0:
            pause = min(PRINT_SECONDS, left)
            if ended.wait(pause):
                return True
            self.output(f"    ({100 * program.share:.2f}/100%)\r".encode())
            left -= pause
        return False

    def write(self, key: int, offset: int, pieces: Sequence[bytes], program: ModelProgram, seconds: float) -> None:
        """Pieces one after the other from `offset` on; a program that is killed leaves those that it has written."""
        machine = self.machine
        with machine.storage.opened(key):
            for number, piece in enumerate(pieces, start=1):
                machine.runtime.point("effect-begin", f"{machine.name}: a program writes")
                if program.work(seconds / len(pieces), number / len(pieces)):
                    return
                machine.storage.blocks.write(key, offset, piece)
                offset += len(piece)
