"""`splab`: runs scenarios, shows their results, and opens the way to the simulator and the lab."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from harness.report.session import properties, record, show, writable
from harness.report.stream import STREAM_NAME
from harness.report.write import write_views
from harness.run import Runner, Selection, Venue, Venues, select
from scenarios import registry
from scenarios.registry import Case

WORLDS = ("memory", "local", "all")


LAZY = {
    "bench": ("harness.bench.command", "bench"),
    "calls": ("harness.faults.calls", "calls"),
    "explore": ("harness.explore.command", "explore"),
    "faults": ("harness.faults.command", "faults"),
    "lab": ("lab.commands", "lab"),
}
"""Commands by name, and where each is."""


class LazyGroup(click.Group):
    """Imports a command's module only when it is asked for: a run in memory needs nothing of the lab."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *LAZY})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in LAZY:
            return super().get_command(ctx, name)
        module, attribute = LAZY[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """StorPool Lab: the StorPool plugin for CloudStack, a StorPool simulator, and the harness that proves them."""


@main.command()
@click.argument("row", nargs=-1)
@click.option("--world", type=click.Choice(WORLDS), default="all", help="Default: all that this machine can do.")
@click.option("--lab", type=click.Path(path_type=Path), envvar="SPLAB_LAB", help="Run on the lab of this lab file.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of the memory world.")
@click.option("--report", type=click.Path(path_type=Path, file_okay=False), default=Path("reports"), show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the result as JSON to this file.")
@click.option("--labs", type=click.IntRange(min=1), help="Local labs side by side; default: up to cores + 1.")
def run(
    row: tuple[str, ...],
    world: str,
    lab: Path | None,
    seed: int,
    report: Path,
    json_file: Path | None,
    labs: int | None,
) -> None:
    """Run rows of the action table (numbers, names of extras, or single cases such as 4.hot); all by default."""
    console = Console(highlight=False)
    selection = _selection(row)
    venues = _venues(world, lab, seed, console, selection.cases, labs)
    writable(json_file)
    about = properties() | {"seed": str(seed)} | ({"lab file": str(lab)} if lab is not None else {})
    result = record(console, report, lambda listen: Runner(listen, time.monotonic).run(selection, venues, about))
    if json_file is not None:
        shutil.copyfile(report / "results.json", json_file)
    for unbuilt in selection.unbuilt:
        console.print(f"row {unbuilt} was asked for, but no scenario of it exists yet")
    sys.exit(0 if result.passed and not selection.unbuilt else 1)


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def simulator(arguments: tuple[str, ...]) -> None:
    """Run the StorPool simulator: the same as splab-simulator."""
    beside = Path(sys.executable).with_name("splab-simulator")
    program = str(beside) if beside.exists() else shutil.which("splab-simulator")
    if program is None:
        raise click.ClickException("splab-simulator is not installed; install splab again with the extra `lab`")
    os.execv(program, [program, *arguments])


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
def report(directory: Path) -> None:
    """Rebuild the views of a report directory from its result stream."""
    try:
        result = write_views(directory)
    except FileNotFoundError as error:
        raise click.ClickException(f"no result stream: {error}; give the directory of a run") from error
    except ValueError as error:
        raise click.ClickException(f"damaged result stream: {error}") from error
    if not result.worlds and not result.measured:
        raise click.ClickException(f"{directory / STREAM_NAME} tells of no run; give the directory of a run")
    show(Console(highlight=False), result, directory)


def _selection(words: tuple[str, ...]) -> Selection:
    try:
        return select(registry.load(), words)
    except KeyError as error:
        raise click.UsageError(
            f"no row or case {error.args[0]!r}; rows are 1 to 23 and the extras' names, cases are like 4.hot"
        ) from error


def _venues(
    world: str, lab: Path | None, seed: int, console: Console, cases: Sequence[Case], labs: int | None
) -> list[Venue | Venues]:
    """The worlds to run in. Without root, one line says what is left out."""
    venues: list[Venue | Venues] = []
    if world in ("memory", "all"):
        from harness.worlds.memory_venue import MemoryVenue

        venues.append(MemoryVenue(seed))
    if world == "memory":
        return venues
    from harness.worlds.local.side_by_side import SideBySide, labs_for
    from harness.worlds.local.venue import LocalVenue, why_not
    from lab.errors import LabError
    from lab.file import load

    if lab is not None and labs is not None and labs > 1:
        raise click.UsageError("--labs is of the local labs that a run brings up, and --lab names one that is there")
    if lab is not None:
        # Now, not after the rows in memory; the run reads it again once it has the lab for itself.
        try:
            load(lab)
        except LabError as error:
            raise click.ClickException(str(error)) from error
    reason = why_not(lab)
    if reason is None:
        count = labs_for(cases, labs) if lab is None else 1
        venues.append(SideBySide(count) if count > 1 else LocalVenue(lab, site=cases[0].site if cases else ""))
    elif world == "local":
        raise click.ClickException(f"the local world cannot be run here: {reason}")
    else:
        console.print(f"local world left out: {reason}", style="yellow", soft_wrap=True)
    return venues


if __name__ == "__main__":
    main()
