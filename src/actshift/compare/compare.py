"""The whole verb: do every cell that is not done yet, and leave the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from actshift.compare.cell import Cell
from actshift.compare.comparison import Comparison
from actshift.compare.made import command, how_made
from actshift.compare.protocol import Standing
from actshift.compare.report import CompareReport, report_on
from actshift.compare.schedule import run_tasks
from actshift.compare.settings import CompareSettings
from actshift.compare.workers import Workers
from actshift.extras import require
from actshift.files import write_whole


@dataclass(frozen=True)
class Progress:
    """How far a comparison is: the report so far, the cells under way, and in words the last thing that happened."""

    report: CompareReport
    running: Sequence[Cell]
    news: str | None
    done: int
    cells: int


def compare(
    settings: CompareSettings, on_progress: Callable[[Progress], None] = lambda progress: None
) -> CompareReport:
    """Compare methods by the paper's protocol (arXiv 2603.00425), and leave table.json, .md and .png in `out`.

    Each method is trained at every one of its learning rates with the first seed; the best by exact match on the
    validation rows is trained with the other seeds, and that rate's cells alone meet the test rows. Training keeps
    the state of lowest validation loss, for all methods alike.

    A comparison that was stopped at any moment goes on by the same call: what is done is not done again. A cell that
    fails is reported and does not stop the others; the next call tries it again, unless its method has met the test
    rows without it.

    Raises:
        ActshiftError: a setting that is missing or wrong, rows that cannot be read or scored, an extra that is not
            installed, a folder that holds something else, or cells made otherwise.

    Example:
        >>> report = compare(CompareSettings(model="gpt2", data="rows.jsonl", out="table"))  # doctest: +SKIP
        >>> print(report)  # doctest: +SKIP
    """
    require("trl", "compare")
    require("matplotlib", "compare")
    comparison = Comparison.of(settings)
    comparison.check_prompts()
    with comparison.folder.locked():
        comparison.store_rows()
        standing = comparison.standing
        _load(comparison, standing)
        _run(comparison, standing, on_progress)
        report = report_on(standing, comparison.protocol, how_made(command(settings)))
        _write(report, comparison)
    return report


def _load(comparison: Comparison, standing: Standing) -> None:
    cells = list(comparison.cells())
    comparison.folder.load(standing, {cell: comparison.made_with(cell) for cell in cells})
    for cell in cells:
        if cell not in standing.records:
            comparison.folder.check_unfinished(cell, comparison.cell_settings(cell))


def _run(comparison: Comparison, standing: Standing, on_progress: Callable[[Progress], None]) -> None:
    running: list[Cell] = []

    def tell(news: str | None = None) -> None:
        report = report_on(standing, comparison.protocol, {})
        on_progress(Progress(report, tuple(running), news, standing.done(), standing.cells()))

    def started(cells: Sequence[Cell]) -> None:
        running[:] = cells
        tell()

    def settle(cell: Cell, error: str | None) -> None:
        running.remove(cell)
        comparison.folder.settle(cell, error, standing)
        comparison.folder.drop_weights(standing, comparison.settings.keep_weights)
        tell(_news(cell, standing))

    comparison.folder.drop_weights(standing, comparison.settings.keep_weights)
    with Workers(comparison.settings.jobs) as workers:
        run_tasks(
            standing, comparison.settings.jobs, lambda task: workers.submit(comparison.job(task)), settle, started
        )


def _news(cell: Cell, standing: Standing) -> str:
    if cell in standing.failed:
        return f"{cell}: failed: {standing.failed[cell]}"
    record = standing.records[cell]
    scores = {"validation": record.validation, "test": record.test}
    return f"{cell}: " + ", ".join(f"{name} {100 * score.accuracy:.1f} %" for name, score in scores.items() if score)


def _write(report: CompareReport, comparison: Comparison) -> None:
    from actshift.compare.picture import draw
    from actshift.compare.table import markdown

    out = comparison.folder.path
    write_whole(out / "table.json", json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n")
    write_whole(out / "table.md", markdown(report))
    draw(report, out / "table.png")
