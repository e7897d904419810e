"""`storpool_confshow [-e] [-n] [-s HOST] [VAR...]`: StorPool's configuration; `-ne VAR` prints the bare value."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.commands import console
from simulator.commands.variables import Parser, show


def main(argv: Sequence[str]) -> int:
    parser = Parser("storpool_confshow", __doc__)
    parser.add_argument("-e", dest="shell", action="store_true", help="quoted for a shell's eval")
    parser.add_argument("-n", dest="bare", action="store_true", help="without the names, and not quoted")
    given = parser.parse_args(argv)
    return show(given.section, given.names, shell=given.shell, bare=given.bare)


if __name__ == "__main__":
    console.run(main)
