"""`splab lab`: bring the local lab up and down, and look at the readiness of any lab."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from lab import claim, file
from lab import doctor as readiness
from lab.errors import LabError
from lab.local import down as bring_down
from lab.local import status as local_status
from lab.local import up as bring_up
from lab.local.layout import default_state
from lab.shell import Progress

STATE = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the local lab keeps its state; default SPLAB_STATE, else /var/lib/splab.",
)
LAB_FILE = click.option(
    "--lab",
    "lab_file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SPLAB_LAB",
    help="Lab file of a real lab; without it, the local lab.",
)


@contextmanager
def narrated(console: Console | None = None) -> Iterator[Progress]:
    """Progress on standard error: a line that counts seconds on a terminal, else one line for each step."""
    console = console or Console(stderr=True, highlight=False)
    begun = time.monotonic()
    if not console.is_terminal:
        yield lambda text: console.print(f"[{time.monotonic() - begun:3.0f} s] {text}", markup=False, soft_wrap=True)
        return
    with Bars(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as bars:
        task = bars.add_task("", total=None)
        yield lambda text: bars.update(task, description=text)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except LabError as error:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", []))
        raise click.ClickException(f"{error}{notes}") from error


@click.group()
def lab() -> None:
    """The local lab, and the readiness of any lab."""


@lab.command()
@STATE
def up(state: Path | None) -> None:
    """Bring the local lab up, or find it healthy; prints the path of its lab file."""
    with _errors(), narrated() as progress:
        bring_up(state, progress)
    click.echo((state or default_state()) / "lab.yaml")


@lab.command()
@STATE
def down(state: Path | None) -> None:
    """Remove everything that `up` made, also after a crash; refused while a run uses it."""
    with _errors(), narrated() as progress:
        claim.refuse_used_local()
        bring_down(state, progress)


@lab.command()
@STATE
def status(state: Path | None) -> None:
    """Show the local lab's machines; exit 1 when it is not wholly up."""
    with _errors():
        rows = local_status(state)
    for name, text, ok in rows:
        click.echo(f"{'ok      ' if ok else 'not ok  '}{name:12}{text}")
    sys.exit(0 if all(ok for _, _, ok in rows) else 1)


@lab.command()
@STATE
@LAB_FILE
def doctor(state: Path | None, lab_file: Path | None) -> None:
    """Name each thing that is missing, with the command that supplies it; exit 1 when there is one."""
    with _errors():
        if lab_file is not None:
            real = file.load(lab_file)
            found = readiness.examine_lab(real)
        else:
            found = readiness.examine_machine(state or default_state())
    for finding in found:
        click.echo(f"{'ok       ' if finding.ok else 'missing  '}{finding}")
    sys.exit(0 if all(finding.ok for finding in found) else 1)
