"""Run a comparison: train and score every cell that is not done yet, and write the table."""

import json
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from actshift import files
from actshift.compare.cell import Cell
from actshift.compare.comparison import Comparison
from actshift.compare.protocol import SweepState
from actshift.compare.provenance import provenance
from actshift.compare.report import CompareReport, build_report
from actshift.compare.settings import CompareSettings
from actshift.compare.splits import store_splits
from actshift.compare.workers import WorkerPool
from actshift.errors import require
from actshift.files import check_new_folder, write_atomically


@dataclass(frozen=True)
class Progress:
    """Progress of a comparison: the report so far, the running cells, and the last event in words (if any)."""

    report: CompareReport
    running: Sequence[Cell]
    news: str | None
    done: int
    cells: int


def compare(settings: CompareSettings, on_progress: Callable[[Progress], None] | None = None) -> CompareReport:
    """Compare methods by the paper's protocol, and write table.json, table.md and table.png to `out`.

    Each method is trained at every one of its learning rates with the first seed. The rate with the best score on
    the validation rows is trained with the other seeds, and only these cells are scored on the test rows. Every
    training keeps the weights with the lowest validation loss.

    The same call resumes a comparison that was stopped at any moment; finished cells are not repeated. A failed cell
    is reported and does not stop the others. The next call tries it again, unless its method has been scored on the
    test rows without it. `on_progress` is called whenever a cell starts or ends.

    Raises:
        ActshiftError: if a setting is missing or invalid, if rows cannot be read or scored, if an extra is not
            installed, or if the output folder has other contents or cells made with other settings.

    Source: arXiv 2603.00425; docs/method.md#protocol.

    Example:
        >>> report = compare(CompareSettings(model="gpt2", data="rows.jsonl", out="table"))  # doctest: +SKIP
        >>> print(report)  # doctest: +SKIP
    """
    from actshift.compare.page import draw, markdown

    require("trl", "compare")
    require("matplotlib", "compare")
    comparison = Comparison.from_settings(settings)
    comparison.check_prompts()
    with locked(out := comparison.out):
        store_splits(comparison.splits, comparison.rows)
        state = comparison.load_state()
        with WorkerPool(settings.jobs) as pool:
            _run(comparison, state, pool, on_progress or (lambda progress: None))
        report = build_report(state, comparison.protocol, provenance(settings.command))
        write_atomically(out / "table.json", json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n")
        write_atomically(out / "table.md", markdown(report))
        draw(report, out / "table.png")
    return report


@contextmanager
def locked(out: Path) -> Generator[None]:
    """Lock the output folder, or raise ActshiftError if another comparison runs in it, or it has other contents."""
    rows = out / "rows"  # a comparison creates this folder before anything else
    if not rows.is_dir():
        check_new_folder(out)
    rows.mkdir(parents=True, exist_ok=True)
    with files.locked(rows / ".lock", f"Another comparison is running in {out}. Wait for it, or give another --out."):
        yield


def _run(comparison: Comparison, state: SweepState, pool: WorkerPool, on_progress: Callable[[Progress], None]) -> None:
    """Run the pending cells, `jobs` at a time, until none is left. Each result changes which cells are pending."""
    running: dict[Future[str | None], Cell] = {}

    def notify(news: str | None = None) -> None:
        report = build_report(state, comparison.protocol, {})
        on_progress(Progress(report, tuple(running.values()), news, len(state.records), state.total()))

    comparison.drop_weights(state)
    while True:
        for cell, test in state.pending():
            if len(running) == comparison.settings.jobs:
                break
            if cell not in running.values():
                running[pool.submit(comparison.job(cell, test))] = cell
        if not running:
            return
        notify()
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            cell = running.pop(future)
            comparison.collect(cell, future.result(), state)
            comparison.drop_weights(state)
            notify(_news(cell, state))


def _news(cell: Cell, state: SweepState) -> str:
    if cell in state.failed:
        return f"{cell}: failed: {state.failed[cell]}"
    record = state.records[cell]
    scores = {"validation": record.validation, "test": record.test}
    return f"{cell}: " + ", ".join(f"{name} {100 * score.accuracy:.1f} %" for name, score in scores.items() if score)
