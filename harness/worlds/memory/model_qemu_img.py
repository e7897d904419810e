"""qemu-img info, create and convert of the model machine, as the agent calls them."""

from __future__ import annotations

from functools import partial

import msgspec

from harness.spi.errors import NotFound, Unavailable
from harness.spi.objects import LUKS_HEADER
from harness.worlds.memory.image import Image, ImageError, read_image
from harness.worlds.memory.model_cryptsetup import unlocked
from harness.worlds.memory.model_luks import Luks
from harness.worlds.memory.model_programs import COPY_SECONDS, Call, Failed, Run
from harness.worlds.memory.model_running import ModelProgram
from simulator.ports import BlocksError

LOOK_SECONDS = 1.0
"""Between looks whether an NFS server answers again."""
_INFO_OPTIONS = {"-f": True, "--output=json": False}
_CREATE_OPTIONS = {"-f": True, "-q": False}
_CONVERT_OPTIONS = {"-f": True, "-O": True, "-t": True, "-T": True, "-n": False, "-p": False}
_ENCRYPT_OPTIONS = dict.fromkeys(("-n", "-p", "--target-image-opts"), False) | dict.fromkeys(
    ("-f", "-T", "-t", "--object"), True
)


def info(run: Run) -> bytes:
    call = run.call(_INFO_OPTIONS)
    file = call.operand(0, 1)
    image = _read(run, file, call.need("-f"))
    return msgspec.json.encode(
        {
            "virtual-size": image.size,
            "filename": file,
            "format": call.need("-f"),
            "actual-size": sum(len(data) for _, data in image.extents),
            "dirty-flag": False,
        }
    )


def create(run: Run) -> bytes:
    call = run.call(_CREATE_OPTIONS)
    file, size = call.operand(0, 2), int(call.operand(1, 2))
    if call.need("-f") != "qcow2":
        raise Failed(f"the model makes qcow2 files, not {call.need('-f')}")
    try:
        run.files.write(file, Image(size, ()).qcow2(), new=True)
    except Unavailable as error:
        raise Failed(str(error)) from error
    return b""


def convert(run: Run) -> bytes:
    if "--target-image-opts" in run.arguments:
        _encrypt(run, run.call(_ENCRYPT_OPTIONS))
        return b""
    call = run.call(_CONVERT_OPTIONS)
    source, destination = call.operand(0, 2), call.operand(1, 2)
    if call.need("-O") == "qcow2":
        reads = run.machine.storage.key(source)
        run.work(partial(_back_up, run, call, source, destination), reads)
        return b""
    if call.need("-O") != "raw" or "-n" not in call.options:
        raise Failed(f"the model writes qcow2 files and existing raw devices, not {call.need('-O')}")
    image = _read(run, source, call.need("-f"))
    key = run.device(destination)
    if run.machine.storage.blocks.size(key) < image.size:
        raise Failed("error while converting raw: Device too small")
    run.work(partial(_copy, run, key, image))
    return b""


def _encrypt(run: Run, call: Call) -> None:
    """From a raw device onto what a LUKS volume holds."""
    source, target = call.operand(0, 2), dict(part.split("=", 1) for part in call.operand(1, 2).split(","))
    if call.need("-f") != "raw" or "-n" not in call.options or target.get("driver") != "luks":
        raise Failed("the model writes from raw devices onto existing LUKS volumes")
    if call.options.get("--object") != f"secret,id={target.get('key-secret')},file=/dev/stdin":
        raise Failed("the model takes secrets from standard input only")
    key, luks = unlocked(run, target.get("file.filename", ""))
    reads, blocks = run.device(source), run.machine.storage.blocks
    if blocks.size(reads) > blocks.size(key) - LUKS_HEADER:
        raise Failed("error while converting luks: Device too small")
    run.work(partial(_copy_encrypted, run, reads, key, luks), reads)


def _copy_encrypted(run: Run, source: int, key: int, luks: Luks, program: ModelProgram) -> None:
    storage = run.machine.storage
    with storage.opened(source):
        content = luks.crypt(0, storage.blocks.read(source, 0, storage.blocks.size(source)))
        middle = len(content) // 2
        run.write(key, LUKS_HEADER, [content[:middle], content[middle:]], program, COPY_SECONDS)


def _back_up(run: Run, call: Call, source: str, file: str, program: ModelProgram) -> None:
    """Into a new file, which has nothing but its header until the whole disk was read."""
    machine, storage = run.machine, run.machine.storage
    key = storage.key(source)
    if key is None or call.need("-f") != "raw":
        raise BlocksError(f"Could not open '{source}': No such device, or it is not to be read as raw")
    blocks = storage.blocks
    with storage.opened(key):
        machine.runtime.point("effect-begin", f"{machine.name}: qemu-img writes")
        disk = Image(blocks.size(key), ())
        _put(run, file, disk, new=True)
        if program.work(COPY_SECONDS / 2, 0.5) or _hangs(run, program):
            return
        machine.runtime.point("effect-begin", f"{machine.name}: qemu-img writes")
        extents = tuple((offset, blocks.read(key, offset, length)) for offset, length in blocks.extents(key))
        if program.work(COPY_SECONDS / 2, 1.0) or _hangs(run, program):
            return
        _put(run, file, Image(disk.size, extents), new=False)


def _hangs(run: Run, program: ModelProgram) -> bool:
    """A connection outlives a server that does not answer for a while. Whether the program was killed meanwhile."""
    while run.files.stalls:
        if program.killed.wait(LOOK_SECONDS):
            return True
    return False


def _put(run: Run, file: str, image: Image, *, new: bool) -> None:
    try:
        run.files.write(file, image.qcow2(), new=new)
    except Unavailable as error:
        raise BlocksError(str(error)) from error


def _read(run: Run, file: str, image_format: str) -> Image:
    try:
        return read_image(_content(run, file), image_format)
    except (ImageError, NotFound) as error:
        raise Failed(f"Could not open '{file}': {error}") from error


def _content(run: Run, file: str) -> bytes:
    machine, blocks = run.machine, run.machine.storage.blocks
    if file in machine.images:
        return machine.images[file]
    key = machine.storage.key(file)
    return run.files.read(file) if key is None else blocks.read(key, 0, blocks.size(key))


def _copy(run: Run, key: int, image: Image, program: ModelProgram) -> None:
    """A program that is killed between the halves leaves part of the image, as it would."""
    machine, storage = run.machine, run.machine.storage
    with storage.opened(key):
        blank = storage.blocks.stored(key) == 0
        for half, share in zip(_halves(image, zeroes=not blank), (0.5, 1.0), strict=True):
            machine.runtime.point("effect-begin", f"{machine.name}: qemu-img writes")
            if program.work(COPY_SECONDS / 2, share):
                return
            for offset, data in half:
                storage.blocks.write(key, offset, data)


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
