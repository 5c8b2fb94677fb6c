"""The whole verb: do every cell that is not done yet, and leave the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from actshift.compare.cell import BASE_CELL, Cell
from actshift.compare.folder import CompareFolder, made_with
from actshift.compare.methods import EQUAL, Choice, check_common, choose
from actshift.compare.protocol import FIRST_SEED, PendingCell, SweepState
from actshift.compare.provenance import command, provenance
from actshift.compare.report import CompareReport, report_on
from actshift.compare.settings import CompareSettings
from actshift.compare.splits import Splits, cut_names, read_splits, store_splits
from actshift.compare.workers import CellJob, Workers, run_tasks
from actshift.errors import ActshiftError, require
from actshift.files import write_whole
from actshift.tasks import get_task
from actshift.training import TrainSettings
from actshift.training.configs import AdapterSpec
from actshift.training.data import Inputs, head_for, known_objective, objective_of_rows


@dataclass(frozen=True)
class Comparison:
    """What `settings` mean: the methods, the settings common to them, the rows and the folder."""

    settings: CompareSettings
    choice: Choice
    splits: Splits
    folder: CompareFolder

    @classmethod
    def of(cls, settings: CompareSettings) -> Comparison:
        """Check all that can be checked before a model is loaded, and read the rows; nothing is written.

        Raises ActshiftError for whatever is missing or wrong.
        """
        folder = CompareFolder(Path(settings.named("out")))
        choice = choose(settings.methods)
        check_common(settings.common, "The command line")
        of_task = get_task(settings.task).settings if settings.task else {}
        common = {**of_task, **choice.common, **settings.common, "model": settings.named("model")}
        for method in choice.methods:
            AdapterSpec.from_settings(method.cell_settings(method.rates[0], FIRST_SEED, **common))
        return cls(settings, Choice(choice.methods, common), read_splits(settings, common), folder)

    @property
    def standing(self) -> SweepState:
        """The comparison before anything is done."""
        return SweepState(self.choice.methods, self.settings.seeds)

    @property
    def common(self) -> TrainSettings:
        """The settings of training that hold for all methods, the others at their defaults."""
        return TrainSettings(**self.choice.common)

    @property
    def protocol(self) -> dict[str, Any]:
        """All that the methods have in common, ready for JSON."""
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
        """Who judges completions, by name; None where classes are told."""
        from actshift.evaluation.report import EXACT_MATCH

        if self.inputs.head.classifies:
            return None
        return self.settings.judge.name if self.settings.judge else EXACT_MATCH

    @cached_property
    def inputs(self) -> Inputs:
        """What every cell reads to train on, and the head that it needs."""
        settings = TrainSettings.from_mapping({**self.choice.common, "task": self.settings.task})
        rows = self.splits.dataset("train")
        objective = known_objective(settings) or objective_of_rows(rows)
        return Inputs(objective, rows, self.splits.dataset("validation"), head_for(settings, objective, rows))

    def check_prompts(self) -> None:
        """Raise ActshiftError where a prompt that will be scored leaves no room in the model's context."""
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
                raise ActshiftError(f"Of the {name} rows: {error}") from None

    def store_rows(self) -> None:
        """Write the rows where the cells read them; raise ActshiftError where other ones are there."""
        store_splits(self.splits, self.folder.rows)

    def cells(self) -> Iterator[Cell]:
        """Yield every cell there could be."""
        yield BASE_CELL
        for method in self.choice.methods:
            for rate in method.rates:
                for seed in range(FIRST_SEED, FIRST_SEED + self.settings.seeds):
                    yield Cell(method.name, rate, seed)

    def cell_settings(self, cell: Cell) -> TrainSettings:
        """The settings of the training of a cell; those of the base say only how to load it."""
        common = {**self.choice.common, "data": str(self.folder.rows / "train.jsonl")}
        common |= {"eval_data": str(self.folder.rows / "validation.jsonl"), "out": str(self.folder.weights(cell))}
        if cell == BASE_CELL:
            return TrainSettings(**common)
        method = next(method for method in self.choice.methods if method.name == cell.method)
        return method.cell_settings(cell.rate, cell.seed, **common)

    def made_with(self, cell: Cell) -> dict[str, Any]:
        """All that decides what a cell comes to."""
        rates = [list(method.rates) for method in self.choice.methods if method.name == cell.method]
        return made_with(
            self.cell_settings(cell),
            max_new_tokens=self.settings.new_tokens,
            scorer=self.scorer,
            rows=self.splits.digests,
            rates=rates[0] if rates else [],
        )

    def job(self, task: PendingCell) -> CellJob:
        """What a process is told to do."""
        return CellJob(
            folder=str(task.cell.folder(self.folder.path)),
            settings=asdict(self.cell_settings(task.cell)),
            trains=task.cell != BASE_CELL,
            validation=str(self.folder.rows / "validation.jsonl"),
            test=str(self.folder.rows / "test.jsonl") if task.test else None,
            max_new_tokens=self.settings.new_tokens,
            scorer=self.settings.judge.name if self.settings.judge else None,
            eval_batch_size=self.settings.eval_batch_size,
            made_with=self.made_with(task.cell),
            one_thread=self.settings.jobs > 1,
        )


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
        report = report_on(standing, comparison.protocol, provenance(command(settings)))
        _write(report, comparison)
    return report


def _load(comparison: Comparison, standing: SweepState) -> None:
    cells = list(comparison.cells())
    comparison.folder.load(standing, {cell: comparison.made_with(cell) for cell in cells})
    for cell in cells:
        if cell not in standing.records:
            comparison.folder.check_unfinished(cell, comparison.cell_settings(cell))


def _run(comparison: Comparison, standing: SweepState, on_progress: Callable[[Progress], None]) -> None:
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


def _news(cell: Cell, standing: SweepState) -> str:
    if cell in standing.failed:
        return f"{cell}: failed: {standing.failed[cell]}"
    record = standing.records[cell]
    scores = {"validation": record.validation, "test": record.test}
    return f"{cell}: " + ", ".join(f"{name} {100 * score.accuracy:.1f} %" for name, score in scores.items() if score)


def _write(report: CompareReport, comparison: Comparison) -> None:
    from actshift.compare.rendering import draw, markdown

    out = comparison.folder.path
    write_whole(out / "table.json", json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n")
    write_whole(out / "table.md", markdown(report))
    draw(report, out / "table.png")
