"""`harness.spi.ports.Host` over a model machine: its devices, its text files, and qemu-img as the agent calls it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from harness.spi.errors import NotFound, Unavailable
from harness.spi.ports import CommandResult
from harness.spi.runtime import Runtime
from harness.worlds.memory.image import Image, ImageError, read_image
from harness.worlds.memory.machine import Machine
from simulator.ports import BlocksError

Files = Callable[[str], bytes]
"""Contents of an image file by the name that `Secondary.file` gave; raises `NotFound`."""

_INFO_OPTIONS = {"-f": True, "--output=json": False}
_CONVERT_OPTIONS = {"-f": True, "-O": True, "-t": True, "-T": True, "-n": False, "-p": False}
"""Options that are understood, and whether a value follows."""


class ModelHost:
    """One agent's view of the machine; its runtime fences it when the agent is killed."""

    def __init__(self, machine: Machine, runtime: Runtime, files: Files) -> None:
        self._machine = machine
        self._runtime = runtime
        self._files = files

    def block_device_size(self, path: str) -> int | None:
        self._runtime.monotonic()
        return self._machine.device_size(path)

    def read_text(self, path: str) -> str:
        self._runtime.monotonic()
        text = self._machine.files.get(path)
        if text is None:
            raise NotFound(f"{path} does not exist on host {self._machine.name}")
        return text

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> CommandResult:  # noqa: ARG002 - port
        """qemu-img info and convert. Any other program is refused, as is a format that is not given."""
        arguments = tuple(argv)
        if arguments[:2] not in (("qemu-img", "info"), ("qemu-img", "convert")):
            raise Unavailable(f"the model host {self._machine.name} has no program for {' '.join(arguments[:2])}")
        self._runtime.point("effect-begin", f"{self._machine.name}: {' '.join(arguments[:2])}")
        try:
            if arguments[1] == "info":
                output = self._info(_parse(arguments[2:], _INFO_OPTIONS))
            else:
                output = self._convert(_parse(arguments[2:], _CONVERT_OPTIONS))
        except _Failed as error:
            return CommandResult(arguments, 1, b"", f"qemu-img: {error}\n".encode())
        self._runtime.point("effect-end", f"{self._machine.name}: {' '.join(arguments[:2])}")
        return CommandResult(arguments, 0, output, b"")

    def _info(self, call: _Call) -> bytes:
        file = call.operand(0, 1)
        image = self._read(file, call.need("-f"))
        return msgspec.json.encode(
            {
                "virtual-size": image.size,
                "filename": file,
                "format": call.need("-f"),
                "actual-size": sum(len(data) for _, data in image.extents),
                "dirty-flag": False,
            }
        )

    def _convert(self, call: _Call) -> bytes:
        source, destination = call.operand(0, 2), call.operand(1, 2)
        image = self._read(source, call.need("-f"))
        if call.need("-O") != "raw":
            raise _Failed(f"the model writes raw devices only, not {call.need('-O')}")
        machine = self._machine
        key = machine.key(destination)
        if key is None:
            raise _Failed(f"Could not open '{destination}': No such file or directory")
        if machine.blocks.size(key) < image.size:
            raise _Failed("error while converting raw: Device too small")
        machine.blocks.open(key, machine.client_id)
        try:
            blank = machine.blocks.stored(key) == 0
            for half in _halves(image, zeroes=not blank):
                # A kill between the halves leaves part of the image, as it would.
                self._runtime.point("effect-begin", f"{machine.name}: qemu-img writes")
                for offset, data in half:
                    machine.blocks.write(key, offset, data)
        except BlocksError as error:
            raise _Failed(f"error while writing: {error}") from error
        finally:
            machine.blocks.release(key, machine.client_id)
        return b""

    def _read(self, file: str, image_format: str) -> Image:
        try:
            return read_image(self._content(file), image_format)
        except (ImageError, NotFound) as error:
            raise _Failed(f"Could not open '{file}': {error}") from error

    def _content(self, file: str) -> bytes:
        key = self._machine.key(file)
        if key is None:
            return self._files(file)
        return self._machine.blocks.read(key, 0, self._machine.blocks.size(key))


class _Failed(Exception):
    """qemu-img ends with status 1 and this text."""


@dataclass(slots=True)
class _Call:
    options: dict[str, str] = field(default_factory=dict)
    operands: list[str] = field(default_factory=list)

    def need(self, option: str) -> str:
        if option not in self.options:
            raise _Failed(f"refused: {option} FORMAT is missing; a format must never be probed")
        return self.options[option]

    def operand(self, index: int, count: int) -> str:
        if len(self.operands) != count:
            raise _Failed(f"expected {count} file names, got {len(self.operands)}")
        return self.operands[index]


def _parse(arguments: Sequence[str], known: dict[str, bool]) -> _Call:
    call = _Call()
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            call.operands.append(argument)
        elif argument not in known:
            raise _Failed(f"the model does not know option {argument}")
        else:
            call.options[argument] = next(rest, "") if known[argument] else ""
    return call


def _halves(image: Image, *, zeroes: bool) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """What is written. Zeroes are left out on a device that is blank anyway; on any other they must be written too."""
    pieces: list[tuple[int, bytes]] = []
    end = 0
    for offset, data in sorted(image.extents):
        if offset > end and zeroes:
            pieces.append((end, bytes(offset - end)))
        pieces.append((offset, data))
        end = offset + len(data)
    if end < image.size and zeroes:
        pieces.append((end, bytes(image.size - end)))
    middle = len(pieces) // 2
    return pieces[:middle], pieces[middle:]
