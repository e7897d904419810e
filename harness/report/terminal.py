"""The terminal's views: progress while a run goes on, and the action table at its end."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.report.result import Outcome, Result
from harness.report.stream import CaseEnded, CaseStarted, Event, Measured, Note, SuiteStarted, WorldFailed

STYLES = {Outcome.PASSED: "green", Outcome.FAILED: "bold red", Outcome.SKIPPED: "yellow", Outcome.NOT_BUILT: "dim"}


class Progress:
    """Prints a line for each step of a run: seconds so far, world, case, outcome."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = 0
        self._done = 0
        self._rows: set[tuple[str, object]] = set()

    def __call__(self, event: Event) -> None:
        match event:
            case SuiteStarted():
                self._total = len(event.worlds) * sum(map(len, event.cases.values()))
            case Note():
                self._line(event.at, Text(event.text, style="cyan"))
            case CaseStarted():
                if (event.world, event.row) not in self._rows:
                    self._rows.add((event.world, event.row))
                    self._line(event.at, Text(f"row {event.row} in {event.world}", style="bold"))
            case Measured():
                self._line(event.at, Text(f"{event.leg}: {event.name}  {_ratio(event) or _amount(event, event.value)}"))
            case CaseEnded():
                self._ended(event)
            case WorldFailed():
                self._line(event.at, Text(event.why, style="bold red"))

    def _ended(self, event: CaseEnded) -> None:
        self._done += 1
        text = Text()
        text.append(f"{event.outcome:7}", style=STYLES[Outcome(event.outcome)])
        text.append(f" {event.case} {event.seconds:.1f} s ({self._done} of {self._total})")
        self._line(event.at, text)
        if event.outcome == Outcome.FAILED.value:
            self._line(event.at, Text(f"        {event.why}", style="red"))
            self._line(event.at, Text(f"        again: {event.reproduce}"))

    def _line(self, at: float, text: Text) -> None:
        self._console.print(Text(f"{at:7.1f} s  ", style="dim").append_text(text), soft_wrap=True)


def _amount(figure: Measured, number: float | None) -> str:
    return "" if number is None else f"{number:.4g} {figure.unit}"


def _ratio(figure: Measured) -> str:
    if figure.ratio is None:
        return ""
    return f"{figure.ratio:.3g} ({figure.spread[0]:.3g} to {figure.spread[1]:.3g})"


def figures(result: Result) -> Table:
    """Every figure beside its baseline, and whether its target is met."""
    table = Table(title="Figures", title_justify="left")
    table.add_column("what", overflow="fold")
    for name in ("value", "baseline", "ratio"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("target", overflow="fold")
    for each in result.measured:
        target = Text("reported", style="dim")
        if each.target is not None:
            style = STYLES[Outcome.PASSED if each.met else Outcome.FAILED]
            target = Text(f"{'met' if each.met else 'missed'}: {each.bound} {each.target:.4g}", style=style)
        name = f"{each.leg}: {each.name}"
        table.add_row(name, _amount(each, each.value), _amount(each, each.baseline), _ratio(each), target)
    return table


def action_table(result: Result) -> Table:
    """Row, title, world, outcome, seconds; rows that are not built come as one line each, in no world."""
    table = Table(title="Action table", title_justify="left")
    for name in ("row", "title", "world", "outcome"):
        table.add_column(name, overflow="fold", no_wrap=name != "title")
    table.add_column("seconds", justify="right")
    shown_unbuilt: set[object] = set()
    for row in result.rows():
        if row.outcome == Outcome.NOT_BUILT:
            if row.row.id in shown_unbuilt:
                continue
            shown_unbuilt.add(row.row.id)
        world = "-" if row.outcome == Outcome.NOT_BUILT else row.world
        seconds = f"{row.seconds:.1f}" if row.cases else ""
        outcome = Text(row.outcome.value, style=STYLES[row.outcome])
        if row.existing and row.cases:
            outcome.append(f", {len(row.cases)} of {row.existing} cases", style="yellow")
        table.add_row(str(row.row.id), row.row.title, world, outcome, seconds)
    return table
