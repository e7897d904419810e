"""`python -m simulator.commands.install DIRECTORY`: put the commands there, for the front of a PATH.

They are no console scripts of this package, so that a machine with StorPool of its own never has two of one name.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

COMMANDS = ("storpool", "storpool_confget", "storpool_confshow", "storpool_req")
"""Each is the module of that name in this package."""


def install(directory: Path) -> None:
    """Write the commands, for this Python and this checkout; makes the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    root = Path(__file__).resolve().parents[2]
    for name in COMMANDS:
        path = directory / name
        # -P: modules in the caller's directory are not ours. /dev, where people look, has a `storpool`.
        command = shlex.join(["env", f"PYTHONPATH={root}", sys.executable, "-P", "-m", f"simulator.commands.{name}"])
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        path.chmod(0o755)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    install(Path(sys.argv[1]))
