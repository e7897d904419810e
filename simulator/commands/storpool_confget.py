"""`storpool_confget [-s HOST] [-S] [VAR...]`: StorPool's configuration as VAR=value lines."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.commands import console
from simulator.commands.variables import Parser, show


def main(argv: Sequence[str]) -> int:
    parser = Parser("storpool_confget", __doc__)
    parser.add_argument("-S", dest="shell", action="store_true", help="quoted for a shell's eval")
    given = parser.parse_args(argv)
    return show(given.section, given.names, shell=given.shell)


if __name__ == "__main__":
    console.run(main)
