"""Arguments of the programs that a model host has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

INFO = {"-f": True, "--output=json": False}
CREATE = {"-f": True, "-q": False}
CONVERT = {"-f": True, "-O": True, "-t": True, "-T": True, "-n": False, "-p": False}
ENCRYPT = {"-n": False, "-p": False, "-f": True, "-T": True, "-t": True, "--object": True, "--target-image-opts": False}
FORMAT = {"--batch-mode": False} | dict.fromkeys(
    ("--type", "--cipher", "--key-size", "--hash", "--offset", "--pbkdf-force-iterations", "--key-file"), True
)
OPEN = {"--test-passphrase": False, "--type": True, "--key-file": True}
"""Options that are understood, and whether a value follows."""


class Failed(Exception):
    """The program ends with status 1 and this text."""


@dataclass(slots=True)
class Call:
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


def parse(arguments: Sequence[str], known: dict[str, bool]) -> Call:
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
