"""What `storpool_confget` and `storpool_confshow` have in common: variables of storpool.conf, printed."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import NoReturn

from simulator.commands import configuration

_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class Parser(argparse.ArgumentParser):
    """With the arguments of both, and exit status 1 for arguments that mean nothing."""

    def __init__(self, prog: str, description: str | None) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        self.add_argument("-s", dest="section", metavar="HOST", help="as the section of this host has it")
        self.add_argument("names", metavar="VAR", nargs="*", help="SP_ may be left out")

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"Error: {message}\n")


def show(section: str | None, names: Iterable[str], *, shell: bool, bare: bool = False) -> int:
    """Print these variables, or all; exit status 1 when one is not there. Raises `ConfigurationError`."""
    found, missing = select(configuration.read(section), names)
    for line in found.values() if bare else assignments(found, shell=shell):
        print(line)
    if missing:
        print(f"Error: not set in storpool.conf for this host: {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


def select(values: Mapping[str, str], names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The variables of these names, or all of them, and the names that are not there."""
    found: dict[str, str] = {}
    missing = []
    for name in names or sorted(values):
        full = next((known for known in (name, f"SP_{name}") if known in values), None)
        if full is None:
            missing.append(name)
        else:
            found[full] = values[full]
    return found, missing


def assignments(values: Mapping[str, str], *, shell: bool) -> Iterator[str]:
    """`VAR=value` lines; for a shell quoted, and without names that would be something else there than a variable."""
    for name, value in values.items():
        if not shell:
            yield f"{name}={value}"
        elif _SHELL_NAME.match(name):
            yield f"{name}={shlex.quote(value)}"
