"""`harness.spi.ports.Host` over a model machine: its devices, its text files, and qemu-img as the agent calls it."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from harness.agent.fetching import HEAD_SCRIPT
from harness.runtime.process import SimulatedEvent, SimulatedRuntime
from harness.spi.errors import NotFound, Unavailable, Unknown
from harness.spi.objects import LUKS_HEADER
from harness.spi.ports import CommandResult, Output
from harness.worlds.memory.arguments import CONVERT, CREATE, ENCRYPT, FORMAT, INFO, OPEN, Call, Failed, parse
from harness.worlds.memory.image import Image, ImageError, read_image
from harness.worlds.memory.machine import Machine
from harness.worlds.memory.model_luks import RANDOM_BYTES, Luks, LuksError, new_header, unlock
from harness.worlds.memory.programs import ModelProgram
from simulator.ports import BlocksError


class Files(Protocol):
    """Image files, by the names that `Secondary.file` gives."""

    def read(self, name: str) -> bytes:
        """Raises `NotFound`."""
        ...

    def write(self, name: str, content: bytes, *, new: bool) -> None:
        """Raises `Unavailable`. Unless it is `new`, the file must be there: whoever deletes it ends the writing."""
        ...

    def page(self, url: str) -> bytes | None:
        """What a web server has at the URL."""
        ...


COPY_SECONDS = 12.0
FORMAT_SECONDS = 1.0
SLOWNESS = 50.0
"""Of copies that are slow."""
SUMS = ("md5sum", "sha1sum", "sha224sum", "sha256sum", "sha384sum", "sha512sum")
END_POLL_SECONDS = 0.05
PRINT_SECONDS = 2.5
"""Between two numbers of a program that prints how far it is."""

_PROGRAMS = {("qemu-img", verb) for verb in ("info", "create", "convert")} | {
    ("cryptsetup", "luksFormat"),
    ("cryptsetup", "open"),
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of a program beside what its arguments say."""

    operation: str | None
    timeout: float
    shown: str = ""
    """The command line, of one that copies."""
    output: Output | None = None
    """Who hears how far it is, of one with -p."""


