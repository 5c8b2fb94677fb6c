"""Run a comparison: train and score every cell that is not done yet, and write the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from actshift.compare.cell import BASE_CELL, Cell
from actshift.compare.folder import CompareFolder, made_with
from actshift.compare.job import CellJob
from actshift.compare.methods import EQUAL, MethodSelection, check_common, select_methods
from actshift.compare.protocol import FIRST_SEED, PendingCell, SweepState
from actshift.compare.provenance import provenance
from actshift.compare.report import CompareReport, build_report
from actshift.compare.settings import CompareSettings
from actshift.compare.splits import Splits, cut_names, read_splits, store_splits
from actshift.compare.workers import Engine, WorkerPool
from actshift.errors import ActshiftError, require
from actshift.files import write_whole
from actshift.tasks import get_task
from actshift.training import TrainSettings
from actshift.training.configs import AdapterSpec
from actshift.training.data import Inputs, head_for, known_objective, objective_of_rows
from actshift.training.run_folder import RunFolder


@dataclass(frozen=True)
class Progress:
    """Progress of a comparison: the report so far, the running cells, and the last event in words (if any)."""

    report: CompareReport
    running: Sequence[Cell]
    news: str | None
    done: int
    cells: int


def compare(
    settings: CompareSettings, on_progress: Callable[[Progress], None] = lambda progress: None
) -> CompareReport:
    """Compare methods by the paper's protocol, and write table.json, table.md and table.png to `out`.

    Each method is trained at every one of its learning rates with the first seed. The rate with the best score on
    the validation rows is trained with the other seeds, and only these cells are scored on the test rows. Every
    training keeps the weights with the lowest validation loss.

    The same call resumes a comparison that was stopped at any moment; finished cells are not repeated. A failed cell
    is reported and does not stop the others. The next call tries it again, unless its method has been scored on the
    test rows without it.

    Args:
        on_progress: called whenever a cell starts or ends.

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
    out = comparison.folder.path
    with comparison.folder.locked():
        store_splits(comparison.splits, comparison.folder.rows)
        state = comparison.load_state()
        with WorkerPool(settings.jobs) as engine:
            _run_cells(comparison, state, engine, on_progress)
        report = build_report(state, comparison.protocol, provenance(settings.command))
        write_whole(out / "table.json", json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n")
        write_whole(out / "table.md", markdown(report))
        draw(report, out / "table.png")
    return report


@dataclass(frozen=True)
class Comparison:
    """A checked comparison: its settings, methods, rows and output folder."""

    settings: CompareSettings
    selection: MethodSelection
    splits: Splits
    folder: CompareFolder

    @classmethod
    def from_settings(cls, settings: CompareSettings) -> Comparison:
        """Read the rows and check everything that can be checked without loading the model; write nothing.

        Raises:
            ActshiftError: if something is missing or invalid.
        """
        folder = CompareFolder(Path(settings.required("out")))
        selection = select_methods(settings.methods)
        check_common(settings.common, "The command line")
        task = get_task(settings.task).settings if settings.task else {}
        common = {**task, **selection.common, **settings.common, "model": settings.required("model")}
        for method in selection.methods:
            AdapterSpec.from_settings(method.cell_settings(method.rates[0], FIRST_SEED, **common))
        return cls(settings, MethodSelection(selection.methods, common), read_splits(settings, common), folder)

    @property
    def common(self) -> TrainSettings:
        """The training settings that all methods share; the others are at their defaults."""
        return TrainSettings(**self.selection.common)

    @property
    def protocol(self) -> dict[str, Any]:
        """Everything that the methods have in common, as JSON values."""
        common, settings = self.common, self.settings
        return {
            "model": settings.model,
            "task": settings.task,
            "scorer": self.scorer,
            **{name: getattr(common, name) for name in EQUAL},
            "seeds": settings.seeds,
            "max_new_tokens": settings.new_tokens,
            "rows": self.splits.sizes,
            "shared_rows": self.splits.shared,
            "digests": self.splits.digests,
            "cut_from_data": cut_names(settings),
        }

    @property
    def scorer(self) -> str | None:
        """Name of the scorer of completions, or None for a classifier."""
        from actshift.evaluation.report import EXACT_MATCH

        if self.inputs.head.classifies:
            return None
        return self.settings.judge.name if self.settings.judge else EXACT_MATCH

    @cached_property
    def inputs(self) -> Inputs:
        """The rows of every training, and the model head that they need."""
        settings = TrainSettings.from_mapping({**self.selection.common, "task": self.settings.task})
        rows = self.splits.dataset("train")
        objective = known_objective(settings) or objective_of_rows(rows)
        return Inputs(objective, rows, self.splits.dataset("validation"), head_for(settings, objective, rows))

    def check_prompts(self) -> None:
        """Raise ActshiftError if a prompt to be scored leaves no room for a completion in the model's context."""
        from actshift.data import to_prompt_completion
        from actshift.evaluation.prompts import encode_prompts
        from actshift.loading import load_config, load_tokenizer

        if self.inputs.head.task_type != "CAUSAL_LM":
            return
        model, trusted = str(self.common.model), self.common.trust_remote_code
        config, tokenizer = load_config(model, trusted), load_tokenizer(model, trusted)
        for name in ("validation", "test"):
            rows = self.splits.dataset(name)
            rendered = "messages" in rows.column_names
            prompts = to_prompt_completion(rows, tokenizer)["prompt"]
            try:
                encode_prompts(config, tokenizer, prompts, self.settings.new_tokens, add_special_tokens=not rendered)
            except ActshiftError as error:
                raise ActshiftError(f"In the {name} rows: {error}") from None

    def load_state(self) -> SweepState:
        """Return the state of the comparison in the output folder.

        Raises:
            ActshiftError: if finished or unfinished cells in the folder were made with other settings or rows.
        """
        state = SweepState(self.selection.methods, self.settings.seeds)
        cells = list(self._all_cells())
        self.folder.load(state, {cell: self._made_with(cell) for cell in cells})
        for cell in cells:
            run = RunFolder(self.folder.weights(cell))
            if cell not in state.records and run.unfinished:
                run.check(self._cell_settings(cell), resume=True)
        return state

    def job(self, pending: PendingCell) -> CellJob:
        """Return the job of a pending cell."""
        cell, rows = pending.cell, self.folder.rows
        return CellJob(
            folder=str(cell.folder(self.folder.path)),
            settings=self._cell_settings(cell),
            trains=cell != BASE_CELL,
            validation=str(rows / "validation.jsonl"),
            test=str(rows / "test.jsonl") if pending.test else None,
            max_new_tokens=self.settings.new_tokens,
            scorer=self.settings.judge.name if self.settings.judge else None,
            eval_batch_size=self.settings.eval_batch_size,
            made_with=self._made_with(cell),
            one_thread=self.settings.jobs > 1,
        )

    def _all_cells(self) -> Iterator[Cell]:
        """Yield every cell that the comparison could run."""
        yield BASE_CELL
        for method in self.selection.methods:
            for rate in method.rates:
                for seed in range(FIRST_SEED, FIRST_SEED + self.settings.seeds):
                    yield Cell(method.name, rate, seed)

    def _cell_settings(self, cell: Cell) -> TrainSettings:
        """Return the training settings of a cell; the base model only uses them for loading."""
        paths = {
            "data": str(self.folder.rows / "train.jsonl"),
            "eval_data": str(self.folder.rows / "validation.jsonl"),
            "out": str(self.folder.weights(cell)),
        }
        common: dict[str, Any] = {**self.selection.common, **paths}
        if cell == BASE_CELL:
            return TrainSettings(**common)
        method = next(method for method in self.selection.methods if method.name == cell.method)
        return method.cell_settings(cell.rate, cell.seed, **common)

    def _made_with(self, cell: Cell) -> dict[str, Any]:
        """Return everything that decides the result of a cell."""
        rates = [list(method.rates) for method in self.selection.methods if method.name == cell.method]
        return made_with(
            self._cell_settings(cell),
            max_new_tokens=self.settings.new_tokens,
            scorer=self.scorer,
            rows=self.splits.digests,
            rates=rates[0] if rates else [],
        )


def _run_cells(
    comparison: Comparison, state: SweepState, engine: Engine, on_progress: Callable[[Progress], None]
) -> None:
    """Run the pending cells, `jobs` at a time, until none is left. Each result changes which cells are pending."""
    settings, folder = comparison.settings, comparison.folder
    running: dict[Future[str | None], Cell] = {}

    def notify(news: str | None = None) -> None:
        report = build_report(state, comparison.protocol, {})
        on_progress(Progress(report, tuple(running.values()), news, state.done(), state.total()))

    folder.drop_weights(state, settings.keep_weights)
    while True:
        for pending in state.pending():
            if len(running) == settings.jobs:
                break
            if pending.cell not in running.values():
                running[engine.submit(comparison.job(pending))] = pending.cell
        if not running:
            return
        notify()
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            cell = running.pop(future)
            folder.collect(cell, future.result(), state)
            folder.drop_weights(state, settings.keep_weights)
            notify(_news(cell, state))


def _news(cell: Cell, state: SweepState) -> str:
    if cell in state.failed:
        return f"{cell}: failed: {state.failed[cell]}"
    record = state.records[cell]
    scores = {"validation": record.validation, "test": record.test}
    return f"{cell}: " + ", ".join(f"{name} {100 * score.accuracy:.1f} %" for name, score in scores.items() if score)
