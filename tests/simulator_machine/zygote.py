"""Starts simulators without Python's own start; not a test. Reads one JSON list of arguments a line.

Each is the process of `splab-simulator` with these arguments, forked where it would be executed, with its output in the
given file. Answers with its process id, and with its exit status (negative: the signal) when it has ended.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import simulator.main


def start(output: Path, arguments: list[str]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        simulator.main.main(arguments, standalone_mode=True)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        output, *arguments = json.loads(line)
        child = start(Path(output), arguments)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
