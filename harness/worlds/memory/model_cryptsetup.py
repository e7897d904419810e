"""cryptsetup luksFormat and open of the model machine, as the agent calls them."""

from __future__ import annotations

from harness.spi.objects import LUKS_HEADER
from harness.worlds.memory.model_luks import RANDOM_BYTES, SECTOR, Luks, LuksError, new_header, unlock
from harness.worlds.memory.model_programs import Failed, Run

FORMAT_SECONDS = 1.0
VERSION = b"cryptsetup 2.6.1\n"
_FORMAT_OPTIONS = {"--batch-mode": False} | dict.fromkeys(
    ("--type", "--cipher", "--key-size", "--hash", "--offset", "--pbkdf-force-iterations", "--key-file"), True
)
_OPEN_OPTIONS = {"--test-passphrase": False, "--type": True, "--key-file": True}


def luks_format(run: Run) -> bytes:
    """A new header; what was on the device before stays there as noise."""
    call, machine = run.call(_FORMAT_OPTIONS), run.machine
    device = call.operand(0, 1)
    offset = int(call.options.get("--offset") or 0) * SECTOR
    if call.options.get("--type") != "luks1" or call.options.get("--key-file") != "-" or offset != LUKS_HEADER:
        raise Failed("the model knows luks1 with the key on standard input, and its own place of the data")
    key = _device(run, device)
    header = new_header(run.stdin, machine.runtime.random_bytes(RANDOM_BYTES))
    pieces = [header[:2048], header[2048:]]
    run.work(lambda program: run.write(key, 0, pieces, program, FORMAT_SECONDS))
    return b""


def check_passphrase(run: Run) -> bytes:
    """`cryptsetup open --test-passphrase`."""
    call = run.call(_OPEN_OPTIONS)
    device = call.operand(0, 1)
    if "--test-passphrase" not in call.options or call.options.get("--key-file") != "-":
        raise Failed("the model only tests passphrases, from standard input")
    unlocked(run, device)
    return b""


def unlocked(run: Run, device: str) -> tuple[int, Luks]:
    """The object behind the device, and what opens with the passphrase on standard input."""
    key = _device(run, device)
    try:
        return key, unlock(run.machine.storage.header(key), run.stdin)
    except LuksError as error:
        raise Failed(str(error)) from error


def _device(run: Run, path: str) -> int:
    key = run.machine.storage.key(path)
    if key is None:
        raise Failed(f"Device {path} does not exist or access denied.")
    return key
