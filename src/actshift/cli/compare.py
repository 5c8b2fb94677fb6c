"""`actshift compare`: methods side by side on one model and one task, by the paper's protocol."""

from __future__ import annotations

import json as json_format
import time
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from actshift.cli.options import flags_of
from actshift.compare.settings import CompareSettings
from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from actshift.compare import CompareReport, Progress
    from actshift.compare.estimate import Estimate


@flags_of(CompareSettings)
def compare(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and estimate the time; train none.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    **flags: Any,
) -> None:
    """Compare methods by the paper's protocol: for each, the best of its learning rates, over seeds, on unseen rows.

    Every method is trained at all of its rates with the first seed; the best on the validation rows is trained with the
    other seeds, and only then meets the test rows. Stopped at any moment, the same command goes on.
    """
    settings = CompareSettings(**{name: value for name, value in flags.items() if value is not None})
    if dry_run:
        _dry_run(settings, json)
        return
    with Console(stderr=True).status("Loading the libraries …"):
        from actshift.compare import compare as run
    watch = Watch()
    try:
        with watch:
            report = run(settings, watch.show)
    except KeyboardInterrupt:
        raise _interrupted(settings, watch.last) from None
    if json:
        print(json_format.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        _print(report, settings)


class Watch:
    """Shows how far a comparison is: on a terminal a table that fills, elsewhere a line for each cell."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.last: Progress | None = None
        self.since: dict[Any, float] = {}
        self.live = Live(console=self.console, get_renderable=self._table, transient=True, refresh_per_second=2)

    def __enter__(self) -> Watch:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.live.stop()

    def show(self, progress: Progress) -> None:
        """Take in how far the comparison is now."""
        self.last = progress
        self.since = {cell: self.since.get(cell, time.monotonic()) for cell in progress.running}
        if progress.news and not self.console.is_terminal:
            self.console.print(
                f"{progress.done} of {progress.cells} cells: {progress.news}", markup=False, soft_wrap=True
            )

    def _table(self) -> Group | Text:
        from actshift.compare.report import rich_table

        if self.last is None:
            return Text("Reading the rows …")
        now = time.monotonic()
        running = [f"{cell} ({(now - since) / 60:.0f} min)" for cell, since in self.since.items()]
        return Group(
            rich_table(self.last.report),
            Text(f"{self.last.done} of {self.last.cells} cells are done; under way: {'; '.join(running) or 'none'}"),
        )


def _interrupted(settings: CompareSettings, last: Progress | None) -> ActshiftError:
    done = f"{last.done} of {last.cells} cells are" if last else "nothing is"
    return ActshiftError(f"Interrupted; {done} done. Go on with the same command: {settings.command}")


def _print(report: CompareReport, settings: CompareSettings) -> None:
    from actshift.compare.report import rich_table

    console = Console(highlight=False)
    console.print(rich_table(report))
    for failure in report.failures:
        console.print(f"Failed: {failure}", markup=False, soft_wrap=True)
    console.print(f"Written to {settings.out}: table.md, table.json, table.png", markup=False, soft_wrap=True)


def _dry_run(settings: CompareSettings, json: bool) -> None:
    with Console(stderr=True).status("Counting parameters, and timing a few steps …"):
        from actshift.compare.estimate import estimate

        expected = estimate(settings)
    if json:
        print(json_format.dumps(expected.to_dict(), indent=2))
        return
    console = Console(highlight=False)
    console.print(_cells(expected))
    pace = expected.pace
    console.print(
        f"{len(expected.cells)} cells of {expected.steps:,} steps; about {_duration(expected.seconds)}, "
        f"{expected.jobs} at a time. Measured here: {pace.begin:.1f} s to begin a cell, {pace.step:.3g} s a step of "
        f"{pace.label}, {pace.completion:.3g} s a completion. The other methods are taken to go at that pace."
    )


def _cells(expected: Estimate) -> Table:
    from actshift.compare.report import short_rate

    table = Table(
        Column("method", overflow="fold"),
        *(Column(name, justify="right", no_wrap=True) for name in ("trainable", "share")),
        Column("rates, first seed", no_wrap=True),
        *(Column(name, justify="right", no_wrap=True) for name in ("cells", "about")),
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for line in expected.lines:
        table.add_row(
            line.label,
            f"{line.trainable:,}",
            f"{100 * line.share:.3g}%",
            " ".join(map(short_rate, line.rates)),
            str(line.cells),
            _duration(line.seconds),
        )
    return table


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
