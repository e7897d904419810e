"""A run as a user sees it: progress on the terminal, the result stream in a directory, its views at the end."""

from __future__ import annotations

import platform
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from harness.report.result import Result
from harness.report.stream import STREAM_NAME, Event, Listener, StreamWriter
from harness.report.terminal import Progress, action_table, figures
from harness.report.write import PAGE_NAME, write_views
from harness.revision import commit


def record(console: Console, report: Path, run: Callable[[Listener], None]) -> Result:
    """Call `run` with a listener that writes the stream into `report`; the views are written whatever happens."""
    stream = _stream(report)
    progress = Progress(console)

    def listen(event: Event) -> None:
        stream(event)
        progress(event)

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # So that worlds are torn down and the report is written then, too.
    signal.signal(signal.SIGTERM, interrupt)
    try:
        run(listen)
    finally:
        stream.close()
        result = write_views(report)
        show(console, result, report)
    return result


def show(console: Console, result: Result, directory: Path) -> None:
    """The action table or the figures of a benchmark, what is broken, and where the page is."""
    console.print()
    if result.measured:
        console.print(figures(result))
    if result.worlds or not result.measured:
        console.print(action_table(result))
    for world in result.broken.values():
        console.print(world.why, style="bold red", markup=False)
    for violated in result.violated:
        console.print(f"invariant violated: {violated}", style="bold red", markup=False)
    console.print(f"report: {(directory / PAGE_NAME).resolve()}", soft_wrap=True)


def writable(path: Path | None) -> None:
    """Before anything runs, so that no run ends with results that cannot be written; raises `ClickException`."""
    if path is None:
        return
    try:
        path.open("a").close()
    except OSError as error:
        raise click.ClickException(
            f"cannot write {path}: {error.strerror}; give --report and --json places that can be written"
        ) from error


def properties() -> dict[str, str]:
    """Of every run: what was asked for, on what, and with which commit."""
    return {
        "command": " ".join(["splab", *sys.argv[1:]]),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "commit": commit(),
    }


def _stream(report: Path) -> StreamWriter:
    try:
        report.mkdir(parents=True, exist_ok=True)
        return StreamWriter(report / STREAM_NAME)
    except OSError as error:
        raise click.ClickException(
            f"cannot write {error.filename}: {error.strerror}; give --report and --json places that can be written"
        ) from error
