"""`python -m simulator.commands.install DIRECTORY`: put the commands there, for the front of a PATH.

They are no console scripts of this package, so that a machine with StorPool of its own never has two of one name.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

COMMANDS = ("storpool", "storpool_confget", "storpool_confshow", "storpool_req")
_MODULE = "simulator.commands.{}"


def install(directory: Path) -> None:
    """Write the commands, for this Python and this checkout; makes the directory. Raises `FileExistsError`, and has
    written nothing, when a command of that name there is not ours."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in COMMANDS:
        path = directory / name
        if path.is_symlink() or (path.exists() and _MODULE.format(name).encode() not in path.read_bytes()):
            raise FileExistsError(f"{path} is there and not ours: choose another directory")
    root = Path(__file__).resolve().parents[2]
    for name in COMMANDS:
        path = directory / name
        # -P: modules in the caller's directory are not ours. /dev, where people look, has a `storpool`.
        command = shlex.join(["env", f"PYTHONPATH={root}", sys.executable, "-P", "-m", _MODULE.format(name)])
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        path.chmod(0o755)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    try:
        install(Path(sys.argv[1]))
    except OSError as error:
        sys.exit(f"Error: {error}")
