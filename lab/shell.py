"""Run a program of this machine: bounded, quiet, with an error that says what was tried."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError, MissingPrerequisite

Progress = Callable[[str], None]
"""Told in a few words what is being done now."""


def silent(_: str) -> None:
    """Progress that nobody watches."""


class CommandFailed(LabError):
    """A program ended with an error or not in time."""


@dataclass(frozen=True, slots=True)
class Completed:
    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output without the white space around it."""
        return self.stdout.decode(errors="replace").strip()

    @property
    def error_text(self) -> str:
        return self.stderr.decode(errors="replace").strip()


def run(
    argv: Sequence[str | Path],
    *,
    stdin: bytes = b"",
    timeout: float = 60,
    check: bool = True,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run `argv` for at most `timeout` seconds. Raises `CommandFailed`, with `check` also on a return code but 0."""
    words = tuple(str(word) for word in argv)
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, timeout=timeout, cwd=cwd, env=env, check=False)
    except FileNotFoundError as error:
        raise MissingPrerequisite(f"{words[0]} is not installed; run `make setup` as root") from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{words[0]} did not end within {timeout:.0f} s: {' '.join(words)}") from error
    completed = Completed(words, done.returncode, done.stdout, done.stderr)
    if check and completed.returncode != 0:
        said = completed.error_text or completed.text or "it said nothing"
        raise CommandFailed(f"{' '.join(words)}: return code {completed.returncode}: {said[-2000:]}")
    return completed
