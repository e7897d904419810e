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

from lab import claim, file, image, small_kernel
from lab import doctor as readiness
from lab.errors import LabError
from lab.local import down as bring_down
from lab.local import machine_lock
from lab.local import status as local_status
from lab.local import up as bring_up
from lab.local.layout import State, default_state
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

LOCAL_LAB_FILE = click.option(
    "--lab",
    "lab_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The local lab's file, STATE/lab.yaml, in place of --state.",
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


def _state(state: Path | None, lab_file: Path | None) -> Path | None:
    """The state directory that is meant. Raises `LabError` for a lab file that cannot be the local lab's."""
    if lab_file is None:
        return state
    owned = State(lab_file.resolve().parent)
    foreign = lab_file.exists() and not owned.ledger.exists() and machine_lock.owner() != owned.root
    if foreign or owned.lab_file.name != lab_file.name or (state is not None and state.resolve() != owned.root):
        raise LabError(
            f"{lab_file} is not the local lab's file, which is {(state or default_state()) / owned.lab_file.name};"
            f" splab brings up and down no other lab, but looks at any: splab lab doctor --lab {lab_file}"
        )
    return owned.root


@click.group()
def lab() -> None:
    """The local lab, and the readiness of any lab."""


@lab.command()
@STATE
@LOCAL_LAB_FILE
@click.option(
    "--site",
    type=click.Choice(["clusters", "zones"]),
    help="With a second StorPool cluster, below the same zone or in a zone of its own.",
)
def up(state: Path | None, lab_file: Path | None, site: str | None) -> None:
    """Bring the local lab up, or find it healthy; prints the path of its lab file."""
    with _errors(), narrated() as progress:
        state = _state(state, lab_file)
        bring_up(state, progress, site or "")
    click.echo(State((state or default_state()).resolve()).lab_file)


@lab.command()
@STATE
@LOCAL_LAB_FILE
def down(state: Path | None, lab_file: Path | None) -> None:
    """Remove everything that `up` made, also after a crash; refused while a run uses it."""
    with _errors(), narrated() as progress:
        state = _state(state, lab_file)
        claim.refuse_used_local()
        bring_down(state, progress)


@lab.command()
@STATE
@LOCAL_LAB_FILE
def status(state: Path | None, lab_file: Path | None) -> None:
    """Show the local lab's machines; exit 1 when it is not wholly up."""
    with _errors():
        rows = local_status(_state(state, lab_file))
    for name, text, ok in rows:
        click.echo(f"{'ok      ' if ok else 'not ok  '}{name:12}{text}")
    sys.exit(0 if all(ok for _, _, ok in rows) else 1)


@lab.command()
@click.option("--remove", is_flag=True, help="Take it away again, so that guests boot the distribution's kernel.")
def kernel(remove: bool) -> None:
    """Build a small kernel for guests, once, in some minutes: without KVM it boots with a quarter of the CPU."""
    cache = image.cache_directory()
    if remove:
        click.echo("removed" if small_kernel.remove(cache) else "there was none")
        return
    with _errors(), narrated() as progress:
        made = small_kernel.build(cache, progress)
    click.echo(f"guests boot {made.version} from the next lab on: {made.vmlinuz}")


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
            found = readiness.examine_machine((state or default_state()).resolve())
    for finding in found:
        click.echo(f"{'ok       ' if finding.ok else 'missing  '}{finding}")
    sys.exit(0 if all(finding.ok for finding in found) else 1)
