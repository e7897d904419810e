"""`harness.spi.ports.Host` over a model machine: its devices, its text files, and the programs that the agent runs."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence

from harness.agent.fetching import HEAD_SCRIPT
from harness.runtime.process import SimulatedRuntime
from harness.spi.errors import NotFound, Unavailable, Unknown
from harness.spi.ports import CommandResult, Output
from harness.worlds.memory import model_cryptsetup, model_qemu_img
from harness.worlds.memory.machine import Machine
from harness.worlds.memory.model_fetching import SUMS, fetched
from harness.worlds.memory.model_programs import Failed, Files, Run

END_POLL_SECONDS = 0.05
_FETCH_STATUS = 22
"""curl's, for an error of the server."""
_PROGRAMS: Mapping[tuple[str, ...], Callable[[Run], bytes]] = {
    ("qemu-img", "info"): model_qemu_img.info,
    ("qemu-img", "create"): model_qemu_img.create,
    ("qemu-img", "convert"): model_qemu_img.convert,
    ("cryptsetup", "luksFormat"): model_cryptsetup.luks_format,
    ("cryptsetup", "open"): model_cryptsetup.check_passphrase,
}
"""What each prints, by the program and its verb."""


class ModelHost:
    """One agent's view of the machine; its runtime fences it when the agent is killed."""

    def __init__(self, machine: Machine, runtime: SimulatedRuntime, files: Files) -> None:
        self._machine = machine
        self._runtime = runtime
        self._files = files

    def block_device_size(self, path: str) -> int | None:
        self._runtime.monotonic()
        return self._machine.storage.device_size(path)

    def read_text(self, path: str) -> str:
        self._runtime.monotonic()
        text = self._machine.files.get(path)
        if text is None:
            raise NotFound(f"{path} does not exist on host {self._machine.name}")
        return text

    def write_durably(self, path: str, text: str) -> None:
        """At once; a kill strikes before or after."""
        what = f"{self._machine.name}: write {posixpath.dirname(path)}"
        self._runtime.point("commit", what)
        self._machine.files[path] = text
        self._runtime.point("commit", f"{what}, done")

    def remove(self, path: str) -> None:
        what = f"{self._machine.name}: remove from {posixpath.dirname(path)}"
        self._runtime.point("commit", what)
        self._machine.files.pop(path, None)
        self._machine.images.pop(path, None)
        self._runtime.point("commit", f"{what}, done")

    def list_directory(self, path: str) -> tuple[str, ...]:
        self._runtime.monotonic()
        return tuple(
            sorted(posixpath.basename(file) for file in self._machine.files if posixpath.dirname(file) == path)
        )

    def end_programs(self, operation: str, *, timeout: float) -> None:
        deadline = self._runtime.monotonic() + timeout
        while found := [program for program in self._machine.programs if program.operation == operation]:
            for program in found:
                program.killed.deliver()
            if self._runtime.monotonic() >= deadline:
                raise Unknown(f"programs of operation {operation} are still there after {timeout:g} s")
            self._runtime.sleep(END_POLL_SECONDS)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float,
        operation: str | None = None,
        output: Output | None = None,
    ) -> CommandResult:
        """qemu-img info, create, convert; cryptsetup luksFormat, open; curl and sums. No other program is there."""
        arguments = tuple(argv)
        machine, verb = self._machine, arguments[:2]
        machine.command_lines.append(" ".join(arguments))
        if arguments[:1] == ("prlimit",):
            arguments = arguments[arguments.index("curl") :]
        run = Run(machine, self._runtime, self._files, arguments, stdin, operation, timeout, output)
        if (arguments and arguments[0] in ("curl", *SUMS)) or arguments[:3] == ("sh", "-c", HEAD_SCRIPT):
            return self._ran(run, arguments[0], fetched, _FETCH_STATUS, "curl: (22)")
        if arguments[:1] == ("cryptsetup",) and machine.no_cryptsetup:
            raise Unavailable(f"cryptsetup cannot be started on host {machine.name}: it is not there")
        if arguments == ("cryptsetup", "--version"):
            # As quick as a look, and asked for with every ping.
            return CommandResult(arguments, 0, model_cryptsetup.VERSION, b"")
        program = _PROGRAMS.get(verb)
        if program is None:
            raise Unavailable(f"the model host {machine.name} has no program for {' '.join(verb)}")
        return self._ran(run, " ".join(verb), program, 1, f"{arguments[0]}:")

    def _ran(self, run: Run, name: str, program: Callable[[Run], bytes], status: int, prefix: str) -> CommandResult:
        """With `status`, and a line that begins with `prefix`, when it fails."""
        point = f"{self._machine.name}: {name}"
        self._runtime.point("effect-begin", point)
        try:
            output = program(run)
        except Failed as error:
            return CommandResult(run.arguments, status, b"", f"{prefix} {error}\n".encode())
        self._runtime.point("effect-end", point)
        return CommandResult(run.arguments, 0, output, b"")
