"""A comparison made ready: every name checked, the rows read, and for each cell what is to be done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from actshift.compare.cell import BASE_CELL, Cell
from actshift.compare.choice import Choice, check_common, choose
from actshift.compare.folder import CompareFolder, made_with
from actshift.compare.method import EQUAL
from actshift.compare.protocol import FIRST_SEED, Standing, Task
from actshift.compare.settings import CompareSettings
from actshift.compare.splits import Splits, cut_names, read_splits, store_splits
from actshift.compare.worker import Job
from actshift.errors import ActshiftError
from actshift.tasks import get_task
from actshift.training import TrainSettings
from actshift.training.adapting import check_names
from actshift.training.inputs import Inputs, head_for, known_objective, objective_of_rows


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
            check_names(method.cell_settings(method.rates[0], FIRST_SEED, **common))
        return cls(settings, Choice(choice.methods, common), read_splits(settings, common), folder)

    @property
    def standing(self) -> Standing:
        """The comparison before anything is done."""
        return Standing(self.choice.methods, self.settings.seeds)

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

    def job(self, task: Task) -> Job:
        """What a process is told to do."""
        return Job(
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