class ModelHost:
    """One agent's view of the machine; its runtime fences it when the agent is killed."""

    def __init__(self, machine: Machine, runtime: SimulatedRuntime, files: Files) -> None:
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
        """qemu-img info, create and convert, cryptsetup luksFormat and open, curl and sums.

        Any other program is refused, as is a format that is not given.

        A copy takes `COPY_SECONDS` and goes on when the agent dies, as any program does.
        """
        arguments = tuple(argv)
        machine, verb = self._machine, arguments[:2]
        machine.command_lines.append(" ".join(arguments))
        if arguments[:1] == ("prlimit",):
            arguments = arguments[arguments.index("curl") :]
        if (arguments and arguments[0] in ("curl", *SUMS)) or arguments[:3] == ("sh", "-c", HEAD_SCRIPT):
            return self._fetching(arguments, stdin, _Asked(operation, timeout))
        if arguments[:1] == ("cryptsetup",) and machine.no_cryptsetup:
            raise Unavailable(f"cryptsetup cannot be started on host {machine.name}: it is not there")
        if arguments == ("cryptsetup", "--version"):
            # As quick as a look, and asked for with every ping.
            return CommandResult(arguments, 0, b"cryptsetup 2.6.1\n", b"")
        if verb not in _PROGRAMS:
            raise Unavailable(f"the model host {machine.name} has no program for {' '.join(verb)}")
        self._runtime.point("effect-begin", f"{machine.name}: {' '.join(verb)}")
        try:
            copies = " ".join(argv) if verb[1] == "convert" else ""
            printed = self._run(arguments, stdin, _Asked(operation, timeout, copies, output))
        except Failed as error:
            return CommandResult(arguments, 1, b"", f"{arguments[0]}: {error}\n".encode())
        self._runtime.point("effect-end", f"{self._machine.name}: {' '.join(arguments[:2])}")
        return CommandResult(arguments, 0, printed, b"")

    def _run(self, arguments: tuple[str, ...], stdin: bytes, asked: _Asked) -> bytes:
        """What the program prints."""
        match arguments[:2]:
            case ("qemu-img", "info"):
                return self._info(parse(arguments[2:], INFO))
            case ("qemu-img", "create"):
                self._create(parse(arguments[2:], CREATE))
            case ("cryptsetup", "luksFormat"):
                self._format(parse(arguments[2:], FORMAT), stdin, asked)
            case ("cryptsetup", "open"):
                self._open(parse(arguments[2:], OPEN), stdin)
            case _ if "--target-image-opts" in arguments:
                self._encrypt(parse(arguments[2:], ENCRYPT), stdin, asked)
            case _:
                self._convert(parse(arguments[2:], CONVERT), asked)
        return b""

    def _fetching(self, arguments: tuple[str, ...], stdin: bytes, asked: _Asked) -> CommandResult:
        self._runtime.point("effect-begin", f"{self._machine.name}: {arguments[0]}")
        try:
            output = self._fetched(arguments, stdin, asked)
        except Failed as error:
            return CommandResult(arguments, 22, b"", f"curl: (22) {error}\n".encode())
        self._runtime.point("effect-end", f"{self._machine.name}: {arguments[0]}")
        return CommandResult(arguments, 0, output, b"")

    def _fetched(self, arguments: tuple[str, ...], stdin: bytes, asked: _Asked) -> bytes:
        images = self._machine.images
        if arguments[0] in SUMS:
            method = arguments[0].removesuffix("sum")
            digest = hashlib.new(method, images[arguments[1]], usedforsecurity=False).hexdigest()
            return f"{digest}  {arguments[1]}\n".encode()
        if any("://" in argument for argument in arguments):
            raise Failed("refused: a URL may hold a secret, which everybody sees in the arguments of a program")
        content = self._files.page(stdin.decode().removeprefix('url = "').rstrip('"\n'))
        if content is None:
            raise Failed("The requested URL returned error: 404")
        if arguments[0] == "sh":
            return content[: int(arguments[3])]
        file = arguments[arguments.index("--output") + 1]

        def download(program: ModelProgram) -> None:
            images[file] = content[: len(content) // 2]
            if not program.work(COPY_SECONDS / 2, 1.0):
                images[file] = content

        self._run_copy(download, asked)
        return b""

    def _info(self, call: Call) -> bytes:
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

    def _create(self, call: Call) -> None:
        file, size = call.operand(0, 2), int(call.operand(1, 2))
        if call.need("-f") != "qcow2":
            raise Failed(f"the model makes qcow2 files, not {call.need('-f')}")
        try:
            self._files.write(file, Image(size, ()).qcow2(), new=True)
        except Unavailable as error:
            raise Failed(str(error)) from error

    def _format(self, call: Call, passphrase: bytes, asked: _Asked) -> None:
        """A new header; what was on the device before stays there as noise."""
        device, machine = call.operand(0, 1), self._machine
        offset = int(call.options.get("--offset") or 0) * 512
        if call.options.get("--type") != "luks1" or call.options.get("--key-file") != "-" or offset != LUKS_HEADER:
            raise Failed("the model knows luks1 with the key on standard input, and its own place of the data")
        key = machine.key(device)
        if key is None:
            raise Failed(f"Device {device} does not exist or access denied.")
        header = new_header(passphrase, machine.runtime.random_bytes(RANDOM_BYTES))
        pieces = [header[:2048], header[2048:]]
        self._run_copy(lambda program: _write(machine, key, 0, pieces, program, FORMAT_SECONDS), asked)

    def _open(self, call: Call, passphrase: bytes) -> None:
        device = call.operand(0, 1)
        if "--test-passphrase" not in call.options or call.options.get("--key-file") != "-":
            raise Failed("the model only tests passphrases, from standard input")
        self._unlock(device, passphrase)

    def _unlock(self, device: str, passphrase: bytes) -> tuple[int, Luks]:
        key = self._machine.key(device)
        if key is None:
            raise Failed(f"Device {device} does not exist or access denied.")
        try:
            return key, unlock(self._machine.header(key), passphrase)
        except LuksError as error:
            raise Failed(str(error)) from error

    def _encrypt(self, call: Call, passphrase: bytes, asked: _Asked) -> None:
        """From a raw device onto what a LUKS volume holds."""
        source, target = call.operand(0, 2), dict(part.split("=", 1) for part in call.operand(1, 2).split(","))
        if call.need("-f") != "raw" or "-n" not in call.options or target.get("driver") != "luks":
            raise Failed("the model writes from raw devices onto existing LUKS volumes")
        if call.options.get("--object") != f"secret,id={target.get('key-secret')},file=/dev/stdin":
            raise Failed("the model takes secrets from standard input only")
        machine, reads = self._machine, self._machine.key(source)
        key, luks = self._unlock(target.get("file.filename", ""), passphrase)
        if reads is None:
            raise Failed(f"Could not open '{source}': No such file or directory")
        if machine.blocks.size(reads) > machine.blocks.size(key) - LUKS_HEADER:
            raise Failed("error while converting luks: Device too small")
        self._run_copy(lambda program: self._copy_encrypted(reads, key, luks, program), asked, reads)

    def _copy_encrypted(self, source: int, key: int, luks: Luks, program: ModelProgram) -> None:
        machine = self._machine
        machine.blocks.open(source, machine.client_id)
        try:
            content = luks.crypt(0, machine.blocks.read(source, 0, machine.blocks.size(source)))
            middle = len(content) // 2
            _write(machine, key, LUKS_HEADER, [content[:middle], content[middle:]], program, COPY_SECONDS)
        finally:
            machine.blocks.release(source, machine.client_id)

    def _convert(self, call: Call, asked: _Asked) -> None:
        source, destination = call.operand(0, 2), call.operand(1, 2)
        if call.need("-O") == "qcow2":
            reads = self._machine.key(source)
            self._run_copy(lambda program: self._back_up(call, source, destination, program), asked, reads)
            return
        if call.need("-O") != "raw" or "-n" not in call.options:
            raise Failed(f"the model writes qcow2 files and existing raw devices, not {call.need('-O')}")
        image = self._read(source, call.need("-f"))
        machine = self._machine
        key = machine.key(destination)
        if key is None:
            raise Failed(f"Could not open '{destination}': No such file or directory")
        if machine.blocks.size(key) < image.size:
            raise Failed("error while converting raw: Device too small")
        self._run_copy(lambda program: _copy(machine, key, image, program), asked)

    def _back_up(self, call: Call, source: str, file: str, program: ModelProgram) -> None:
        """Into a new file, which has nothing but its header until the whole disk was read."""
        machine = self._machine
        key = machine.key(source)
        if key is None or call.need("-f") != "raw":
            raise BlocksError(f"Could not open '{source}': No such device, or it is not to be read as raw")
        blocks = machine.blocks
        blocks.open(key, machine.client_id)
        try:
            machine.runtime.point("effect-begin", f"{machine.name}: qemu-img writes")
            disk = Image(blocks.size(key), ())
            self._put(file, disk, new=True)
            if program.work(COPY_SECONDS / 2, 0.5):
                return
            machine.runtime.point("effect-begin", f"{machine.name}: qemu-img writes")
            extents = tuple((offset, blocks.read(key, offset, length)) for offset, length in blocks.extents(key))
            if program.work(COPY_SECONDS / 2, 1.0):
                return
            self._put(file, Image(disk.size, extents), new=False)
        finally:
            blocks.release(key, machine.client_id)

    def _put(self, file: str, image: Image, *, new: bool) -> None:
        try:
            self._files.write(file, image.qcow2(), new=new)
        except Unavailable as error:
            raise BlocksError(str(error)) from error

    def _run_copy(self, work: Callable[[ModelProgram], None], asked: _Asked, reads: int | None = None) -> None:
        machine = self._machine
        killed = machine.runtime.event("a signal")
        slowness = SLOWNESS if machine.slow_copies else 1.0
        program = ModelProgram(machine.runtime, asked.operation, killed, reads, asked.shown, slowness)
        failures: list[BlocksError] = []
        ended = self._runtime.event(f"the end of qemu-img on {machine.name}")

        def copy() -> None:
            try:
                work(program)
            except BlocksError as error:
                failures.append(error)
            machine.programs.remove(program)
            ended.deliver()

        machine.programs.append(program)
        machine.runtime.spawn("qemu-img", copy)
        if not self._await(ended, program, asked):
            program.killed.deliver()
            ended.wait()
            raise Unknown(f"qemu-img did not end within {asked.timeout:g} s and was killed")
        if program.killed.is_set():
            raise Failed("killed")
        if failures:
            raise Failed(f"error while writing: {failures[0]}")

    def _await(self, ended: SimulatedEvent, program: ModelProgram, asked: _Asked) -> bool:
        """Whether it ended in time. Meanwhile it prints how far it is."""
        tell, left = asked.output, asked.timeout
        if tell is None or " -p " not in asked.shown:
            return ended.wait(left)
        while left > 0:
            pause = min(PRINT_SECONDS, left)
            if ended.wait(pause):
                return True
            tell(f"    ({100 * program.share:.2f}/100%)\r".encode())
            left -= pause
        return False

    def _read(self, file: str, image_format: str) -> Image:
        try:
            return read_image(self._content(file), image_format)
        except (ImageError, NotFound) as error:
            raise Failed(f"Could not open '{file}': {error}") from error

    def _content(self, file: str) -> bytes:
        if file in self._machine.images:
            return self._machine.images[file]
        key = self._machine.key(file)
        if key is None:
            return self._files.read(file)
        return self._machine.blocks.read(key, 0, self._machine.blocks.size(key))


def _copy(machine: Machine, key: int, image: Image, program: ModelProgram) -> None:
    """A program that is killed between the halves leaves part of the image, as it would."""
    machine.blocks.open(key, machine.client_id)
    try:
        blank = machine.blocks.stored(key) == 0
        for half, share in zip(_halves(image, zeroes=not blank), (0.5, 1.0), strict=True):
            machine.runtime.point("effect-begin", f"{machine.name}: qemu-img writes")
            if program.work(COPY_SECONDS / 2, share):
                return
            for offset, data in half:
                machine.blocks.write(key, offset, data)
    finally:
        machine.blocks.release(key, machine.client_id)


def _write(
    machine: Machine, key: int, offset: int, pieces: Sequence[bytes], program: ModelProgram, seconds: float
) -> None:
    """Pieces one after the other from `offset` on; a program that is killed leaves those that it has written."""
    machine.blocks.open(key, machine.client_id)
    try:
        for number, piece in enumerate(pieces, start=1):
            machine.runtime.point("effect-begin", f"{machine.name}: a program writes")
            if program.work(seconds / len(pieces), number / len(pieces)):
                return
            machine.blocks.write(key, offset, piece)
            offset += len(piece)
    finally:
        machine.blocks.release(key, machine.client_id)


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
