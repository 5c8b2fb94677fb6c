"""`actshift compare`: methods side by side on one model and one task, by the paper's protocol."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text
from typer import Option

from actshift.cli import options
from actshift.cli.output import PlainConsole, echo, number_columns, print_json, print_tables
from actshift.compare.settings import CompareSettings
from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from actshift.compare import Progress


@options.flags_of(CompareSettings)
def compare(
    *,
    dry_run: Annotated[bool, Option("--dry-run", help="List the cells and estimate the time; train nothing.")] = False,
    json: options.AsJson = False,
    **flags: Any,
) -> None:
    """Compare methods: choose each learning rate on validation rows, then test several seeds.

    Every method is trained at all of its learning rates with the first seed. The rate with the best validation rows is
    trained with the other seeds, and only its cells are tested. To continue a stopped comparison, run the same command
    again.
    """
    settings = CompareSettings(**{name: value for name, value in flags.items() if value is not None})
    if dry_run:
        _estimate(settings, json)
        return
    with PlainConsole(stderr=True).status("Loading the libraries …"):
        from actshift.compare import compare as run
        from actshift.compare.report import rich_table

    display = ProgressDisplay()
    try:
        with display.live if display.console.is_terminal else nullcontext():
            report = run(settings, display.update)
    except KeyboardInterrupt:
        done = f"{display.last.done} of {display.last.cells} cells are" if display.last else "nothing is"
        message = f"Interrupted; {done} done. Continue with the same command: {settings.command}"
        raise ActshiftError(message) from None
    if json:
        print_json(report.to_dict(), indent=2)
        return
    print_tables(rich_table(report))
    for failure in report.failures:
        echo(f"Failed: {failure}")
    echo(f"Written to {settings.out}: table.md, table.json, table.png")


class ProgressDisplay:
    """The progress of a comparison on stderr: a live table on a terminal, else one line per event."""

    def __init__(self) -> None:
        self.console = PlainConsole(stderr=True)
        self.last: Progress | None = None
        self.started: dict[Any, float] = {}
        self.live = Live(console=self.console, get_renderable=self._table, transient=True, refresh_per_second=2)

    def update(self, progress: Progress) -> None:
        """Show the new state of the comparison."""
        self.last = progress
        self.started = {cell: self.started.get(cell, time.monotonic()) for cell in progress.running}
        if progress.news and not self.console.is_terminal:
            echo(f"{progress.done} of {progress.cells} cells: {progress.news}", err=True)

    def _table(self) -> Group | Text:
        from actshift.compare.report import rich_table

        if self.last is None:
            return Text("Reading the rows …")
        now = time.monotonic()
        running = [f"{cell} ({(now - started) / 60:.0f} min)" for cell, started in self.started.items()]
        done = f"{self.last.done} of {self.last.cells} cells are done. Running: {'; '.join(running) or 'none'}"
        return Group(rich_table(self.last.report), Text(done))


def _estimate(settings: CompareSettings, json: bool) -> None:
    with PlainConsole(stderr=True).status("Counting parameters, and timing a few steps …"):
        from actshift.compare.estimate import estimate
        from actshift.compare.report import short_rate

        expected = estimate(settings)
    if json:
        print_json(asdict(expected), indent=2)
        return
    rates = Column("rates, first seed", no_wrap=True)
    columns = (Column("method", overflow="fold"), *number_columns("trainable", "share"), rates)
    table = Table(*columns, *number_columns("cells", "about"), box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for line in expected.lines:
        figures = (f"{line.trainable:,}", f"{100 * line.share:.3g}%", " ".join(map(short_rate, line.rates)))
        table.add_row(line.label, *figures, str(line.cells), _duration(line.seconds))
    pace = expected.pace
    print_tables(
        table,
        f"{len(expected.cells)} cells of {expected.steps:,} steps; about {_duration(expected.seconds)}, "
        f"{expected.jobs} at a time. Measured here: {pace.begin:.1f} s to start a cell, {pace.step:.3g} s per step of "
        f"{pace.label}, {pace.completion:.3g} s per completion. The other methods are assumed to take as long.",
    )


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
